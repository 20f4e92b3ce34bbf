"""What callbacks are told of a run, and how they end it: early stopping, progress, a user's own."""

import sys
from pathlib import Path
from typing import Any

import pytest
from training_runs import METRIC, changed, config_of

from fewshot_nlp import FewShotError, FewShotNER
from fewshot_nlp.training import Callback, meta_train
from fewshot_nlp.training.callbacks import EarlyStopping


class Recorder(Callback):
    """Keeps what it is told; ends the run at a step."""

    def __init__(self, end_at: int | None = None) -> None:
        self.told: list[tuple[str, Any]] = []
        self.end_at = end_at

    def on_start(self, records: Any) -> bool:
        self.told.append(("start", len(records)))
        return False

    def on_step(self, record: Any) -> None:
        self.told.append(("step", record["step"]))

    def on_validation(self, record: Any) -> bool:
        self.told.append(("validation", record["step"]))
        return bool(record["step"] == self.end_at)

    def on_end(self) -> None:
        self.told.append(("end", None))


def test_a_callback_is_told_in_order_and_ends_the_run(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    mine = Recorder(end_at=3)
    history = meta_train(config, [mine]).history
    steps = [("step", 1), ("step", 2), ("step", 3)]
    assert mine.told == [("start", 0), ("validation", 0), *steps, ("validation", 3), ("end", None)]
    assert [r["step"] for r in history if "train_loss" in r] == [1, 2, 3]
    for name in ("best", "final"):
        assert FewShotNER.from_pretrained(tmp_path / name).extra["meta_training"]["step"] <= 3
    again = Recorder()
    meta_train(config, [again])  # without the ending callback the run goes on from where it ended
    assert again.told[:2] == [("start", len(history)), ("step", 4)]
    whole = config_of(tmp_path / "whole", tiny_encoder_folder)
    meta_train(whole)
    for name in ("best", "final"):
        one, two = (folder / name / "model.safetensors" for folder in (tmp_path, tmp_path / "whole"))
        assert one.read_bytes() == two.read_bytes()


def test_early_stopping_counts_looks_in_vain() -> None:
    def steps_until_it_ends(best: list[bool], taken_over: int) -> int | None:
        records = [{"step": i, "val_loss": 1.0, "best": b} for i, b in enumerate(best)]
        callback = EarlyStopping(2)
        if callback.on_start([{"step": 0, "train_loss": 1.0}, *records[:taken_over]]):
            return taken_over - 1
        return next((r["step"] for r in records[taken_over:] if callback.on_validation(r)), None)

    for taken_over in range(6):
        assert steps_until_it_ends([True, False, True, False, True, False], taken_over) is None
    for taken_over in range(4):
        assert steps_until_it_ends([True, False, False, True], min(taken_over, 3)) == 2


def test_patience_ends_a_run_and_resuming_it_changes_nothing(
    tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    # With a vanishing rate every meta-validation equals the first, so none is better.
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        outer__lr=1e-30,
        outer__weight_decay=0.0,
        validation__every=2,
        outer__steps=9,
        validation__patience=2,
    )
    result = meta_train(config)
    assert [(r["step"], r["best"]) for r in result.history if "val_loss" in r] == [
        (0, True),
        (2, False),
        (4, False),
    ]
    assert len({r[METRIC] for r in result.history if "val_loss" in r}) == 1
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("best", "final")]
    assert meta_train(config).history == result.history
    assert models == [(tmp_path / name / "model.safetensors").read_bytes() for name in ("best", "final")]
    patient = meta_train(
        changed(config, validation__patience=None)
    ).history  # more patience goes on from there
    assert patient[-1]["step"] == 9
    assert patient[: len(result.history)] == result.history


def test_patience_without_meta_validation_is_refused(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    with pytest.raises(FewShotError, match="patience is 3 meta-validations, but there are none"):
        config_of(tmp_path, tiny_encoder_folder, validation__sources=(), validation__patience=3)


def test_progress_shows_speed_and_time_left(
    tmp_path: Path,
    tiny_encoder_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    meta_train(changed(config, run__output_dir=str(tmp_path / "no terminal")))
    assert "\r" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    meta_train(config)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "12/12" in last
    assert "episodes/s" in last or "s/ episodes" in last
    assert "<" in last  # elapsed<left
    assert "loss=" in last
