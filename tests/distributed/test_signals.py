"""SIGTERM and SIGINT: the work in hand is given up, the last whole step saved; going on gives the same bits."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import assert_same_run, config_of

from fewshot_nlp.learners.maml import MAML
from fewshot_nlp.training import MetaTrainConfig, meta_train, validation
from fewshot_nlp.training.interruption import LAUNCHED, Interruption


def signalled(
    function: Callable[..., Any], at_call: int, number: int, calls: list[int]
) -> Callable[..., Any]:
    """The function, during whose call of a given number the process gets a signal."""

    def wrapped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at_call:
            os.kill(os.getpid(), number)
        return function(*arguments)

    return wrapped


def run_of(folder: Path, encoder: Path) -> MetaTrainConfig:
    return config_of(
        folder, encoder, learner="maml", learner_config={"inner_steps": 1}, outer__meta_batch=4,
        run__save_every=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_folder: Path) -> Path:
    """The folder of a run that no signal disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    meta_train(run_of(folder, tiny_encoder_folder))
    return folder


@pytest.mark.parametrize(
    ("number", "where", "at_call", "saved"),
    [
        (signal.SIGTERM, "step", 1, []),  # the first episode of all: nothing is done yet
        (signal.SIGINT, "step", 6, [1]),  # in the middle of the second step
        (signal.SIGTERM, "step", 12, [3]),  # the last episode of the third step: the step is finished
        (signal.SIGTERM, "validation", 2, []),  # of the first meta-validation
        (signal.SIGINT, "validation", 5, [3]),  # of that after the third step
        (signal.SIGTERM, "validation", 8, [6]),  # of the last
    ],
)
def test_signal_gives_up_the_work_in_hand(
    number: int,
    where: str,
    at_call: int,
    saved: list[int],
    whole: Path,
    tmp_path: Path,
    tiny_encoder_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = run_of(tmp_path / "stopped", tiny_encoder_folder)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        if where == "step":
            patch.setattr(MAML, "meta_loss", signalled(MAML.meta_loss, at_call, number, calls))
        else:
            patch.setattr(validation, "_measure", signalled(validation._measure, at_call, number, calls))
        with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt):
            meta_train(config)
    assert len(calls) == at_call, "no further episode was begun"
    found = [path.name for path in (tmp_path / "stopped").glob("checkpoints/*")]
    assert found == [f"step-{step:07d}" for step in saved]
    meta_train(config)
    assert_same_run(tmp_path / "stopped", whole)


def test_a_launcher_that_is_gone_counts_as_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LAUNCHED, raising=False)
    alone = Interruption()
    monkeypatch.setenv(LAUNCHED, "no")
    launched = Interruption()
    assert not launched.should_stop()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launched.should_stop()
    assert not alone.should_stop(), "a run that was started from a shell goes on when the shell is closed"
