"""Meta-training: resuming, several processes, diverging, and what it leaves behind."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from processes import finish, run_pair, start_program
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from training_runs import (
    LORA,
    METRIC,
    SCRIPT,
    arguments_of,
    assert_same_run,
    changed,
    config_of,
    step_of,
)

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER
from fewshot_nlp.errors import ScienceError
from fewshot_nlp.persistence import disk
from fewshot_nlp.training import MetaTrainConfig, meta_train
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.config import SamplerSettings, Source
from fewshot_nlp.training.episodes import make_streams
from fewshot_nlp.training.interruption import Stopped
from fewshot_nlp.training.optimizer import trainable_parameters
from fewshot_nlp.training.outer_step import meta_loss, outer_gradient
from fewshot_nlp.training.validation import meta_validate


def write_gradient_of_two(config: MetaTrainConfig, path: Path) -> None:
    """What each of two processes does: the first writes the gradient; asked to stop, both do."""
    accelerator = Accelerator()
    pipeline = build_pipeline(config, accelerator.device)
    streams = make_streams(config, pipeline.task)
    assert streams.val is not None
    with trainable_parameters(pipeline, config.train) as trainable:
        given = (accelerator, pipeline, trainable, streams.train)
        step = {"step": 1, "meta_batch": config.outer.meta_batch}
        losses = outer_gradient(*given, **step)
        if accelerator.is_main_process:
            assert accelerator.num_processes == 2
            gradient = {n: p.grad.clone() for n, p in trainable.items() if p.grad is not None}
            save_file(gradient, path, {"losses": repr(losses)})

        def should_stop() -> bool:
            return accelerator.process_index == 1

        with pytest.raises(Stopped):
            outer_gradient(*given, **step, should_stop=should_stop)
        with pytest.raises(Stopped):
            meta_validate(accelerator, pipeline, streams.val, 2, 0, should_stop)
    accelerator.end_training()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_folder: Path) -> MetaTrainConfig:
    """An unbroken run of 40 steps that other runs are compared with."""
    config = config_of(
        tmp_path_factory.mktemp("whole"),
        tiny_encoder_folder,
        outer__steps=40,
        run__save_every=3,
        validation__every=10,
    )
    meta_train(config)
    return config


def test_run_leaves_log_checkpoints_and_models(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path, tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 2})
    (tmp_path / "log.jsonl").write_text('{"step": 0, "val_loss": 9.0}\n{"step": 1, "tra')  # killed early
    result = meta_train(config)
    assert result.folder == tmp_path / "best"
    steps = [r for r in result.history if "train_loss" in r]
    checks = [r for r in result.history if "val_loss" in r]
    assert [r["step"] for r in steps] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in checks] == [0, 3, 6]
    assert all({"lr", "grad_norm", "episodes_per_s", "meta_batch"} <= set(r) for r in steps)
    assert all(r["n_episodes"] == 3 and r[f"{METRIC}_ci95"] >= 0 for r in checks)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-0000004", "step-0000006"]
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.pkl"))
    assert len({r["val_loss"] for r in checks}) == 3, "training changes the model"


@pytest.mark.parametrize("train", ["adapter", "all", "learner"])
def test_saved_model_is_the_one_that_was_measured(
    train: str, tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    config = config_of(tmp_path, tiny_encoder_folder, train=train)
    result = meta_train(config)
    model = FewShotNER.from_pretrained(tmp_path / "final")
    stream = make_streams(config, model.pipeline.task).val
    assert stream is not None
    again = meta_validate(
        Accelerator(), model.pipeline, stream, config.validation.n_episodes, config.validation.seed
    )
    assert again["val_loss"] == pytest.approx(result.history[-1]["val_loss"], abs=1e-6)
    assert (tmp_path / "final" / "encoder").exists()  # it came from a folder, so it is copied
    start_encoder = load_file(tiny_encoder_folder / "model.safetensors")
    copied = load_file(tmp_path / "final" / "encoder" / "model.safetensors")
    moved = any(not torch.equal(copied[name], tensor) for name, tensor in start_encoder.items())
    assert moved == (train == "all")
    assert not any(p.requires_grad for p in model.pipeline.learner.encoder.model.parameters())
    rows = [{"tokens": ["Give", "aspirin"], "ner_tags": ["O", "B-DRUG"]}]
    assert model.adapt(rows).predict(["Give aspirin."])


def test_training_lowers_the_loss(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        task="classification",
        train="all",
        data__sources=(Source(name="medical_classification"), Source(name="legal_classification")),
        validation__sources=(),
        validation__class_fraction=0.4,
        data__sampler=SamplerSettings(n_way=3, k_shot=3, n_query=4),
        outer__steps=30,
        validation__every=40,
        outer__lr=3e-3,
    )
    streams = make_streams(config, build_pipeline(config, torch.device("cpu")).task)
    assert streams.val is not None
    trained, held = (
        {n for i in range(30) for n in s.episode(i).label_names} for s in (streams.train, streams.val)
    )
    assert trained
    assert held
    assert not trained & held
    losses = [r["train_loss"] for r in meta_train(config).history if "train_loss" in r]
    assert sum(losses[-8:]) / 8 < sum(losses[:8]) / 8 - 0.15
    assert isinstance(FewShotClassifier.from_pretrained(tmp_path / "best"), FewShotClassifier)


def test_sigterm_saves_and_exits(whole: MetaTrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    broken = changed(whole, run__output_dir=str(folder), run__save_every=1000)
    process = start_program(str(SCRIPT), arguments_of(broken), tmp_path)
    while process.is_alive() and step_of(folder) < 4:
        time.sleep(0.002)
    process.terminate()
    done = finish(process, tmp_path)
    assert done.returncode == 143, done
    assert "Stopped by a signal" in done.stderr
    last = step_of(folder)
    assert 4 <= last < 40
    assert [p.name for p in (folder / "checkpoints").iterdir()] == [f"step-{last:07d}"]
    meta_train(changed(broken, run__save_every=3))
    assert_same_run(Path(whole.run.output_dir), folder)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no_state", "half_state"])
def test_damaged_checkpoint_falls_back(
    damage: str, tmp_path: Path, tiny_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    meta_train(config)
    expected = (tmp_path / "final" / "model.safetensors").read_bytes()
    newest = tmp_path / "checkpoints" / "step-0000006"
    tensors, state = newest / "tensors.safetensors", newest / "state.json"
    data = tensors.read_bytes()
    if damage == "cut":
        tensors.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "no_state":
        state.unlink()
    else:
        state.write_text(state.read_text()[:40])
    caplog.set_level("INFO", "fewshot_nlp")
    meta_train(config)
    assert "step-0000006 is damaged" in caplog.text
    assert "Going on from the checkpoint after step 4" in caplog.text
    assert (tmp_path / "final" / "model.safetensors").read_bytes() == expected
    for path in (tmp_path / "checkpoints").glob("*/tensors.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(FewShotError, match="All 2 checkpoints"):
        meta_train(config)


def test_other_configuration_or_data_is_not_resumed(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path, tiny_encoder_folder, outer__steps=2)
    meta_train(config)
    for changes, key in (
        ({"outer__lr": 0.5}, r"outer\.lr=0\.01.*outer\.lr=0\.5"),
        (
            {"data__sampler": replace(config.data.sampler, n_query=4)},
            r"data\.sampler\.n_query=3.*data\.sampler\.n_query=4",
        ),
        ({"adapter": {**LORA, "r": 4}}, r"adapter\.r=2.*adapter\.r=4"),
    ):
        with pytest.raises(FewShotError, match=key):
            meta_train(changed(config, **changes))
    with pytest.raises(FewShotError, match="holds checkpoints of an earlier run"):
        meta_train(changed(config, run__resume="never"))
    meta_train(changed(config, run__keep_last=1, run__save_every=7))  # these decide nothing that is computed
    state = tmp_path / "checkpoints" / "step-0000002" / "state.json"
    value = json.loads(state.read_text())
    value["fingerprints"]["train.medical_ner"] = "0" * 64
    state.write_text(json.dumps(value))
    with pytest.raises(FewShotError, match=r"rows of train\.medical_ner have changed"):
        meta_train(config)


def test_two_processes_have_the_gradient_of_one(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(
        tmp_path, tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 2}, outer__meta_batch=4
    )
    run_pair(write_gradient_of_two, config, tmp_path / "two.safetensors")
    two = load_file(tmp_path / "two.safetensors")
    with safe_open(tmp_path / "two.safetensors", "pt") as file:
        losses_of_two = json.loads(file.metadata()["losses"])
    accelerator = Accelerator()
    assert accelerator.num_processes == 1
    pipeline = build_pipeline(config, accelerator.device)
    streams = make_streams(config, pipeline.task)
    with trainable_parameters(pipeline, config.train) as trainable:
        losses = [meta_loss(pipeline, streams.train.episode(i)) for i in range(4, 8)]
        plain = torch.autograd.grad(torch.stack(losses).mean(), list(trainable.values()))
        unused = nn.Parameter(torch.ones(3))
        told = outer_gradient(
            accelerator, pipeline, {**trainable, "unused": unused}, streams.train, step=1, meta_batch=4
        )
        one = {name: p.grad for name, p in trainable.items() if p.grad is not None}
    assert told == pytest.approx([x.item() for x in losses], abs=1e-6)
    assert losses_of_two == pytest.approx(told, abs=1e-6)
    assert unused.grad is not None
    assert torch.equal(unused.grad, torch.zeros(3))
    assert two.keys() == one.keys()
    assert max(float(g.abs().max()) for g in one.values()) > 1e-4
    for (name, grad), expected in zip(one.items(), plain, strict=True):
        assert (grad - expected).abs().max() < 1e-6, name
        assert (two[name] - grad).abs().max() < 1e-6, name


def test_divergent_run_stops_and_keeps_the_last_checkpoint(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(
        tmp_path, tiny_encoder_folder, outer__lr=1e9, outer__warmup=0, outer__steps=60, run__save_every=1
    )
    with pytest.raises(ScienceError, match="NaN or infinite") as caught:
        meta_train(config)
    text = str(caught.value)
    assert text.startswith("prototypical: ")
    assert "episode '" in text
    assert "encoder." in text or "features" in text or "the loss" in text
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert kept, "the run diverged before its first checkpoint"
    assert str(kept[-1]) in text
    tensors = load_file(kept[-1] / "tensors.safetensors")
    assert all(torch.isfinite(t).all() for n, t in tensors.items() if n.startswith("parameter."))


def test_nan_gradient_names_learner_episode_and_parameter(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    pipeline = build_pipeline(config, torch.device("cpu"))
    streams = make_streams(config, pipeline.task)
    with trainable_parameters(pipeline, "adapter") as trainable:
        name = next(n for n in trainable if "lora_B" in n)
        trainable[name].register_hook(lambda grad: grad * float("nan"))
        with pytest.raises(ScienceError) as caught:
            outer_gradient(Accelerator(), pipeline, trainable, streams.train, step=0, meta_batch=2)
    text = str(caught.value)
    assert text.startswith("prototypical: ")
    assert name in text
    assert streams.train.episode(0).episode_id in text


def test_checkpoint_write_failure_keeps_earlier_ones(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    real = disk._flush

    def failing(path: Path) -> None:
        if "step-0000006" in path.parent.name:
            raise OSError(28, "No space left on device")
        real(path)

    monkeypatch.setattr(disk, "_flush", failing)
    with pytest.raises(FewShotError, match="cannot be written: No space left"):
        meta_train(config)
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-0000002", "step-0000004"]
    reference = config_of(tmp_path / "reference", tiny_encoder_folder)
    meta_train(config)
    meta_train(reference)
    assert_same_run(tmp_path, tmp_path / "reference")


def toy_pairs(path: Path, words: list[str]) -> Path:
    """Rows whose source is the target spelt backwards."""
    texts = [f"{a} {b}" for a in words for b in words]
    rows = [{"translation": {"xx": t[::-1], "en": t}} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("learner", ["maml", "prototypical"])
def test_translation_is_meta_trained_and_validated_by_what_it_generates(
    tmp_path: Path, tiny_translator_folder: Path, learner: str
) -> None:
    config = config_of(
        tmp_path,
        tiny_translator_folder,
        task="translation",
        learner=learner,
        adapter={"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]},
        data__sources=(Source(name=str(toy_pairs(tmp_path / "train.jsonl", ["bank", "card", "cash"]))),),
        validation__sources=(Source(name=str(toy_pairs(tmp_path / "val.jsonl", ["court", "judge", "law"]))),),
        data__sampler=SamplerSettings(k_shot=2, n_query=2),
        outer__steps=2,
        validation__every=2,
        outer__warmup=0,
    )
    validations = [r for r in meta_train(config).history if "val_loss" in r]
    assert [r["step"] for r in validations] == [0, 2]
    assert all(0 <= r["chrf"] <= 100 for r in validations)
