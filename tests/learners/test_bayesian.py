"""Posteriors against scikit-learn and numpy; the learner against its formulas written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import BayesianRidge
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.bayesian import Bayesian, BayesianConfig
from fewshot_nlp.modules import gaussian
from fewshot_nlp.training import meta_train

NOISE, PRIOR, LENGTH = torch.tensor(0.3).double(), torch.tensor(0.7).double(), torch.tensor(1.3).double()


def data(n, d, c=2, m=5, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=shape)) for shape in ((n, d), (n, c), (m, d))]


def conditioned(x, y, at, weight, kernel):
    """Gaussian conditioning, written out: mean and variance at the last rows, with noise over weight."""
    x, y, at = x.numpy(), y.numpy(), at.numpy()
    everything = np.concatenate([x, at])
    joint = np.array([[kernel(a, b) for b in everything] for a in everything])
    joint[: len(x), : len(x)] += np.diag(float(NOISE) / weight)
    gain = joint[len(x) :, : len(x)] @ np.linalg.inv(joint[: len(x), : len(x)])
    return gain @ y, np.diag(joint[len(x) :, len(x) :] - gain @ joint[: len(x), len(x) :])


def log_normal(covariance, y):
    _, determinant = np.linalg.slogdet(covariance)
    squares = np.einsum("ic,ij,jc->c", y, np.linalg.inv(covariance), y)
    return -(squares + determinant + len(y) * np.log(2 * np.pi)) / 2


@pytest.mark.parametrize(("n", "d"), [(4, 9), (12, 5), (6, 6)], ids=["Woodbury", "weights", "square"])
def test_linear_posterior_is_gaussian_conditioning(n, d):
    x, y, at = data(n, d)
    weight = np.linspace(0.5, 3, n)
    root = torch.from_numpy(weight).sqrt()[:, None]
    mean, variance = gaussian.linear_moments(gaussian.linear_posterior(root * x, root * y, NOISE, PRIOR), at)
    expected = conditioned(x, y, at, weight, lambda a, b: float(PRIOR) * a @ b)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (8, 11)])
def test_linear_posterior_is_bayesian_ridge(n, d):
    x, y, at = data(n, d, c=1)
    flat = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    ridge = BayesianRidge(max_iter=2, fit_intercept=False, **flat).fit(x, y[:, 0])
    noise, prior = torch.tensor(1 / ridge.alpha_).double(), torch.tensor(1 / ridge.lambda_).double()
    posterior = gaussian.linear_posterior(x, y, noise, prior)
    mean, variance = gaussian.linear_moments(posterior, at)
    expected, deviation = ridge.predict(at.numpy(), return_std=True)
    np.testing.assert_allclose(posterior["weight"][0], ridge.coef_, rtol=1e-6)
    np.testing.assert_allclose(mean[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose((variance + noise).sqrt(), deviation, rtol=1e-6)


def test_rbf_posterior_is_gaussian_process_regressor():
    x, y, at = data(9, 3)
    weight = np.linspace(0.5, 3, 9)
    kernel = ConstantKernel(float(PRIOR)) * RBF(float(LENGTH))
    process = GaussianProcessRegressor(kernel, alpha=float(NOISE) / weight, optimizer=None).fit(x, y)
    posterior = gaussian.rbf_posterior(x, y, torch.from_numpy(weight).sqrt(), NOISE, PRIOR, LENGTH)
    mean, variance = gaussian.rbf_moments(posterior, at)
    expected, deviation = process.predict(at.numpy(), return_std=True)
    np.testing.assert_allclose(mean, expected, rtol=1e-8)
    np.testing.assert_allclose(variance.sqrt(), deviation[:, 0], rtol=1e-8)
    root = torch.from_numpy(weight).sqrt()
    total = gaussian.log_marginal_rbf(x, y, root, NOISE, PRIOR, LENGTH).sum() + 2 * root.log().sum()
    np.testing.assert_allclose(total, process.log_marginal_likelihood_value_, rtol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(4, 9), (12, 5)])
def test_log_marginal_likelihood_is_the_density(n, d):
    x, y, _ = data(n, d)
    covariance = float(PRIOR) * (x @ x.T).numpy() + float(NOISE) * np.eye(n)
    got = gaussian.log_marginal_linear(x, y, NOISE, PRIOR)
    np.testing.assert_allclose(got, log_normal(covariance, y.numpy()), rtol=1e-10)


def learner_of(encoder, **config):
    return Bayesian(encoder, BayesianConfig(**config)).double()


def space(learner, rows, weight):
    """Features as the learner's docstring says, in numpy."""
    centre = (weight[:, None] * rows).sum(0) / weight.sum() if learner.config.center else 0 * rows[0]
    spread = np.sqrt((weight * ((rows - centre) ** 2).sum(1)).sum() / weight.sum())

    def transform(x):
        x = x - centre
        cosine = learner.config.kernel == "cosine"
        return x / np.linalg.norm(x, axis=1, keepdims=True) if cosine else x / spread

    return transform


def kernel_of(config):
    if config.kernel == "rbf":
        return lambda a, b: config.prior * np.exp(-((a - b) ** 2).sum() / 2 / config.length**2)
    return lambda a, b: config.prior * a @ b


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
@pytest.mark.parametrize("kernel", ["cosine", "linear", "rbf"])
@pytest.mark.parametrize("center", [True, False])
def test_scores_are_the_documented_formula(normaliser, kernel, center):
    encoder, support, query = random_episode(normaliser)
    settings = {"noise": float(NOISE), "prior": float(PRIOR), "length": float(LENGTH), "sharpness": 4.0}
    learner = learner_of(encoder, kernel=kernel, center=center, label_names=0.5, calibrate=False, **settings)
    rows, at = encoder.features(support).numpy(), encoder.features(query).numpy()
    targets = support.target_matrix.double().numpy()
    weight = np.where(support.label_slot_mask.numpy(), 0.5, 1.0)
    share = weight @ targets / weight.sum()
    transform = space(learner, rows, weight)
    y = torch.from_numpy((2 * targets - 1) - (2 * share - 1))
    x, z = torch.from_numpy(transform(rows)), torch.from_numpy(transform(at))
    mean, variance = conditioned(x, y, z, weight, kernel_of(learner.config))
    base = np.log(share) if normaliser == "classes" else np.log(share / (1 - share))
    expected = 4.0 * mean / np.sqrt(1 + np.pi * 16.0 * variance[:, None] / 8) + base
    np.testing.assert_allclose(learner.adapt(support).scores(query), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
@pytest.mark.parametrize("kernel", ["cosine", "linear", "rbf"])
def test_the_factor_is_the_best_for_texts_scored_by_the_others(normaliser, kernel):
    """Brute force: the posterior is conditioned anew on all rows but a text's, for each text."""
    encoder, support, query = random_episode(normaliser, seed=2, noise=2.0)
    support = replace(support, groups=torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7]))
    settings = {"noise": float(NOISE), "prior": float(PRIOR), "length": float(LENGTH), "sharpness": 20.0}
    learner = learner_of(encoder, kernel=kernel, label_names=0.5, **settings)
    rows, targets = encoder.features(support).numpy(), support.target_matrix.double().numpy()
    weight = np.where(support.label_slot_mask.numpy(), 0.5, 1.0)
    share = weight @ targets / weight.sum()
    x = torch.from_numpy(space(learner, rows, weight)(rows))
    y = torch.from_numpy(2 * (targets - share))
    mean, variance = np.zeros((9, 3)), np.zeros(9)
    for text in range(5):
        out = (support.groups == text).numpy()
        mean[out[:9]], variance[out[:9]] = conditioned(
            x[~out], y[~out], x[out], weight[~out], kernel_of(learner.config)
        )
    moved = torch.from_numpy(20.0 * mean / np.sqrt(1 + np.pi * 400.0 * variance[:, None] / 8))
    base = torch.from_numpy(np.log(share) if normaliser == "classes" else np.log(share / (1 - share)))
    examples = support.select(~support.label_slot_mask)
    factors = np.exp(np.linspace(-4, 4, 81))
    losses = [5 * float(examples.loss(f * moved + base)) + 0.5 * np.log(f) ** 2 for f in factors]
    best = factors[int(np.argmin(losses))]
    adapted = learner.adapt(support)
    assert float(adapted.state["calibration"]) == pytest.approx(best, rel=1e-6)
    plain = learner_of(encoder, kernel=kernel, label_names=0.5, calibrate=False, **settings).adapt(support)
    torch.testing.assert_close(
        adapted.scores(query) - base, best * (plain.scores(query) - base), rtol=1e-5, atol=1e-5
    )


def test_little_noise_does_not_spoil_the_factor():
    """With it a row decides its own score, and what is left of it without itself is a difference of near equals."""
    encoder, support, _ = random_episode(noise=2.0)
    exact = learner_of(encoder, noise=1e-5).adapt(support).state["calibration"]
    single = Bayesian(Vectors(encoder.table.float()), BayesianConfig(noise=1e-5)).adapt(support)
    assert float(single.state["calibration"]) == pytest.approx(float(exact))


def test_texts_that_show_a_class_alone_are_not_judged():
    encoder = Vectors(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double())
    learner = learner_of(encoder, sharpness=50.0)
    assert float(learner.adapt(slots([0, 1, 2], [0, 1, 2], 3)).state["calibration"]) == 1
    assert float(learner.adapt(slots([0], [0], 3)).state["calibration"]) == 1
    twice = learner.adapt(slots([0, 1, 2, 3, 4], [0, 0, 1, 1, 2], 3)).state["calibration"]
    assert float(twice) < 1, "the vectors are random, so no confidence is due"


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_objectives_are_the_papers_written_out(kernel):
    encoder, support, query = random_episode()
    settings = {"noise": float(NOISE), "prior": float(PRIOR), "length": float(LENGTH), "kernel": kernel}
    rows, at = encoder.features(support).numpy(), encoder.features(query).numpy()
    targets, asked = support.target_matrix.double().numpy(), query.target_matrix.double().numpy()
    learner = learner_of(encoder, objective="predictive", **settings)
    transform = space(learner, rows, np.ones(len(rows)))
    share = targets.mean(0)
    x, z, y = (torch.from_numpy(v) for v in (transform(rows), transform(at), 2 * (targets - share)))
    mean, variance = conditioned(x, y, z, np.ones(len(rows)), kernel_of(learner.config))
    variance = variance[:, None] + float(NOISE)
    expected = ((2 * (asked - share) - mean) ** 2 / variance + np.log(2 * np.pi * variance)).mean() / 2
    assert float(learner.meta_loss(support, query).detach()) == pytest.approx(expected, rel=1e-6)
    learner = learner_of(encoder, objective="marginal", **settings)
    both, gold = np.concatenate([rows, at]), np.concatenate([targets, asked])
    x = space(learner, both, np.ones(len(both)))(both)
    kernel_matrix = np.array([[kernel_of(learner.config)(a, b) for b in x] for a in x])
    density = log_normal(kernel_matrix + float(NOISE) * np.eye(len(x)), 2 * (gold - gold.mean(0)))
    expected = -density.mean() / len(x)
    assert float(learner.meta_loss(support, query).detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("objective", ["scores", "predictive", "marginal"])
@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_meta_gradient_matches_finite_differences(kernel, objective):
    encoder, support, query = random_episode()
    learner = learner_of(encoder, kernel=kernel, objective=objective, label_names=0.5)
    parameters = {**dict(learner.log.items()), "shift": encoder.adapter["shift"].requires_grad_()}
    generator = torch.Generator().manual_seed(1)
    learner.meta_loss(support, query).backward()
    for name, parameter in parameters.items():
        if name == "sharpness" and objective != "scores":
            assert parameter.grad is None
            continue
        shift = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        values = []
        for step in (1e-5, -1e-5):
            parameter.data += step * shift
            values.append(float(learner.meta_loss(support, query).detach()))
            parameter.data -= step * shift
        assert float((parameter.grad * shift).sum()) == pytest.approx(
            (values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9
        )


def test_far_queries_get_the_shares_and_more_examples_more_certainty():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    table[39] = 1e3
    encoder = Vectors(table)
    learner = learner_of(encoder, kernel="rbf")
    targets = [0, 0, 1] * 4
    few, many = slots(range(6), targets[:6], 3), slots(range(12), targets, 3)
    far = learner.adapt(few).scores(slots([39], [0], 3)).softmax(1)[0]
    torch.testing.assert_close(far, torch.tensor([2 / 3, 1 / 3, 0.0]).double())
    query = encoder.features(slots(range(12, 39), [0] * 27, 3))
    with torch.no_grad():
        variances = [learner.predictive(learner.fit(support), query)[1] for support in (few, many)]
    assert (variances[1] < variances[0]).all()


def test_too_many_slots_for_the_kernel_are_refused(monkeypatch):
    encoder, support, _ = random_episode()
    monkeypatch.setattr("fewshot_nlp.learners.bayesian.MOST_ROWS", 5)
    learner_of(encoder).adapt(support)
    with pytest.raises(FewShotError, match="has 12 slots, but kernel 'rbf' takes 5 at most; set kernel to"):
        learner_of(encoder, kernel="rbf").adapt(support)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kernel": "matern"}, "kernel is 'matern', but must be one of: cosine, linear, rbf"),
        ({"noise": 0}, "noise is 0, but must be a number from 1e-06"),
        ({"prior": -1.0}, "prior is -1.0"),
        ({"sharpness": float("nan")}, "sharpness is nan"),
        ({"length": 1e9}, "length is 1000000000.0"),
        ({"objective": "elbo"}, "objective is 'elbo', but must be one of: scores, predictive, marginal"),
        ({"inner_lr": 0.1}, "BayesianConfig has no setting 'inner_lr'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("bayesian").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("objective", ["scores", "predictive", "marginal"])
def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder, objective):
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="bayesian",
        learner_config={"objective": objective, "calibrate": False},
        outer__steps=12,
        validation__every=12,
    )
    losses = [record["val_loss"] for record in meta_train(config).history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.005, losses
