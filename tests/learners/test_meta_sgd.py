"""Meta-SGD against MAML and finite differences."""

import pytest
import torch
from training_runs import config_of
from vectors import random_episode

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.maml import MAML, MAMLConfig
from fewshot_nlp.learners.meta_sgd import MetaSGD, MetaSGDConfig
from fewshot_nlp.training import meta_train

RATES = {"inner_steps": 3, "inner_lr": 0.3, "head_lr": 0.7}


def pair(encoder, **config):
    """Meta-SGD and MAML with the same settings; the encoder's adapter is trained."""
    learners = (
        MetaSGD(encoder, MetaSGDConfig(**RATES, **config)),
        MAML(encoder, MAMLConfig(**RATES, **config)),
    )
    encoder.adapter["shift"].requires_grad_()
    return learners[0].double(), learners[1]


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_constant_rates_are_maml(normaliser, first_order):
    encoder, support, query = random_episode(normaliser)
    ours, maml = pair(encoder, first_order=first_order)
    theirs, mine = maml.adapt(support).state, ours.adapt(support).state
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    gradients = []
    for learner in (ours, maml):
        encoder.adapter["shift"].grad = None
        loss = learner.meta_loss(support, query)
        loss.backward()
        gradients.append((float(loss.detach()), encoder.adapter["shift"].grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-12)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_gradient_of_the_rates_matches_finite_differences(normaliser):
    encoder, support, query = random_episode(normaliser, seed=3)
    ours, _ = pair(encoder)
    generator = torch.Generator().manual_seed(1)
    for name, change in ours.rates.change.items():
        shift = torch.randn(change.shape, generator=generator, dtype=change.dtype)
        ours.zero_grad()
        ours.meta_loss(support, query).backward()
        exact = float((change.grad * shift).sum())
        values = []
        for step in (1e-6, -1e-6):
            change.data += step * shift
            values.append(float(ours.meta_loss(support, query).detach()))
            change.data -= step * shift
        assert exact != 0
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5), name


def test_each_weight_moves_at_its_own_rate_and_direction():
    encoder, support, _ = random_episode()
    ours, maml = pair(encoder)
    ours.config = MetaSGDConfig(**{**RATES, "inner_steps": 1})
    maml.config = MAMLConfig(**{**RATES, "inner_steps": 1})
    change = ours.rates.change["fast/shift"]
    change.data[0] = -1.0  # these do not move
    change.data[1] = -2.0  # these move up the gradient
    mine, theirs = (learner.adapt(support).state["fast.shift"] for learner in (ours, maml))
    assert torch.equal(mine[0], torch.zeros(6, dtype=mine.dtype))
    torch.testing.assert_close(mine[1], -theirs[1])
    assert torch.equal(mine[2:], theirs[2:])
    assert theirs[:2].abs().min() > 0


def test_label_names_and_classes_without_examples_count():
    encoder, support, _ = random_episode()
    ours, _ = pair(encoder)
    names = support.select(support.label_slot_mask)
    scores = ours.adapt(names).scores(names)
    assert scores.argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"inner_steps": 0}, "inner_steps is 0, but must be a whole number from 1"),
        ({"inner_lr": -0.1}, "inner_lr is -0.1"),
        ({"head_lr": 1e9}, "head_lr is 1000000000.0, but must be a number from 1e-08 to 100"),
        ({"inner_lr": float("nan")}, "inner_lr is nan"),
        ({"alpha": 1.0}, "MetaSGDConfig has no setting 'alpha'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("meta_sgd").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    coarse = {"inner_lr": 0.3, "head_lr": 2.0}  # so that there is something to learn in twelve steps
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="meta_sgd",
        learner_config=coarse,
        outer__steps=12,
        validation__every=12,
    )
    history = meta_train(config).history
    losses = [record["val_loss"] for record in history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.05, losses
