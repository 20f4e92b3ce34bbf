"""The ridge head against scikit-learn and finite differences."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as ScikitRidge
from training_runs import config_of
from vectors import random_episode

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.ridge import Ridge, RidgeConfig, ridge_head
from fewshot_nlp.modules.state import balanced_weights
from fewshot_nlp.training import meta_train

SHAPES = [(9, 30), (30, 9), (12, 12)]


def problem(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.nn.functional.one_hot(torch.arange(n) % 3, 3).double()
    return x, y, torch.rand(n, generator=generator, dtype=torch.float64) + 0.2


@pytest.mark.parametrize("penalty", [0.01, 3.0])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_head_is_scikit_learns_ridge(n, d, penalty):
    x, y, weight = problem(n, d)
    coefficients, intercept = ridge_head(x, y, weight, torch.tensor(penalty))
    theirs = ScikitRidge(alpha=penalty, tol=1e-12).fit(x.numpy(), y.numpy(), sample_weight=weight.numpy())
    np.testing.assert_allclose(coefficients.numpy(), theirs.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(intercept.numpy(), theirs.intercept_, rtol=1e-7, atol=1e-9)


def test_the_smaller_system_is_solved(monkeypatch):
    sizes = []
    solve = torch.linalg.solve
    monkeypatch.setattr(torch.linalg, "solve", lambda a, b: sizes.append(len(a)) or solve(a, b))
    for n, d in SHAPES:
        ridge_head(*problem(n, d), torch.tensor(1.0))
    assert sizes == [9, 9, 12]


@pytest.mark.parametrize(("n", "d"), [(5, 7), (7, 5)])
def test_gradient_through_the_solution_matches_finite_differences(n, d):
    x, y, weight = problem(n, d)
    inputs = (x, y, weight, torch.tensor(0.7, dtype=torch.float64))
    assert torch.autograd.gradcheck(ridge_head, tuple(t.requires_grad_() for t in inputs))


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_scores_are_the_calibrated_regression_with_label_names_by_weight(normaliser):
    encoder, support, query = random_episode(normaliser)
    config = RidgeConfig(penalty=0.5, scale=3.0, balance=0.0, label_names=0.25)
    learner = Ridge(encoder, config).double()
    learner.bias.data.fill_(0.4)
    rows = torch.nn.functional.normalize(encoder.table, dim=1).numpy()
    x, q = rows[:12], rows[12:]
    weight = np.r_[np.ones(9), np.full(3, 0.25)]
    theirs = ScikitRidge(alpha=0.5, tol=1e-12).fit(x, support.target_matrix.numpy(), sample_weight=weight)
    got = learner.adapt(support).scores(query)
    np.testing.assert_allclose(got.numpy(), 3.0 * theirs.predict(q) + 0.4, rtol=1e-5, atol=1e-6)


def test_start_bias_puts_a_half_at_a_half():
    encoder, _, _ = random_episode("independent")
    learner = Ridge(encoder, RidgeConfig(scale=7.0))
    assert float((learner.log_scale.exp() * 0.5 + learner.bias).detach()) == pytest.approx(0, abs=1e-5)


def test_balance_gives_classes_the_same_weight_and_keeps_the_total():
    mass = torch.tensor([100.0, 4.0, 0.0, 1.0])
    assert torch.equal(balanced_weights(mass, 0.0)[mass > 0], torch.ones(3))
    even = balanced_weights(mass, 1.0) * mass
    torch.testing.assert_close(even, torch.tensor([35.0, 35.0, 0.0, 35.0]))
    half = balanced_weights(mass, 0.5) * mass
    torch.testing.assert_close(half, torch.tensor([10.0, 2.0, 0.0, 1.0]) * 105 / 13)


def test_a_class_without_a_slot_is_never_chosen_and_names_alone_suffice():
    encoder, support, _ = random_episode()
    learner = Ridge(encoder)
    names = support.select(support.label_slot_mask)
    assert learner.adapt(names).scores(names).argmax(1).tolist() == [0, 1, 2]
    two = names.select(names.gold < 2)
    assert float(learner.adapt(two).scores(names)[:, 2].max()) < -9000


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_meta_gradient_of_penalty_scale_and_features(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = Ridge(encoder).double()
    shift = encoder.adapter["shift"].requires_grad_()
    learner.meta_loss(support, query).backward()
    names = {"log_penalty": learner.log_penalty, "log_scale": learner.log_scale, "shift": shift}
    for name, parameter in names.items():
        direction = torch.ones_like(parameter)
        values = []
        for step in (1e-6, -1e-6):
            parameter.data += step * direction
            values.append(float(learner.meta_loss(support, query).detach()))
            parameter.data -= step * direction
        exact = float((parameter.grad * direction).sum())
        assert exact != 0
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"penalty": 0.0}, "penalty is 0.0, but must be a number from 0.0001"),
        ({"scale": -1}, "scale is -1"),
        ({"balance": 1.5}, "balance is 1.5, but must be a number from 0 to 1"),
        ({"alpha": 1.0}, "RidgeConfig has no setting 'alpha'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("ridge").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    config = config_of(tmp_path, tiny_encoder_folder, learner="ridge", outer__steps=12, validation__every=12)
    losses = [r["val_loss"] for r in meta_train(config).history if "val_loss" in r]
    assert losses[-1] < losses[0] - 0.02, losses
