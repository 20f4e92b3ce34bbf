"""What a run leaves beside its weights: settings, figures, cards; and that a bad disk ends in one clear line."""

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import tracking
from accelerate.utils import LoggerType
from training_runs import METRIC, changed, config_of

from fewshot_nlp import FewShotError
from fewshot_nlp.training import Callback, meta_train, parse_config
from fewshot_nlp.training.reproducible import deterministic_kernels, versions


class AtStep(Callback):
    """Does something once, after a step."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step(self, record: Any) -> None:
        if record["step"] == self.step:
            self.action()


def test_saved_settings_are_complete_and_can_be_used_again(
    tmp_path: Path, tiny_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(
        tmp_path, tiny_encoder_folder, outer__steps=2, data__mixture={"medical_ner": 1, "legal_ner": 2}
    )
    meta_train(config)
    path = tmp_path / "config.yaml"
    assert parse_config(["--config", str(path)]) == config
    text = path.read_text()
    assert text.startswith(f"# fewshot_nlp {versions()['fewshot_nlp']}\n# python 3.")
    assert f"# torch {torch.__version__}\n" in text
    assert all(f"# {name} " in text for name in ("transformers", "peft", "accelerate"))
    assert set(config.to_dict()) <= {line.split(":")[0] for line in text.splitlines()}
    path.write_text(text.replace(f"# torch {torch.__version__}", "# torch 1.0"))
    assert "begun with" not in caplog.text
    meta_train(config)
    assert "begun with torch 1.0" in caplog.text
    assert path.read_text() == text
    with pytest.raises(FewShotError, match="restore that setting"):
        meta_train(changed(config, run__seed=9))
    assert path.read_text() == text, "a refused run writes nothing"


def test_models_have_cards(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    history = meta_train(config_of(tmp_path / "run", tiny_encoder_folder)).history
    for name in ("best", "final"):
        card = (tmp_path / "run" / name / "README.md").read_text()
        assert f"# run/{name}" in card
        assert "not adapted to any yet" in card
        assert "from fewshot_nlp import FewShotNER" in card
        assert r"medical\_ner" in card
    assert "Step 6 of 6" in card
    assert f"{METRIC} {history[-1][METRIC]}" in card


class StandIn(tracking.GeneralTracker):  # type: ignore[misc]
    """A tracker that keeps what it is given."""

    name = "tensorboard"
    requires_logging_directory = True
    made: "list[StandIn]" = []  # noqa: RUF012 - read by the test

    def __init__(self, run_name: str, logging_dir: str, **_: Any) -> None:
        super().__init__()
        self.logging_dir, self.settings, self.finished = logging_dir, dict[str, Any](), False
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.made.append(self)

    @property
    def tracker(self) -> "StandIn":
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def test_trackers_get_settings_and_figures(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", StandIn)
    monkeypatch.setattr(StandIn, "made", [])
    meta_train(config_of(tmp_path, tiny_encoder_folder))
    assert not StandIn.made, "trackers are off unless asked for"
    config = config_of(tmp_path / "tracked", tiny_encoder_folder, run__trackers=("tensorboard",))
    history = [r for r in meta_train(config).history if "train_loss" in r or "val_loss" in r]
    [tracker] = StandIn.made
    assert tracker.finished
    assert Path(tracker.logging_dir) == tmp_path / "tracked" / "trackers"
    assert tracker.settings["data.sampler.n_query"] == 3
    assert [step for step, _ in tracker.logged] == [r["step"] for r in history]
    for (_, values), record in zip(tracker.logged, history, strict=True):
        key = "train_loss" if "train_loss" in record else "val_loss"
        assert values[key] == record[key]
        assert all(isinstance(value, float) for value in values.values())


def test_missing_tracker_is_told_with_the_way_to_get_it(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [])
    config = config_of(tmp_path / "run", tiny_encoder_folder, run__trackers=("wandb", "mlflow"))
    with pytest.raises(FewShotError, match=r"'wandb', which is not installed.*pip install.* wandb mlflow"):
        meta_train(config)
    assert not (tmp_path / "run").exists()
    with pytest.raises(FewShotError, match=r"trackers\.0 is 'excel', but must be one of: tensorboard"):
        changed(config, run__trackers=("excel",))  # type: ignore[arg-type]


def test_deterministic_kernels_only_while_the_run_lasts(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    seen: list[bool] = []
    look = AtStep(1, lambda: seen.append(torch.are_deterministic_algorithms_enabled()))
    for deterministic in (False, True):
        config = config_of(
            tmp_path / str(deterministic), tiny_encoder_folder, run__deterministic=deterministic
        )
        meta_train(config, [look])
        assert not torch.are_deterministic_algorithms_enabled()
    assert seen == [False, True]


def test_deterministic_on_a_gpu_needs_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with (
        pytest.raises(FewShotError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8"),
        deterministic_kernels(True, torch.device("cuda")),
    ):
        pass


def test_full_disk_is_one_line_and_costs_no_checkpoint(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path / "run", tiny_encoder_folder, train="all", validation__sources=())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = AtStep(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1])))
    try:
        with pytest.raises(FewShotError, match=r"step-0000004 cannot be written: File too large") as caught:
            meta_train(config, [full])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-0000002"]
    meta_train(config)
    whole = changed(config, run__output_dir=str(tmp_path / "whole"))
    meta_train(whole)
    one, two = (tmp_path / name / "final" / "model.safetensors" for name in ("run", "whole"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("place", ["/proc/run", "/proc/self", "a_file", "a_file/run"])
def test_unwritable_folder_is_one_line(place: str, tmp_path: Path, tiny_encoder_folder: Path) -> None:
    (tmp_path / "a_file").write_text("")
    with pytest.raises(FewShotError, match=r"cannot be (made|written): [A-Z][a-z ]+") as caught:
        meta_train(config_of(tmp_path / place, tiny_encoder_folder))
    assert "\n" not in str(caught.value)


def test_log_that_cannot_be_written_is_one_line(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    def in_the_way() -> None:
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").mkdir()

    with pytest.raises(FewShotError, match=r"log\.jsonl cannot be written: Is a directory\."):
        meta_train(config_of(tmp_path, tiny_encoder_folder), [AtStep(3, in_the_way)])
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]
