"""A run that is killed at random moments, and resumed each time, ends with the bits of one that was left alone."""

import json
import multiprocessing
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from training_runs import config_of

from fewshot_nlp.training import meta_train

KILLS = 20
STEPS = 60
PRELOADED = (
    "fewshot_nlp.training.meta_train",
    "fewshot_nlp.learners.catalogue",
    "fewshot_nlp.tasks.catalogue",
    "transformers.models.bert",
    "transformers.conversion_mapping",
    "peft",
)


def records(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of the log, without timings."""
    path = folder / "log.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k != "episodes_per_s"} for line in lines]


def inode(folder: Path) -> int | None:
    """It changes when a run is taken up, since the log is then replaced."""
    path = folder / "log.jsonl"
    return path.stat().st_ino if path.exists() else None


def step_of(folder: Path) -> int:
    return max((r["step"] for r in records(folder)), default=0)


def test_killed_at_random_moments_and_resumed(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    folder = tmp_path / "killed"
    config = config_of(
        folder, tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 2}, meta_batch=1,
        outer_steps=STEPS, save_every=2, val_every=5,
    )  # fmt: skip
    context = multiprocessing.get_context("forkserver")  # real processes that need not import torch each time
    context.set_forkserver_preload(list(PRELOADED))
    moments = random.Random(0)
    killed_at = []
    for step in sorted(moments.sample(range(1, STEPS - 5), KILLS)):
        before = inode(folder)
        process = context.Process(target=meta_train, args=(config,))
        process.start()
        while process.is_alive() and (inode(folder) == before or step_of(folder) < step):
            time.sleep(0.002)
        time.sleep(0.05 * moments.random())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"it ended before it was killed at step {step}"
        killed_at.append(step_of(folder))
    assert len(killed_at) == KILLS
    assert not (folder / "final").exists()
    meta_train(config)
    assert not list(folder.glob(".*")), "nothing half written is left"
    whole = replace(config, output_dir=str(tmp_path / "whole"))
    meta_train(whole)
    for name in ("best", "final"):
        one, two = (tmp_path / run / name / "model.safetensors" for run in ("killed", "whole"))
        assert one.read_bytes() == two.read_bytes(), f"{name}, after kills in the steps after {killed_at}"
    assert records(folder) == records(tmp_path / "whole")
