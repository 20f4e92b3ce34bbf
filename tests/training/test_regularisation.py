"""Regularisers: each changes the gradient that it should, alike whenever the episode is, and nothing when it is off."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from training_runs import arguments_of, changed, config_of

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.slots import OUTSIDE
from fewshot_nlp.training import MetaTrainConfig, meta_train, parse_config
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.augmentation import Augmentation
from fewshot_nlp.training.config import SamplerSettings, Source
from fewshot_nlp.training.episodes import make_streams
from fewshot_nlp.training.optimizer import trainable_parameters
from fewshot_nlp.training.outer_step import meta_loss, outer_gradient
from fewshot_nlp.training.regularisation import (
    Bottleneck,
    MixedQuery,
    Regularisation,
    Regulariser,
    make_regulariser,
)

EVERYTHING = Regularisation(
    dropout=0.2, label_shuffle=1.0, name_dropout=0.5, information=1e-3, feature_mix=0.5
)
KNOBS: list[dict[str, Any]] = [
    {"outer__regularisation": Regularisation(dropout="own")},
    {"outer__regularisation": Regularisation(label_shuffle=1.0)},
    {"outer__regularisation": Regularisation(name_dropout=0.7)},
    {"outer__regularisation": Regularisation(information=1e-3)},
    {"outer__regularisation": Regularisation(feature_mix=1.0)},
    {"data__augmentation": Augmentation(word_dropout=0.3)},
    {"data__augmentation": Augmentation(mention_replacement=1.0)},
    {"data__augmentation": Augmentation(token_replacement=0.5)},
    {"data__augmentation": Augmentation(merge_labels=1.0)},
]


def texts_of(folder: Path, encoder: Path, **changes: Any) -> MetaTrainConfig:
    """A run on classification."""
    own = (Source(name="medical_classification"), Source(name="legal_classification"))
    sampler = SamplerSettings(n_way=3, k_shot=2, n_query=2)
    base = {
        "task": "classification",
        "data__sources": own,
        "data__sampler": sampler,
        "validation__sources": (),
    }
    return config_of(folder, encoder, **(base | changes))


def gradient(config: MetaTrainConfig, step: int = 0, meta_batch: int = 2) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of one outer step at the start."""
    pipeline = build_pipeline(config, torch.device("cpu"))
    stream = make_streams(config, pipeline.task).train
    with trainable_parameters(pipeline, config.train) as trainable:
        made = make_regulariser(
            config.outer.regularisation, config.data.augmentation, pipeline, stream.episode(0)
        )
        both = {**trainable, **made.parameters}
        loss = outer_gradient(
            Accelerator(), pipeline, both, stream, step=step, meta_batch=meta_batch, regulariser=made
        )
        return loss, {name: p.grad.clone() for name, p in both.items() if p.grad is not None}


def pipeline_of(config: MetaTrainConfig) -> Pipeline:
    return build_pipeline(config, torch.device("cpu"))


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_each_knob_changes_the_gradient_alike_in_every_call(
    knob: dict[str, Any], tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    sampler = SamplerSettings(n_way=3, k_shot=2, n_query=3, options={"query": "rows"})
    config = config_of(tmp_path, tiny_encoder_folder, data__sampler=sampler)
    plain, _ = gradient(config)
    loss, grads = gradient(changed(config, **knob))
    again, same = gradient(changed(config, **knob))
    assert loss != plain
    assert loss == again
    assert all(torch.equal(grads[name], same[name]) for name in grads)
    assert max(float(g.abs().max()) for g in grads.values()) > 0


def test_episodes_are_changed_by_their_number_not_by_their_place(
    tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    """So two processes, and a resumed one, have the gradient of one."""
    settings = Augmentation(word_dropout=0.3, token_replacement=0.3)
    config = config_of(
        tmp_path, tiny_encoder_folder, outer__regularisation=EVERYTHING, data__augmentation=settings
    )
    _, together = gradient(config, step=1, meta_batch=2)
    parts = [gradient(config, step=index, meta_batch=1)[1] for index in (2, 3)]
    for name, grad in together.items():
        assert torch.allclose(grad, (parts[0][name] + parts[1][name]) / 2, atol=1e-6), name


def test_broken_off_run_goes_on_to_the_same_result(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    settings = Augmentation(word_dropout=0.3, mention_replacement=0.5)
    config = config_of(
        tmp_path, tiny_encoder_folder, outer__regularisation=EVERYTHING, data__augmentation=settings
    )
    meta_train(config)
    whole = (tmp_path / "final" / "model.safetensors").read_bytes()
    newest = tmp_path / "checkpoints" / "step-0000006"
    noise = load_file(newest / "tensors.safetensors")["parameter.bottleneck.log_noise"].clone()
    assert noise.std() > 0, "the noise is meta-trained"
    shutil.rmtree(newest)
    meta_train(config)
    assert (tmp_path / "final" / "model.safetensors").read_bytes() == whole
    assert torch.equal(load_file(newest / "tensors.safetensors")["parameter.bottleneck.log_noise"], noise)


@pytest.mark.parametrize("learner", [n for n in LEARNERS.names() if LEARNERS.get(n).meta_learns])
def test_all_learners_take_all_of_it(learner: str, tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = texts_of(tmp_path, tiny_encoder_folder, learner=learner, outer__regularisation=EVERYTHING)
    plain, _ = gradient(changed(config, outer__regularisation=Regularisation()), meta_batch=1)
    loss, grads = gradient(config, meta_batch=1)
    assert loss != plain
    assert all(torch.isfinite(g).all() for g in grads.values())
    assert float(grads["bottleneck.log_noise"].abs().max()) > 0
    assert max(float(g.abs().max()) for n, g in grads.items() if "lora" in n) > 0


def test_dropout_is_over_after_the_loss(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = texts_of(tmp_path, tiny_encoder_folder)
    pipeline = pipeline_of(config)
    episode = make_streams(config, pipeline.task).train.episode(0)
    before = float(meta_loss(pipeline, episode).detach())
    made = Regulariser(settings=Regularisation(dropout=0.4))
    losses = {float(meta_loss(pipeline, episode, OUTSIDE, made).detach()) for _ in range(3)}
    assert len(losses) == 3, "every pass draws new masks"
    assert float(meta_loss(pipeline, episode).detach()) == before
    assert not any(module.training for module in pipeline.learner.encoder.model.modules())
    rates = {m.p for m in pipeline.learner.encoder.model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.1}


def test_layers_that_are_run_again_drop_the_same(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = texts_of(
        tmp_path, tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 2},
        outer__regularisation=Regularisation(dropout=0.3),
    )  # fmt: skip
    loss, kept = gradient(config)
    again, recomputed = gradient(changed(config, run__gradient_checkpointing=True))
    assert again == pytest.approx(loss, rel=1e-6)
    assert all(torch.allclose(kept[name], recomputed[name], atol=1e-6) for name in kept)


def test_second_order_gradient_is_exact_for_the_masks_drawn(
    tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    config = texts_of(
        tmp_path, tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 2, "inner_lr": 0.5}
    )
    pipeline = pipeline_of(config)
    encoder = pipeline.learner.encoder
    encoder.model.double()
    episode = make_streams(config, pipeline.task).train.episode(0)
    made = Regulariser(settings=Regularisation(dropout=0.3, feature_mix=1.0))

    def loss() -> Tensor:
        torch.manual_seed(5)
        return meta_loss(pipeline, episode, OUTSIDE, made)

    with torch.random.fork_rng(), trainable_parameters(pipeline, "adapter") as trainable:
        torch.manual_seed(1)
        with torch.no_grad():
            for p in trainable.values():
                p.copy_(torch.randn_like(p) * 0.2)
        way = [torch.randn_like(p) for p in trainable.values()]
        grads = torch.autograd.grad(loss(), list(trainable.values()))
        slope = sum(float((g * w).sum()) for g, w in zip(grads, way, strict=True))
        values = []
        for sign in (1e-5, -2e-5):
            with torch.no_grad():
                for p, w in zip(trainable.values(), way, strict=True):
                    p.add_(sign * w)
            values.append(float(loss().detach()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)
    assert abs(slope) > 1e-3


def test_labels_dealt_anew_matter_through_names_and_learned_heads_only(
    tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    shuffled = Regulariser(settings=Regularisation(label_shuffle=1.0))

    def losses(learner: str, **settings: Any) -> tuple[float, float]:
        config = texts_of(tmp_path, tiny_encoder_folder, learner=learner, learner_config=settings)
        pipeline = pipeline_of(config)
        episode = make_streams(config, pipeline.task).train.episode(0)
        if settings.get("head") == "meta":
            with torch.no_grad():
                for p in pipeline.learner.parameters():
                    p.copy_(torch.arange(p.numel()).view_as(p) / p.numel())
        return tuple(
            float(meta_loss(pipeline, episode, OUTSIDE, r, 3).detach()) for r in (Regulariser(), shuffled)
        )  # type: ignore[return-value]

    plain, other = losses("prototypical", label_names=0.0)
    assert other == pytest.approx(plain, rel=1e-5)
    plain, other = losses("prototypical", label_names=1.0)
    assert abs(other - plain) > 1e-4
    plain, other = losses("maml", head="meta", n_classes=3, label_names=0.0)
    assert abs(other - plain) > 1e-4


def test_names_are_left_out_where_there_are_examples(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = texts_of(tmp_path, tiny_encoder_folder)
    pipeline = pipeline_of(config)
    episode = make_streams(config, pipeline.task).train.episode(0)
    none = Regularisation(name_dropout=1.0)
    support = none.without_names(pipeline.support(episode.support, episode.label_names))
    assert not support.label_slot_mask.any()
    assert support.n_slots == len(episode.support)
    first = [e for e in episode.support if e.target != episode.label_names[0]]
    support = none.without_names(pipeline.support(first, episode.label_names))
    assert support.gold[support.label_slot_mask].tolist() == [0], "a class without examples keeps its name"
    half = Regularisation(name_dropout=0.5)
    whole = pipeline.support(episode.support, episode.label_names)
    counts = {int(half.without_names(whole).label_slot_mask.sum()) for _ in range(40)}
    assert counts == {0, 1, 2, 3}


def test_types_of_entities_lose_their_name_in_all_tags(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(tmp_path, tiny_encoder_folder, task_config={"scheme": "bio"})
    pipeline = pipeline_of(config)
    episode = make_streams(config, pipeline.task).train.episode(0)
    whole = pipeline.support(episode.support, episode.label_names)
    half = Regularisation(name_dropout=0.5)
    for _ in range(20):
        support = half.without_names(whole)
        left = [support.classes[c][2:] for c in support.gold[support.label_slot_mask].tolist()]
        seen = {c[2:] for c in {support.classes[i] for i in support.gold[~support.label_slot_mask].tolist()}}
        both = [
            n for n in episode.label_names if f"I-{n}" in {support.classes[i] for i in support.gold.tolist()}
        ]
        assert seen >= set(episode.label_names)
        assert all(left.count(name) in (0, 2) for name in both if f"I-{name}" in examples_of(support))


def examples_of(support: Any) -> set[str]:
    return {support.classes[i] for i in support.gold[~support.label_slot_mask].tolist()}


def test_information_penalty_is_the_divergence_from_the_unit_gaussian() -> None:
    bottleneck = Bottleneck(3, noise=0.5, size=2.0)
    features = torch.tensor([[2.0, 0.0, -4.0], [1.0, 1.0, 1.0]])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(features / 2, 0.5), normal(0.0, 1.0)).sum(1).mean()
    assert float(bottleneck.penalty(features).detach()) == pytest.approx(float(expected), rel=1e-6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = torch.stack([bottleneck.noisy(features) for _ in range(4000)]).detach()
    assert torch.allclose(drawn.mean(0), features, atol=0.1)
    assert torch.allclose(drawn.std(0), torch.ones(2, 3), atol=0.05)


def test_information_penalty_shrinks_what_features_tell(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    def told(weight: float) -> float:
        config = texts_of(
            tmp_path / str(weight), tiny_encoder_folder, train="all", outer__steps=12, outer__lr=3e-3,
            outer__regularisation=Regularisation(information=weight),
        )  # fmt: skip
        meta_train(config)
        tensors = load_file(
            Path(config.run.output_dir) / "checkpoints" / "step-0000012" / "tensors.safetensors"
        )
        return float(-tensors["parameter.bottleneck.log_noise"].mean())

    assert told(1.0) < told(1e-6)


def test_mixed_slots_have_mixed_features_and_targets(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = texts_of(tmp_path, tiny_encoder_folder)
    pipeline = pipeline_of(config)
    episode = make_streams(config, pipeline.task).train.episode(0)
    tokenizer = pipeline.learner.encoder.tokenizer
    query = pipeline.task.collate(episode.query, episode.label_names, tokenizer, with_targets=True)
    mixed = Regularisation(feature_mix=1.0).mixed(query)
    assert isinstance(mixed, MixedQuery)
    assert mixed.partners is not None
    assert mixed.shares is not None
    features, scores = torch.rand(query.n_slots, 4), torch.rand(query.n_slots, query.n_classes)
    share, other = mixed.shares[:, None], mixed.partners
    assert torch.allclose(mixed.mix(features), share * features + (1 - share) * features[other])
    one, two = (F.cross_entropy(scores, gold, reduction="none") for gold in (query.gold, query.gold[other]))
    expected = (mixed.shares * one + (1 - mixed.shares) * two).mean()
    assert float(mixed.loss(scores)) == pytest.approx(float(expected), rel=1e-6)
    part = mixed.select(torch.arange(query.n_slots) < 2)
    assert isinstance(part, MixedQuery)
    assert torch.equal(part.gold, query.gold[:2])
    assert torch.equal(part.mix(features[:2]), features[:2])
    assert Regularisation().mixed(query) is query
    with pytest.raises(FewShotError, match="those of a text compete"):
        Regularisation(feature_mix=1.0).mixed(replace(query, normaliser="positions"))


def test_settings_reach_a_run_from_yaml_and_command_line(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = config_of(
        tmp_path, tiny_encoder_folder, outer__regularisation=EVERYTHING,
        data__augmentation=Augmentation(word_dropout=0.2, merge_labels=0.1),
    )  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({k: v for k, v in config.to_dict().items() if v is not None}))
    assert parse_config(["--config", str(path)]) == config
    other = parse_config(
        [*arguments_of(config), "--outer.regularisation.dropout=own", "--data.augmentation.word_dropout=0.5"]
    )
    assert other.outer.regularisation == replace(EVERYTHING, dropout="own")
    assert other.data.augmentation == replace(config.data.augmentation, word_dropout=0.5)
    for bad in ("--outer.regularisation.dropuot=0.1", "--data.augmentation.dropout=0.1"):
        with pytest.raises(FewShotError, match=r"dropuot|augmentation"):
            parse_config([*arguments_of(config), bad])
    with pytest.raises(FewShotError, match=r"dropout is 0\.95, but must be a number from 0 to 0\.9"):
        parse_config([*arguments_of(config), "--outer.regularisation.dropout=0.95"])


def test_function_as_hook_is_named_in_the_saved_settings(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = texts_of(
        tmp_path, tiny_encoder_folder, outer__steps=2, outer__warmup=0,
        data__augmentation=Augmentation(paraphrase=backwards, paraphrase_rate=1.0),
    )  # fmt: skip
    plain = meta_train(
        changed(config, run__output_dir=str(tmp_path / "plain"), data__augmentation=Augmentation())
    )
    hooked = meta_train(config)
    assert hooked.history[-1]["train_loss"] != plain.history[-1]["train_loss"]
    state = json.loads((tmp_path / "checkpoints" / "step-0000002" / "state.json").read_text())
    assert state["config"]["data"]["augmentation"]["paraphrase"] == f"{__name__}:backwards"
    with pytest.raises(FewShotError, match="add --allow-code"):
        parse_config(arguments_of(config))
    for flag in ("--allow-code", "--allow_code"):  # as the command line passes it on
        assert (
            parse_config([flag, *arguments_of(config)]).data.augmentation.paraphrase
            == f"{__name__}:backwards"
        )


def backwards(texts: list[str], seed: int) -> list[str]:
    return [" ".join(reversed(text.split())) for text in texts]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"task": "question_answering", "outer__regularisation": Regularisation(label_shuffle=0.5)},
            "has no labels",
        ),
        (
            {"task": "question_answering", "outer__regularisation": Regularisation(name_dropout=0.5)},
            "has no labels",
        ),
        ({"data__augmentation": Augmentation(paraphrase=backwards, paraphrase_rate=0.5)}, "does not fit ner"),
    ],
)
def test_what_has_no_meaning_is_refused(
    changes: dict[str, Any], told: str, tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    if changes.get("task") == "question_answering":
        changes |= {
            "data__sources": (Source(name="medical_question_answering"),),
            "validation__sources": (),
            "data__sampler": SamplerSettings(k_shot=2, n_query=2),
        }
    with pytest.raises(FewShotError, match=told):
        meta_train(config_of(tmp_path, tiny_encoder_folder, **changes))


def test_encoder_without_dropout_of_its_own_is_refused(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    pipeline = pipeline_of(texts_of(tmp_path, tiny_encoder_folder))
    encoder = pipeline.learner.encoder
    for layer in encoder.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    with pytest.raises(FewShotError, match=r"own dropout is 0; give a number"):
        Regularisation(dropout="own").check_fits(pipeline.task, encoder)
    Regularisation(dropout=0.1).check_fits(pipeline.task, encoder)
