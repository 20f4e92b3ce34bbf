"""Rates by layer, unfreezing and the pull to the start point, against their formulas."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from toys import question_answering_rows
from vectors import random_episode

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.fine_tune import FineTune, FineTuneConfig
from fewshot_nlp.modules.adamw import Descent, layer_begins, layer_depths, layer_rates
from fewshot_nlp.modules.state import FAST
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.tasks import TASKS

CONSTANT = {"weight_decay": 0.0, "max_grad_norm": 1e6}


@pytest.fixture
def encoder(tiny_encoder_folder):
    return Encoder.from_pretrained(tiny_encoder_folder)


def support_of(encoder) -> SlotBatch:
    task = TASKS.get("classification")()
    rows = [{"text": "the judge gave an order", "label": "law"}, {"text": "blood and pain", "label": "drug"}]
    examples = task.examples(rows * 2)
    return task.collate(examples, task.labels(examples), encoder.tokenizer, with_targets=True)


def test_every_weight_has_the_layer_that_its_name_says(encoder):
    depths = layer_depths(encoder)
    for name, depth in depths.items():
        if "embeddings" in name:
            assert depth == 0
        for layer in (0, 1):
            if f"layer.{layer}." in name:
                assert depth == layer
    assert set(depths.values()) == {0, 1}


def test_a_decoders_layers_are_above_its_encoders(tiny_translator_folder):
    from fewshot_nlp.backbone.seq2seq import Seq2Seq

    depths = layer_depths(Seq2Seq.from_pretrained(tiny_translator_folder))
    below = [d for name, d in depths.items() if ".encoder.layers." in name]
    above = [d for name, d in depths.items() if ".decoder.layers." in name]
    assert below
    assert max(below) + 1 == min(above)


def test_rates_fall_by_the_factor_of_the_paper():
    rates = layer_rates({"a": 0, "b": 2, "c": 3}, 0.01, 1 / 2.6)
    assert rates == pytest.approx({"a": 0.01 / 2.6**3, "b": 0.01 / 2.6, "c": 0.01})


def test_first_step_is_as_long_as_the_layers_rate(encoder):
    config = FineTuneConfig(
        scope="all", steps=1, lr=1e-3, layer_decay=0.25, weight_decay=0.0, max_grad_norm=1e6, label_names=0.0
    )
    state = FineTune(encoder, config).adapt(support_of(encoder)).state
    depths, before = layer_depths(encoder), encoder.parameters()
    moved = {0: 0.0, 1: 0.0}
    for name, depth in depths.items():
        change = (state[name] - before[name.removeprefix(FAST)]).abs().max()
        moved[depth] = max(moved[depth], float(change))
    # Adam's first step is the rate for every weight, whatever its gradient; the schedule's first factor is 1 / 1.1.
    assert moved[1] == pytest.approx(1e-3 / 1.1, rel=1e-2)
    assert moved[0] == pytest.approx(1e-3 / 1.1 / 4, rel=1e-2)


def test_layers_begin_after_equal_shares_of_the_steps():
    depths = {"low": 0, "middle": 1, "top": 5, "top too": 5}
    assert layer_begins(depths, 30, head=False) == {"low": 20, "middle": 10, "top": 0, "top too": 0}
    assert layer_begins(depths, 40, head=True) == {"low": 30, "middle": 20, "top": 10, "top too": 10}
    assert set(layer_begins({"low": 0, "top": 1}, 0, head=True).values()) == {0}


def test_rates_keep_within_a_tenth_of_the_slanted_triangle():
    """Howard & Ruder 2018, equation 3, with their cut_frac 0.1 and ratio 32."""
    weights = {"head.weight": torch.ones(1).requires_grad_()}
    descent = Descent(weights, lr=1.0, head_lr=2.0, steps=1000, **CONSTANT)
    ours, paper = [], []
    for t in range(1000):
        p = t / 100 if t < 100 else 1 - (t - 100) / (100 * (1 / 0.1 - 1))
        paper.append((1 + p * (32 - 1)) / 32)
        ours.append(descent.optimizer.param_groups[0]["lr"] / 2)
        descent.optimizer.step()
        descent.schedule.step()
    assert max(abs(a - b) for a, b in zip(ours, paper, strict=True)) < 0.1
    assert max(ours) == pytest.approx(0.91, abs=0.01)
    assert ours[-1] == pytest.approx(0.001)


def test_frozen_layers_are_bit_identical_until_their_turn():
    weights = {f"fast.{n}": torch.full((3,), n + 1.0).requires_grad_() for n in range(3)}
    weights["head.weight"] = torch.ones(3).requires_grad_()
    depths = {f"fast.{n}": n for n in range(3)}
    options = {"depths": depths, "unfreeze": 0.9, "weight_decay": 0.1, "max_grad_norm": 1.0}
    descent = Descent(weights, lr=0.1, head_lr=0.1, steps=10, **options)
    before = {n: w.detach().clone() for n, w in weights.items()}
    first = {}
    for step in range(9):
        descent.step(torch.stack([(w**2).sum() for w in weights.values()]).sum())
        for name, w in weights.items():
            if not torch.equal(w, before[name]):
                first.setdefault(name, step)
    assert first == {"head.weight": 0, "fast.2": 2, "fast.1": 4, "fast.0": 6}


def test_unfreezing_leaves_lower_layers_of_an_encoder_alone(encoder):
    config = FineTuneConfig(scope="all", steps=4, unfreeze=1.0, lr=1e-3, label_names=0.0)
    tuner = FineTune(encoder, config)
    depths, before = layer_depths(encoder), encoder.parameters()

    seen = []

    def scores(state, batch):
        same = (torch.equal(state[n], before[n.removeprefix(FAST)]) for n in depths if depths[n] == 0)
        seen.append(all(same))
        return FineTune._training_scores(tuner, state, batch)

    tuner._training_scores = scores
    tuner.adapt(support_of(encoder))
    assert seen == [True, True, True, False]


def test_pull_to_the_start_has_the_quadratics_closed_form():
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    goal = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    curve = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    alpha = 3.0
    weights = {"fast.w": start.clone().requires_grad_()}
    descent = Descent(weights, lr=0.05, head_lr=0.05, steps=800, l2_sp=alpha, **CONSTANT)
    for _ in range(800):
        descent.step((curve * (weights["fast.w"] - goal) ** 2).sum() / 2)
    expected = (curve * goal + alpha * start) / (curve + alpha)
    torch.testing.assert_close(weights["fast.w"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_pull_replaces_weight_decay_of_fast_weights_only():
    weights = {
        "fast.w": torch.ones(2).requires_grad_(),
        "head.bias": torch.ones(2).requires_grad_(),
    }
    descent = Descent(weights, lr=0.1, head_lr=0.1, steps=1, l2_sp=1.0, weight_decay=0.5, max_grad_norm=1.0)
    descent.step(0.0 * weights["fast.w"].sum() + 0.0 * weights["head.bias"].sum())
    assert torch.equal(weights["fast.w"].detach(), torch.ones(2))  # at its start already
    torch.testing.assert_close(weights["head.bias"].detach(), torch.full((2,), 1 - 0.5 * 0.1 / 1.1))


def test_a_strong_pull_keeps_the_adapter_nearer():
    distances = []
    for l2_sp in (0.0, 1.0, 100.0):
        encoder, support, _ = random_episode(n_support=30)
        state = FineTune(encoder, FineTuneConfig(lr=0.01, l2_sp=l2_sp)).adapt(support).state
        distances.append(float(state["fast.shift"].norm()))
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layer_decay": 0.0}, "layer_decay is 0.0, but must be a number from 0.001 to 1"),
        ({"layer_decay": 2.6}, "layer_decay is 2.6"),
        ({"unfreeze": 1.5}, "unfreeze is 1.5, but must be a number from 0 to 1"),
        ({"l2_sp": -1.0}, "l2_sp is -1.0, but must be a number from 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("fine_tune").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_reach_is_the_share_of_the_way_that_is_gone(encoder):
    support = support_of(encoder)
    start, half, whole = (
        FineTune(encoder, FineTuneConfig(scope="all", steps=3, lr=1e-3, max_interpolation=reach))
        .adapt(support)
        .state
        for reach in (0.0, 0.5, 1.0)
    )
    assert any(not torch.equal(start[name], whole[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(half[name], (start[name] + whole[name]) / 2)


def test_a_solved_head_is_the_optimum_that_scipy_finds(encoder):
    """Sum of -log(mass of the gold positions) + |head - start|^2 / 2C, written out in numpy."""
    task = TASKS.get("question_answering")()
    batch = task.collate(
        task.examples(question_answering_rows(3, 0)), (), encoder.tokenizer, with_targets=True
    )
    learner = FineTune(encoder, FineTuneConfig(scope="head", start="meta", C=0.5))
    torch.manual_seed(0)
    torch.nn.init.normal_(learner.head.weight)
    start = learner.initial_state()
    state = learner.fit(batch)
    x = learner.features(batch).detach().double().numpy()
    x = np.column_stack([8 * x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(len(x))])
    before = np.column_stack([start["head.weight"].detach(), start["head.bias"].detach()]).astype(float)
    groups, gold = batch.groups.numpy(), batch.target_matrix.numpy() > 0

    def objective(flat):
        head = flat.reshape(before.shape)
        scores = x @ head.T
        loss = sum(
            np.logaddexp.reduce(scores[groups == g, c])
            - np.logaddexp.reduce(scores[(groups == g) & gold[:, c], c])
            for g in set(groups)
            for c in (0, 1)
        )
        return loss + ((head - before) ** 2).sum() / (2 * 0.5)

    best = minimize(objective, before.ravel(), method="L-BFGS-B", options={"maxfun": 10**6})
    found = np.column_stack([state["head.weight"], state["head.bias"]])
    assert objective(found.ravel()) <= best.fun + 1e-4
    assert np.abs(found - best.x.reshape(before.shape)).max() < 1e-2
    assert objective(found.ravel()) < objective(before.ravel()) - 0.1


def test_a_strong_penalty_keeps_the_start_and_is_of_a_head_alone(encoder):
    steps = [FineTune(encoder, FineTuneConfig(scope="all", steps=1, C=C)) for C in (1e-6, None)]
    same, without = (learner.fit(support_of(encoder)) for learner in steps)
    assert all(torch.equal(same[name], without[name]) for name in without)
    strong = FineTune(encoder, FineTuneConfig(scope="head", C=1e-6, label_names=0.0))
    support = support_of(encoder)
    start, state = strong.fit(support, meta=True), strong.fit(support)
    assert torch.allclose(start["head.weight"], state["head.weight"], atol=1e-4)
