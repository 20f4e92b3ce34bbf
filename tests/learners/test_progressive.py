"""Progressive columns: nothing earlier changes, and the lateral connections are the paper's equation 2."""

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp import FewShotClassifier
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, Adapted
from fewshot_nlp.learners.progressive import Progressive, ProgressiveConfig, columns_of
from fewshot_nlp.training import meta_train

QUICK = {"steps": 8, "lr": 0.02, "lateral_size": 4}


def chain(normaliser="classes", n_tasks=3, **config):
    """A learner grown over tasks with other classes each; support, state and query of every task."""
    encoder, first, query = random_episode(normaliser)
    learner = Progressive(encoder, ProgressiveConfig(**{**QUICK, **config}))
    tasks = []
    for number in range(n_tasks):
        shuffle = torch.randperm(3, generator=torch.Generator().manual_seed(number))
        support = first if number == 0 else _permuted(first, shuffle)
        if number:
            learner.grow(tasks[-1][1])
        tasks.append((support, learner.adapt(support).state, query))
    return learner, tasks


def _permuted(batch, order):
    from dataclasses import replace

    targets = batch.targets
    return replace(batch, targets=order[targets] if targets.dim() == 1 else targets[:, order])


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_earlier_columns_and_their_predictions_stay_bit_identical(normaliser):
    learner, tasks = chain(normaliser)
    last = tasks[-1][1]
    for number, (_, state, query) in enumerate(tasks):
        for key, value in state.items():
            assert torch.equal(last[key], value), key
        before = Adapted(learner, state).scores(query)
        chooser = Progressive(learner.encoder, ProgressiveConfig(**QUICK, task_id=number))
        assert torch.equal(Adapted(chooser, last).scores(query), before)
    assert len(columns_of(last)) == 3
    scores = [Adapted(learner, state).scores(tasks[0][2]) for _, state, _ in tasks]
    assert not torch.equal(scores[0], scores[1])


def test_scores_are_equation_two_written_out():
    learner, tasks = chain(n_tasks=3)
    state, query = tasks[-1][1], tasks[-1][2]
    state["column.2.lateral.scale"] = torch.tensor([0.5, 2.0]).double()
    value = {key: tensor.numpy() for key, tensor in state.items()}
    x = learner.encoder.table[[w[0] for w in query.windows]].numpy()

    def feature(number):
        z = x + x @ value[f"column.{number}.fast.shift"]
        return 8.0 * z / np.linalg.norm(z, axis=1, keepdims=True)

    lateral = np.concatenate([0.5 * feature(0), 2.0 * feature(1)], axis=1)
    hidden = np.maximum(lateral @ value["column.2.lateral.in"].T, 0)
    expected = feature(2) @ value["column.2.head.weight"].T + value["column.2.head.bias"]
    expected = expected + hidden @ value["column.2.lateral.out"].T
    assert np.abs(hidden @ value["column.2.lateral.out"].T).max() > 1e-3
    np.testing.assert_allclose(learner.query_scores(state, query).numpy(), expected, rtol=1e-9)


def test_a_new_column_starts_as_it_would_alone():
    encoder, support, query = random_episode()
    config = ProgressiveConfig(steps=1, lr=1e-9, head_lr=1e-9, weight_decay=0.0)
    alone = Progressive(encoder, config)
    state = alone.adapt(support).state
    grown = Progressive(encoder, config)
    grown.grow(state)
    torch.testing.assert_close(
        grown.adapt(support).scores(query), alone.adapt(support).scores(query), rtol=1e-6, atol=1e-6
    )


def test_the_first_lateral_layer_keeps_the_size_of_features():
    learner, _ = chain(n_tasks=1, lateral_size=400)
    into = learner._lateral_start(2, 3)["lateral.in"]
    fan_in = 2 * learner.encoder.dimension
    assert into.shape == (400, fan_in)
    assert float(into.var()) == pytest.approx(1 / fan_in, rel=0.15)


def test_lateral_connections_carry_what_the_new_column_cannot_see():
    """The new column's features cannot tell the classes apart (its adapter hardly moves); the earlier column's can."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=60)
    table = np.stack([np.ones(60), 0.01 * signs, np.zeros(60)], axis=1) + 0.002 * rng.normal(size=(60, 3))
    encoder = Vectors(torch.from_numpy(table))
    y = (signs > 0).astype(int).tolist()
    support, query = slots(range(30), y[:30], 2), slots(range(30, 60), y[30:], 2)
    shift = torch.zeros(3, 3).double()
    shift[1, 1] = 100.0  # the earlier task's adapter has learned what counts
    head = {"column.0.head.weight": torch.zeros(2, 3).double(), "column.0.head.bias": torch.zeros(2).double()}
    losses = {}
    for size in (0, 16):
        config = ProgressiveConfig(steps=60, lr=1e-6, head_lr=0.05, lateral_size=size)
        learner = Progressive(encoder, config)
        learner.grow({"column.0.fast.shift": shift, **head})
        losses[size] = float(query.loss(learner.adapt(support).scores(query)))
    assert losses[16] < losses[0] / 2, losses


def test_a_missing_column_is_named():
    learner, tasks = chain()
    state = tasks[-1][1]
    for gone in (0, 1):
        broken = {key: v for key, v in state.items() if not key.startswith(f"column.{gone}.")}
        with pytest.raises(
            FewShotError, match=f"Column {gone} of a progressive chain of 3 is missing"
        ) as caught:
            Adapted(learner, broken)
        assert "\n" not in str(caught.value)
    part = {key: v for key, v in state.items() if key != "column.1.head.bias"}
    with pytest.raises(FewShotError, match=r"Column 1 of a progressive chain of 3 lacks head\.bias"):
        learner.grow(part)


def test_a_column_that_is_not_there_cannot_predict():
    learner, tasks = chain(n_tasks=2)
    chooser = Progressive(learner.encoder, ProgressiveConfig(task_id=2))
    with pytest.raises(FewShotError, match="task_id is 2, but the chain has 2 columns: take 0 to 1"):
        Adapted(chooser, tasks[-1][1]).scores(tasks[0][2])


def test_grows_saves_and_loads_through_the_facade(tmp_path, tiny_encoder_folder):
    first = [{"text": "judge and court", "label": "law"}, {"text": "blood and pain", "label": "drug"}]
    second = [{"text": "bank card", "label": "money"}, {"text": "please send", "label": "mail"}]
    model = FewShotClassifier.from_pretrained(
        tiny_encoder_folder, learner="progressive", learner_config={"steps": 3, "lr": 0.01}
    )
    model.adapt(first).save_pretrained(tmp_path / "one")
    texts = ["the court", "my card", "in pain"]
    before = model.predict(texts)
    model.grow().adapt(second).save_pretrained(tmp_path / "two")
    two = FewShotClassifier.from_pretrained(tmp_path / "two")
    assert two.predict(texts) == model.predict(texts)
    assert two.labels == ["mail", "money"]
    one = FewShotClassifier.from_pretrained(tmp_path / "one")
    assert one.predict(texts) == before
    third = two.grow().adapt(first)  # a loaded chain grows on
    state = third._model.adapted.state
    assert len(columns_of(state)) == 3
    for key, value in one._model.adapted.state.items():
        assert torch.equal(state[key], value)


def test_other_learners_do_not_grow(tiny_encoder_folder):
    model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")
    rows = [{"text": "judge", "label": "law"}, {"text": "blood", "label": "drug"}]
    with pytest.raises(FewShotError, match="prototypical learns each task alone and cannot grow"):
        model.adapt(rows).grow()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"steps": 0}, "steps is 0, but must be a whole number from 1"),
        ({"task_id": -1}, "task_id is -1"),
        ({"lateral_size": -4}, "lateral_size is -4, but must be a whole number from 0"),
        ({"columns": 3}, "ProgressiveConfig has no setting 'columns'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("progressive").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="progressive",
        learner_config={"steps": 2},
        outer__steps=12,
        validation__every=12,
    )
    history = meta_train(config).history
    losses = [record["val_loss"] for record in history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.01, losses
