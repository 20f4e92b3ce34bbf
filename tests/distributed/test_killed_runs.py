"""A run that is killed at random moments, and resumed each time, ends with the bits of one that was left alone."""

import random
import signal
import time
from pathlib import Path

from processes import start
from training_runs import assert_same_run, changed, config_of, step_of

from fewshot_nlp.training import meta_train
from fewshot_nlp.training.regularisation import Regularisation
from fewshot_nlp.training.selection import Selection

KILLS = 12
STEPS = 40


def inode(folder: Path) -> int | None:
    """It changes when a run is taken up, since the log is then replaced."""
    path = folder / "log.jsonl"
    return path.stat().st_ino if path.exists() else None


def test_killed_at_random_moments_and_resumed(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    folder = tmp_path / "killed"
    config = config_of(
        folder, tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 2}, outer__meta_batch=1,
        outer__steps=STEPS, run__save_every=2, validation__every=5, data__selection=Selection(hard_temperature=0.1),
        outer__regularisation=Regularisation(dropout=0.1, information=0.01),
    )  # fmt: skip
    moments = random.Random(0)
    hit = 0
    for step in sorted(moments.sample(range(1, STEPS - 5), KILLS)):
        before = inode(folder)
        process = start(meta_train, config)
        while process.is_alive() and (inode(folder) == before or step_of(folder) < step):
            time.sleep(0.002)
        time.sleep(0.05 * moments.random())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"it ended before it was killed at step {step}"
        hit += 1
    assert hit == KILLS
    assert not (folder / "final").exists()
    meta_train(config)
    assert not list(folder.glob(".*")), "nothing half written is left"
    whole = changed(config, run__output_dir=str(tmp_path / "whole"))
    meta_train(whole)
    assert_same_run(folder, Path(whole.run.output_dir))
