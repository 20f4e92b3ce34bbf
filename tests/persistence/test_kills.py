"""A process that is killed while it saves a model leaves the old model or the new one, whole."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot_nlp import FewShotClassifier
from fewshot_nlp.persistence import disk

ROWS = [
    {"text": "I lost my card", "label": "card"},
    {"text": "send money to her", "label": "transfer"},
]
OTHER = [{"text": "pay the bank", "label": "bank"}, {"text": "the judge is here", "label": "law"}]
TEXTS = ["where is my card", "pay the bank", "give it"]
MOMENTS = 20
STEPS = ("open", "os.", "shutil.", "ctypes.call_function", "fcntl.")
"""What Python tells its audit hooks of a save: opened files, new folders, locks, renames, removals."""


def run_and_kill(save: Callable[[], object], step: int | None) -> int:
    """Saves in another process, which is killed before one of its steps; how many steps it got to."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            if event.startswith(STEPS):
                count += 1
                if count - 1 == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            save()
            os.write(write, str(count).encode())
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as file:
        told = file.read()
    assert os.WIFSIGNALED(status) is (step is not None)
    return int(told or 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_model(
    exchanges: bool, tiny_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(disk, "_renameat2", lambda: None)
    old = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe").adapt(ROWS)
    new = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical").adapt(OTHER)
    folder = tmp_path / "model"
    old.save_pretrained(folder)
    expected = {tuple(model.labels): model.predict_proba(TEXTS) for model in (old, new)}
    steps = run_and_kill(lambda: new.save_pretrained(tmp_path / "elsewhere"), None)
    assert steps > MOMENTS
    found = set()
    for moment in range(MOMENTS):
        old.save_pretrained(folder)
        run_and_kill(lambda: new.save_pretrained(folder), moment * steps // MOMENTS)
        disk.sweep(
            tmp_path
        )  # as the next save does; without an exchange it puts back a folder between two names
        loaded = FewShotClassifier.from_pretrained(folder)
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), expected[tuple(loaded.labels)])
        found.add(tuple(loaded.labels))
    assert found == set(expected)
    old.save_pretrained(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model"]
