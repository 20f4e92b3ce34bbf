"""Amortised inference against the prototype head, a quadrature, and finite differences."""

import math

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.amortized import Amortized, AmortizedConfig
from fewshot_nlp.modules.heads import linear_scores, prototype_head
from fewshot_nlp.modules.start import scaled_normalize
from fewshot_nlp.training import meta_train

NORMALISERS = ["classes", "independent", "positions"]


def learner_of(encoder, trained=True, **config):
    """A learner in float64, its network's last layer at random values if ``trained``."""
    learner = Amortized(
        encoder, AmortizedConfig(**{"hidden": 7, "n_samples": 4, "label_names": 1.0, **config})
    ).double()
    if trained:
        generator = torch.Generator().manual_seed(5)
        for parameter in learner.network[2].parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 7 / 5
    return learner


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_without_variance_it_is_the_prototype_head(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = learner_of(encoder, trained=False)
    learner.log_variance.data.fill_(-math.inf)
    weight, bias = prototype_head(scaled_normalize(encoder.features(support), 4.0), support, 1.0)
    head = {"head.weight": weight, "head.bias": bias}
    expected = query.log_probabilities(linear_scores(head, scaled_normalize(encoder.features(query), 4.0)))
    got = query.log_probabilities(learner.adapt(support).scores(query))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_the_network_writes_from_mean_features_class_by_class(normaliser):
    encoder, support, _ = random_episode(normaliser)
    learner = learner_of(encoder, label_names=0.5, deviation=0.3)
    state = learner.adapt(support).state
    rows = scaled_normalize(encoder.features(support), 4.0)
    weight = torch.where(support.label_slot_mask, 0.5, 1.0).double()
    for c in range(3):
        target = support.target_matrix[:, c].double()
        mean, variance = 0.0, 0.0
        for kind, sign in ((target, 1), (1 - target, -1))[: 1 if normaliser == "classes" else 2]:
            centre = (kind * weight) @ rows / (kind @ weight)
            written = learner.network(centre).detach() / 7
            start = torch.cat([centre, -centre.square().sum()[None] / 2])
            mean = mean + sign * (start + written[:7])
            variance = variance + 0.3**2 * written[7:].exp()
        torch.testing.assert_close(state["mean"][c], mean)
        torch.testing.assert_close(state["deviation"][c], variance.sqrt(), rtol=1e-6, atol=1e-8)


def expected_probability(mean, deviation, link):
    """Expectation of link(mean + deviation z) by Gauss-Hermite quadrature."""
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    return float((weight * link(mean + deviation * z)).sum() / weight.sum())


@pytest.mark.parametrize("normaliser", ["classes", "independent"])
def test_the_average_converges_to_quadrature_in_one_dimension(normaliser):
    encoder = Vectors(torch.tensor([[1.0], [-1.0], [0.3]], dtype=torch.float64))
    learner = learner_of(encoder, trained=False, n_samples=40000, deviation=0.5, scale=1.0)
    targets = [0, 1] if normaliser == "classes" else [[1.0, 0.0], [0.0, 1.0]]
    gold = [0] if normaliser == "classes" else [[1.0, 0.0]]
    scores = learner.adapt(slots([0, 1], targets, 2, normaliser)).scores(slots([2], gold, 2, normaliser))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    # classes: heads (w 1, b -1/2) and (w -1, b -1/2), each weight of variance 1/4, at x = 1: the difference of scores
    # has mean 2 and variance 4 x 1/4; independent: the difference of both heads is class 0's own score, the same
    expected = expected_probability(2.0, 1.0, sigmoid)
    got = (scores.softmax(1) if normaliser == "classes" else scores.sigmoid())[0, 0]
    assert float(got) == pytest.approx(expected, abs=0.004)  # four standard errors
    assert abs(expected - sigmoid(2.0)) > 0.03  # the mean weights alone would say something else


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_meta_gradient_matches_finite_differences(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = learner_of(encoder, deviation=0.3)
    parameters = {**dict(learner.named_parameters()), "shift": encoder.adapter["shift"].requires_grad_()}

    def loss():
        torch.manual_seed(3)
        return learner.meta_loss(support, query)

    loss().backward()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in parameters.items():
        shift = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        values = []
        for step in (1e-6, -1e-6):
            parameter.data += step * shift
            values.append(float(loss().detach()))
            parameter.data -= step * shift
        exact = float((parameter.grad * shift).sum())
        assert exact != 0
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8), name


def test_names_and_places_of_classes_and_neighbours_do_not_matter():
    encoder, support, query = random_episode()
    learner = learner_of(encoder, deviation=0.5)
    order = torch.tensor([2, 0, 1])  # class c becomes order[c]
    renamed = slots(
        [int(w[0]) for w in support.windows], order[support.targets], 3, label_slots=support.hints.label_slots
    )
    one, two = learner.adapt(support).scores(query), learner.adapt(renamed).scores(query)
    torch.testing.assert_close(two[:, order], one, rtol=1e-12, atol=1e-12)
    alone = learner.adapt(support).scores(query.select(torch.arange(8) == 3))
    torch.testing.assert_close(alone[0], one[3], rtol=1e-12, atol=1e-12)


def test_training_draws_anew_and_predicting_does_not():
    encoder, support, query = random_episode()
    learner = learner_of(encoder, deviation=0.5)
    losses = [float(learner.meta_loss(support, query).detach()) for _ in range(2)]
    assert losses[0] != losses[1]
    assert torch.equal(learner.adapt(support).scores(query), learner.adapt(support).scores(query))
    other = learner_of(encoder, deviation=0.5, seed=1)
    other.load_state_dict(learner.state_dict())
    assert not torch.equal(other.adapt(support).scores(query), learner.adapt(support).scores(query))


def test_a_class_that_is_not_shown_scores_very_low():
    encoder, support, query = random_episode()
    learner = learner_of(encoder, deviation=0.5)
    shown = support.select(support.targets != 1)
    assert (learner.adapt(shown).scores(query)[:, 1] < -50).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_samples": 0}, "n_samples is 0, but must be a whole number from 1"),
        ({"deviation": -0.1}, "deviation is -0.1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"kl": 1.0}, "AmortizedConfig has no setting 'kl'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("amortized").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    config = config_of(
        tmp_path, tiny_encoder_folder, learner="amortized", outer__steps=24, validation__every=24
    )
    losses = [record["val_loss"] for record in meta_train(config).history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.02, losses
