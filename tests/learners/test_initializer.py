"""The written head against numpy, its limits, and finite differences."""

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.initializer import Initializer, InitializerConfig
from fewshot_nlp.learners.maml import MAML, MAMLConfig
from fewshot_nlp.training import meta_train

RATES = {"inner_steps": 3, "inner_lr": 0.3, "head_lr": 0.7}
NORMALISERS = ["classes", "independent", "positions"]


def learner_of(encoder, trained=True, **config):
    """A learner in float64, its network's last layer at random values if ``trained``."""
    learner = Initializer(encoder, InitializerConfig(**{**RATES, "hidden": 7, **config})).double()
    encoder.adapter["shift"].requires_grad_()
    if trained:
        generator = torch.Generator().manual_seed(5)
        for parameter in learner.network[2].parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3
    return learner


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_without_steps_it_is_the_written_head(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = learner_of(encoder, inner_steps=0, label_names=0.5, scale=2.0)
    first, _, last = (m for m in learner.network)
    rows, at = (
        2 * v / np.linalg.norm(v, axis=1, keepdims=True)
        for v in (encoder.features(b).detach().numpy() for b in (support, query))
    )
    written = np.tanh(rows @ first.weight.detach().numpy().T + first.bias.detach().numpy())
    written = written @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    targets = support.target_matrix.double().numpy()
    weight = np.where(support.label_slot_mask.numpy(), 0.5, 1.0)[:, None]

    def head(kind):
        kind = kind * weight / (kind * weight).sum(0)
        c = kind.T @ rows
        return np.concatenate([c, -(c**2).sum(1, keepdims=True) / 2], axis=1) + kind.T @ written

    expected = head(targets) if normaliser == "classes" else head(targets) - head(1 - targets)
    state = learner.adapt(support).state
    np.testing.assert_allclose(state["head.weight"], expected[:, :-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state["head.bias"], expected[:, -1], rtol=1e-10, atol=1e-12)
    assert torch.equal(state["fast.shift"], encoder.adapter["shift"])
    scores = learner.adapt(support).scores(query)
    np.testing.assert_allclose(scores, at @ expected[:, :-1].T + expected[:, -1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_untrained_it_is_proto_maml(normaliser, first_order):
    encoder, support, query = random_episode(normaliser)
    ours = learner_of(encoder, trained=False, first_order=first_order)
    maml = MAML(encoder, MAMLConfig(**RATES, first_order=first_order))
    mine, theirs = ours.adapt(support).state, maml.adapt(support).state
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-12, atol=1e-12)
    gradients = []
    for learner in (ours, maml):
        encoder.adapter["shift"].grad = None
        learner.meta_loss(support, query).backward()
        gradients.append(encoder.adapter["shift"].grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_meta_gradient_matches_finite_differences(normaliser):
    encoder, support, query = random_episode(normaliser, seed=3)
    learner = learner_of(encoder)
    parameters = {**dict(learner.named_parameters()), "shift": encoder.adapter["shift"]}
    learner.meta_loss(support, query).backward()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in parameters.items():
        shift = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        values = []
        for step in (1e-6, -1e-6):
            parameter.data += step * shift
            values.append(float(learner.meta_loss(support, query).detach()))
            parameter.data -= step * shift
        exact = float((parameter.grad * shift).sum())
        assert exact != 0
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-9), name


def test_first_order_leaves_second_derivatives_out():
    encoder, support, query = random_episode()
    gradients = []
    for first_order in (True, False):
        learner = learner_of(encoder, first_order=first_order)
        learner.meta_loss(support, query).backward()
        gradients.append(learner.network[2].weight.grad)
    assert gradients[0].abs().max() > 1e-4
    assert not torch.allclose(*gradients, rtol=1e-3)


def test_renaming_the_classes_renames_the_head():
    encoder, support, query = random_episode()
    learner = learner_of(encoder)
    order = torch.tensor([2, 0, 1])  # class c becomes order[c]
    renamed = slots(
        [int(w[0]) for w in support.windows], order[support.targets], 3, label_slots=support.hints.label_slots
    )
    one, two = learner.adapt(support), learner.adapt(renamed)
    torch.testing.assert_close(two.scores(query)[:, order], one.scores(query), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        two.state["head.weight"][order], one.state["head.weight"], rtol=1e-13, atol=1e-13
    )


def test_any_number_of_classes_and_one_that_is_not_shown():
    table = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    learner = learner_of(Vectors(table))
    for n_classes in (2, 5):
        support = slots(range(10), [i % n_classes for i in range(10)], n_classes + 1)
        scores = learner.adapt(support).scores(slots([10, 11], [0, 0], n_classes + 1))
        assert scores.shape == (2, n_classes + 1)
        assert (scores[:, -1] < scores[:, :-1].min(dim=1).values - 50).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"inner_steps": -1}, "inner_steps is -1, but must be a whole number from 0"),
        ({"inner_lr": -0.1}, "inner_lr is -0.1"),
        ({"head_lr": 1e9}, "head_lr is 1000000000.0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"head": "meta"}, "InitializerConfig has no setting 'head'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("initializer").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    coarse = {"inner_lr": 0.3, "head_lr": 2.0}  # so that there is something to learn in twelve steps
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="initializer",
        learner_config=coarse,
        outer__steps=12,
        validation__every=12,
    )
    losses = [record["val_loss"] for record in meta_train(config).history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.02, losses
