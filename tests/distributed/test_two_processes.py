"""Two processes on CPUs, started by the ready configuration: they really run, and a signal ends both of them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import run_pair
from training_runs import (
    ROOT,
    SCRIPT,
    arguments_of,
    assert_same_run,
    changed,
    config_of,
    environment,
    log_of,
    step_of,
)

from fewshot_nlp.training import MetaTrainConfig, meta_train

LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch",
    "--config_file", str(ROOT / "recipes" / "accelerate" / "two_cpu_processes.yaml"), str(SCRIPT),
]  # fmt: skip


def launch(config: MetaTrainConfig) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*LAUNCH, *arguments_of(config)], env=environment(ACCELERATE_USE_CPU="true"), cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(config: MetaTrainConfig) -> None:
    run_pair(meta_train, config)
    steps = [record for record in log_of(Path(config.run.output_dir)) if "train_loss" in record]
    assert [record["processes"] for record in steps] == [2] * config.outer.steps


def test_both_stop_at_a_signal_and_go_on_to_the_same_bits(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(
        tmp_path / "stopped", tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 1},
        outer__steps=20, run__save_every=100, validation__every=10,
    )  # fmt: skip
    process = launch(config)
    while process.poll() is None and step_of(tmp_path / "stopped") < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert "Stopped by a signal after" in told, told[-3000:]
    [checkpoint] = (tmp_path / "stopped" / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{step_of(tmp_path / 'stopped'):07d}"
    finish(config)
    whole = changed(config, run__output_dir=str(tmp_path / "whole"))
    finish(whole)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
