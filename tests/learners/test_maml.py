"""MAML++'s points: its schedule, the losses along truncated runs, orders of derivatives, and learned rates."""

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import random_episode

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.maml import MAML, MAMLConfig, step_importance
from fewshot_nlp.slots import OUTSIDE, MetaContext
from fewshot_nlp.training import meta_train

RATES = {"inner_steps": 3, "inner_lr": 0.3, "head_lr": 0.2}


def learner_of(encoder, **config):
    """The learner and its adapter, which is trained, at a random place."""
    learner = MAML(encoder, MAMLConfig(**(RATES | config))).double()
    shift = encoder.adapter["shift"].requires_grad_()
    with torch.no_grad():
        shift.copy_(0.2 * torch.randn(shift.shape, generator=torch.Generator().manual_seed(5)))
    return learner, shift


def gradient(learner, shift, support, query, context=OUTSIDE):
    shift.grad = None
    loss = learner.meta_loss(support, query, context)
    loss.backward()
    return float(loss.detach()), shift.grad


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("epoch", [0, 1, 7, 9, 10, 60])
def test_importance_is_the_authors_schedule(steps, epoch):
    epochs, annealed = 100, 10
    weights = np.full(steps, 1 / steps)  # as the authors compute it, epoch by epoch
    decay, floor = 1 / steps / annealed, 0.03 / steps
    weights[:-1] = np.maximum(weights[:-1] - epoch * decay, floor)
    weights[-1] = min(weights[-1] + epoch * (steps - 1) * decay, 1 - (steps - 1) * floor)
    if epoch >= annealed:
        weights = np.eye(steps)[-1]
    got = step_importance(steps, epoch / epochs, annealed / epochs)
    np.testing.assert_allclose(got, weights, atol=1e-12)
    assert sum(got) == pytest.approx(1)


def test_off_by_default_even_at_the_beginning_of_meta_training():
    assert step_importance(4, 0.0, 0.0) == [0, 0, 0, 1]


@pytest.mark.parametrize("scope", ["adapter", "head"])
@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_multi_step_loss_is_the_sum_over_truncated_runs(normaliser, scope):
    encoder, support, query = random_episode(normaliser)
    learner, _ = learner_of(encoder, multi_step_until=0.2, scope=scope)
    early, late = MetaContext(progress=0.05), MetaContext(progress=0.2)
    expected = 0.0
    for steps, weight in zip((1, 2, 3), (0.25, 0.25, 0.5), strict=True):  # 3/4 of a third, and the rest
        short = MAML(encoder, MAMLConfig(**(RATES | {"inner_steps": steps, "scope": scope})))
        expected += weight * float(short.meta_loss(support, query).detach())
    assert float(learner.meta_loss(support, query, early).detach()) == pytest.approx(expected, rel=1e-12)
    assert float(learner.meta_loss(support, query, late).detach()) != pytest.approx(expected, rel=1e-4)
    names = support.select(support.label_slot_mask)
    alone = query.loss(learner.adapt(names).scores(query))
    assert float(learner.meta_loss(names, query, early).detach()) == pytest.approx(float(alone), rel=1e-12)


def test_orders_of_derivatives_are_annealed():
    encoder, support, query = random_episode()
    annealed, shift = learner_of(encoder, first_order_until=0.5)
    first, _ = learner_of(encoder, first_order=True)
    second, _ = learner_of(encoder)
    of = {name: gradient(m, shift, support, query)[1] for name, m in (("first", first), ("second", second))}
    assert (of["first"] - of["second"]).abs().max() > 1e-3 * of["second"].abs().max()
    for progress, name in ((0.0, "first"), (0.49, "first"), (0.5, "second"), (1.0, "second")):
        got = gradient(annealed, shift, support, query, MetaContext(progress=progress))[1]
        assert torch.equal(got, of[name]), progress


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_gradient_of_the_learned_rates_matches_finite_differences(normaliser, first_order):
    encoder, support, query = random_episode(normaliser, seed=3)
    learner, shift = learner_of(
        encoder, learned_rates=True, first_order=first_order, multi_step_until=0.5, inner_steps=2
    )
    early = MetaContext(progress=0.1)
    plain, _ = learner_of(encoder, multi_step_until=0.5, first_order=first_order, inner_steps=2)
    value, slope = gradient(learner, shift, support, query, early)
    theirs = gradient(plain, shift, support, query, early)
    assert value == pytest.approx(theirs[0], rel=1e-12)  # untrained, they are the constant rates
    torch.testing.assert_close(slope, theirs[1], rtol=1e-10, atol=1e-12)
    assert {n: tuple(c.shape) for n, c in learner.rates.change.items()} == {
        "fast/shift": (2,),
        "head/weight": (2,),
        "head/bias": (2,),
    }
    for name, change in learner.rates.change.items():
        for step in range(2):
            values = []
            for move in (1e-5, -1e-5):
                change.data[step] += move
                values.append(float(learner.meta_loss(support, query, early).detach()))
                change.data[step] -= move
            exact, numeric = float(change.grad[step]), (values[0] - values[1]) / 2e-5
            last = step == 1  # before it, first order leaves out how the later gradients change
            assert exact != 0
            assert not (last or not first_order) or exact == pytest.approx(numeric, rel=1e-4), (name, step)


def test_learned_rates_of_a_head_alone_and_of_more_steps_than_were_learned():
    encoder, support, _ = random_episode()
    learner, _ = learner_of(encoder, learned_rates=True, scope="head")
    assert set(learner.rates.change) == {"head/weight", "head/bias"}
    for change in learner.rates.change.values():
        change.data[:] = torch.tensor([-1.0, -1.0, 0.5])  # two steps that do not move
    learner.config = MAMLConfig(**(RATES | {"scope": "head", "inner_steps": 4}))
    plain = MAML(encoder, MAMLConfig(scope="head", inner_steps=2, head_lr=0.3))
    mine, theirs = (m.adapt(support).state for m in (learner, plain))
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value)


def test_the_outer_loop_says_how_far_it_is(tmp_path, tiny_encoder_folder, monkeypatch):
    seen = []
    original = MAML.meta_loss

    def watched(self, support, query, context):
        seen.append(context.progress)
        return original(self, support, query, context)

    monkeypatch.setattr(MAML, "meta_loss", watched)
    plus = {"inner_steps": 2, "multi_step_until": 0.5, "first_order_until": 0.5, "learned_rates": True}
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="maml",
        learner_config=plus,
        outer__meta_batch=1,
        outer__steps=4,
    )
    meta_train(config)
    assert seen == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"multi_step_until": 1.5}, "multi_step_until is 1.5, but must be a number from 0 to 1"),
        ({"first_order_until": -0.1}, "first_order_until is -0.1"),
        ({"scope": "all"}, "scope is 'all', but must be one of: adapter, head"),
        ({"multi_step": True}, "MAMLConfig has no setting 'multi_step'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("maml").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    plus = {
        "head": "zeros",
        "head_lr": 0.1,  # too low, which is to be learned
        "inner_steps": 3,
        "multi_step_until": 0.3,
        "first_order_until": 0.3,
        "learned_rates": True,
    }
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="maml",
        learner_config=plus,
        outer__steps=12,
        outer__lr=0.03,
        validation__every=12,
    )
    losses = [record["val_loss"] for record in meta_train(config).history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.05, losses
