"""Meta-training: what a configuration may hold, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_program
from training_runs import SCRIPT, config_of

from fewshot_nlp import FewShotError
from fewshot_nlp.learners.prototypical import Prototypical
from fewshot_nlp.slots import MetaContext
from fewshot_nlp.training import MetaTrainConfig, meta_train, parse_config
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.config import OuterLoop, SamplerSettings, Source
from fewshot_nlp.training.episodes import make_streams
from fewshot_nlp.training.optimizer import learning_rate, make_optimizer, set_rate
from fewshot_nlp.training.outer_step import meta_loss


def test_unknown_keys_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: ner\nlearner: maml\nrun: {output_dir: out}\ndata: {sources: [{name: wnut17}]}\nouter: {stepz: 9}\n"
    )
    done = run_program(str(SCRIPT), ["--config", path], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "outer has no setting 'stepz'. Did you mean 'steps'?" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--data.sampler.kshot=3", "data.sampler has no setting 'kshot'. Did you mean 'k_shot'"),
        ("--outer.lr=-1", "outer.lr is -1, but must be a number above 0"),
        ("--outer.meta_batch=0", "outer.meta_batch is 0.*at least 1"),
        ("--outer.schedule=step", "outer.schedule is 'step', but must be one of: linear, constant, cosine"),
        ("--outer.warmup=500", "outer: warmup is 500, but there are only 200 steps"),
        (
            '--data.augmentation={"paraphrase": "antigravity:fly", "paraphrase_rate": 0.5}',
            "'antigravity:fly', whose module would be imported and run; .* add --allow-code",
        ),
        ("--learner_config.inner_steps=2.5", "learner_config.inner_steps is 2.5, but must be a whole number"),
        (
            "--learner_config.inner_step=2",
            "learner_config has no setting 'inner_step'. Did you mean 'inner_steps'",
        ),
        ("--learner=mamel", "learner: There is no learner 'mamel'. Did you mean 'maml'"),
        ("--task_config.scheme=iob", "task_config.scheme is 'iob', but must be one of: io, bio"),
        ("--task_config.transitions=abstrakt", "task_config.transitions is 'abstrakt', but must be one of"),
        (
            "--data.sampler.options.query=all",
            "data.sampler.options.query is 'all', but must be one of: mentions",
        ),
        ("--run.seed=x", "run.seed is 'x', but must be a whole number of at least 0"),
        ("--data.sources=[]", "data.sources is \\[\\], but must be a list that is not empty"),
        (
            "--validation.sources=[{name: wnut17, split: test}]",
            "'wnut17' is a source and one of validation.sources",
        ),
        ("--data.targets=[wnut17]", "'wnut17' is a source and a target"),
        ("--validation={class_fraction: 0.2, sources: [{name: re3d}]}", "validation: .* not both"),
    ],
)
def test_configuration_is_checked(given: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: ner\nlearner: maml\nrun: {output_dir: out}\ndata: {sources: [{name: wnut17}]}\n")
    with pytest.raises(FewShotError, match=told) as caught:
        parse_config(["--config", str(path), given])
    assert "\n" not in str(caught.value)


def test_sources_are_guarded(
    tmp_path: Path, tiny_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def config(**changes: Any) -> MetaTrainConfig:
        return config_of(tmp_path, tiny_encoder_folder, **changes)

    with pytest.raises(
        FewShotError, match="'liu54' is a target, but the source 'hwu64' comes from the same corpus"
    ):
        config(data__sources=(Source(name="hwu64"),), data__targets=("liu54",))
    with pytest.raises(FewShotError, match=r"'finer_ord'.*non-commercial.*may not be trained"):
        meta_train(config(data__sources=(Source(name="finer_ord"),), data__ship=True))
    rows = [
        {"tokens": ["Ann", "in", "Rome", str(i)], "ner_tags": ["B-PER", "O", "B-LOC", "O"]} for i in range(12)
    ]
    clash = {"tokens": rows[0]["tokens"], "ner_tags": ["O"] * 4}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, clash]))
    other = tmp_path / "other.jsonl"
    more = [
        {"tokens": ["Bob", "in", "Oslo", str(i)], "ner_tags": ["B-PER", "O", "B-LOC", "O"]} for i in range(12)
    ]
    other.write_text("".join(json.dumps(r) + "\n" for r in [*more, *rows[:2]]))
    made = config(data__sources=(Source(name=str(other)),), validation__sources=(Source(name=str(path)),))
    streams = make_streams(made, build_pipeline(made, torch.device("cpu")).task)
    assert streams.val is not None
    held = {" ".join(e.inputs["tokens"]) for i in range(20) for e in streams.val.episode(i).query}
    seen = {" ".join(e.inputs["tokens"]) for i in range(40) for e in streams.train.episode(i).support}
    assert held & {"Ann in Rome 0", "Ann in Rome 1"}
    assert not held & seen
    assert "1 of 13 rows contradict" in caplog.text
    assert "2 of 14 rows are left out, because they are among" in caplog.text
    with pytest.raises(FewShotError, match="is for the task classification"):
        make_streams(
            config(data__sources=(Source(name="medical_classification"),)),
            build_pipeline(made, torch.device("cpu")).task,
        )
    with pytest.raises(FewShotError, match="neither a file nor the name"):
        meta_train(config(data__sources=(Source(name="wnut71"),)))


def test_a_setting_of_another_kind_of_model_is_refused(tmp_path: Path, tiny_translator_folder: Path) -> None:
    sampler = SamplerSettings(n_way=None)
    config = config_of(tmp_path, tiny_translator_folder, task="translation", data__sampler=sampler)
    config = replace(config, encoder=replace(config.encoder, layers=(0,)))
    with pytest.raises(FewShotError, match=r"encoder\.layers is set, but translation takes a model without"):
        build_pipeline(config, torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": None}, "the encoder has none"),
        ({"learner": "maml", "train": "learner"}, "no parameters of its own"),
        (
            {"adapter": {"peft_type": "LORA", "rnak_pattern": {}}},
            "no setting 'rnak_pattern'. Did you mean 'rank_pattern'",
        ),
        ({"adapter": {"r": 2}}, "peft_type is None, but must be one of: .*LORA"),
        ({"data__sampler": SamplerSettings(n_way=2, options={"qery": "rows"})}, "no option 'qery'"),
        ({"top_layers": 9}, "top_layers is 9"),
    ],
)
def test_nothing_to_train_is_told(
    changes: dict[str, Any], told: str, tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    with pytest.raises(FewShotError, match=told):
        meta_train(config_of(tmp_path, tiny_encoder_folder, **changes))


def test_learner_without_meta_gradient_is_told(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    with monkeypatch.context() as patch:
        patch.setattr(Prototypical, "meta_loss", lambda *_: torch.zeros(()))
        with pytest.raises(FewShotError, match="prototypical does not depend on anything that is trained"):
            meta_train(config)
    monkeypatch.setattr(Prototypical, "meta_learns", False)
    with pytest.raises(FewShotError, match="prototypical cannot be differentiated through"):
        meta_train(config)


def test_label_smoothing_reaches_the_query_only(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path, tiny_encoder_folder)
    pipeline = build_pipeline(config, torch.device("cpu"))
    episode = make_streams(config, pipeline.task).train.episode(0)
    encoder = pipeline.learner.encoder
    batch = pipeline.task.collate(episode.query, episode.label_names, encoder.tokenizer, with_targets=True)
    scores = torch.linspace(-1, 1, batch.n_slots * batch.n_classes).view(batch.n_slots, batch.n_classes)
    smoothed = MetaContext(label_smoothing=0.3)
    smooth = replace(batch, meta=smoothed)
    assert torch.equal(smooth.loss(scores), batch.loss(scores, 0.3))
    assert not torch.equal(smooth.loss(scores), batch.loss(scores))
    assert float(meta_loss(pipeline, episode, smoothed).detach()) != float(
        meta_loss(pipeline, episode).detach()
    )


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharded_parameters_are_refused(
    kind: str, tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")  # as accelerate launch says it
    with pytest.raises(FewShotError, match=f"^{kind} shards parameters, .* MULTI_GPU"):
        meta_train(config_of(tmp_path / "run", tiny_encoder_folder))
    assert not (tmp_path / "run").exists()


def test_momentum_of_sgd_is_a_setting() -> None:
    plain = OuterLoop(optimizer="sgd", momentum=0.0, weight_decay=0.0)
    start = torch.tensor([[1.0, 2.0]])
    for momentum, expected in ((0.0, start - 0.3), (0.5, start - 0.35)):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = make_optimizer(replace(plain, momentum=momentum), {"weight": parameter})
        for gradient in (1.0, 2.0):
            parameter.grad = torch.full_like(parameter, gradient)
            set_rate(optimizer, 0.1)
            optimizer.step()
        assert torch.allclose(parameter, expected)
    with pytest.raises(FewShotError, match="momentum is 1"):
        replace(plain, momentum=1.0)


def test_learning_rate_schedules() -> None:
    outer = OuterLoop(lr=1.0, warmup=2, steps=6)
    assert [learning_rate(outer, s) for s in range(6)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    cosine = [learning_rate(replace(outer, schedule="cosine"), s) for s in range(2, 7)]
    assert cosine == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466, 0.0])
    assert learning_rate(replace(outer, schedule="constant"), 5) == 1.0
