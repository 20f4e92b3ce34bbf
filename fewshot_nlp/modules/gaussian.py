"""Gaussian posteriors in closed form: Bayesian linear regression and Gaussian processes.

Rasmussen & Williams 2006, Gaussian Processes for Machine Learning: equations 2.11 and 2.12 (weights), 2.25 and 2.26
(functions), 2.30 (marginal likelihood), 5.12 (leave-one-out). All outputs share their inputs, so they share one
variance. Everything is in float64, since Gram matrices of similar features are nearly singular.

A row of weight w has noise of variance ``noise / w``; callers multiply its input and output by the root of w.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Posterior = dict[str, Tensor]


def linear_posterior(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n c"], noise: Tensor, prior: Tensor
) -> Posterior:
    """Posterior of weights with prior N(0, prior I), solved in the smaller of n and d dimensions.

    Returns:
        ``weight`` [c, d], the mean, and the covariance C as ``factor`` [k, d] and ``ceiling``: with fewer rows than
        dimensions C = ceiling I - factor' factor (Woodbury), else ceiling is 0 and C = factor' factor.
    """
    x, y, noise, prior = x.double(), y.double(), noise.double(), prior.double()
    n, d = x.shape
    if n < d:
        root = torch.linalg.cholesky(prior * x @ x.T + noise * _eye(n, x))
        factor = prior * torch.linalg.solve_triangular(root, x, upper=False)
        weight = torch.linalg.solve_triangular(root, y, upper=False).T @ factor
        return {"weight": weight, "factor": factor, "ceiling": prior}
    root = torch.linalg.cholesky(x.T @ x / noise + _eye(d, x) / prior)
    factor = torch.linalg.solve_triangular(root, _eye(d, x), upper=False)
    return {"weight": (factor @ (x.T @ y) / noise).T @ factor, "factor": factor, "ceiling": 0 * prior}


def linear_moments(
    posterior: Posterior, x: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "m c"], Float[Tensor, " m"]]:
    """Mean and variance of the outputs, noise left out."""
    shrunk = posterior["ceiling"] * x.square().sum(dim=1) - (x @ posterior["factor"].T).square().sum(dim=1)
    return x @ posterior["weight"].T, shrunk.abs()  # of one sign, by whether the ceiling is 0


def linear_covariance(posterior: Posterior, x: Float[Tensor, "*groups m d"]) -> Float[Tensor, "*groups m m"]:
    """Covariance of the outputs at some inputs, noise left out."""
    shrunk = x @ posterior["factor"].T
    shrunk = posterior["ceiling"] * x @ x.mT - shrunk @ shrunk.mT
    return shrunk if posterior["ceiling"] > 0 else -shrunk


def rbf(
    a: Float[Tensor, "... n d"], b: Float[Tensor, "... m d"], prior: Tensor, length: Tensor
) -> Float[Tensor, "... n m"]:
    """prior exp(-|a - b|^2 / (2 length^2))."""
    squares = a.square().sum(dim=-1)[..., None] + b.square().sum(dim=-1)[..., None, :] - 2 * a @ b.mT
    return prior * torch.exp(-squares.clamp_min(0) / (2 * length.square()))


def rbf_posterior(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n c"],
    root_weight: Float[Tensor, " n"],
    noise: Tensor,
    prior: Tensor,
    length: Tensor,
) -> Posterior:
    """Posterior of a Gaussian process; ``x`` and ``y`` are not multiplied by the roots of their weights.

    Returns:
        ``rows`` [n, d], ``factor`` [n, n] and ``weight`` [c, n] for `rbf_moments`, with ``ceiling`` the prior
        variance.
    """
    x, y, w = x.double(), y.double(), root_weight.double()[:, None]
    root = torch.linalg.cholesky(_weighted_rbf(x, w, noise, prior, length))
    factor = torch.linalg.solve_triangular(root, torch.diag(w[:, 0]), upper=False)
    weight = torch.linalg.solve_triangular(root, w * y, upper=False).T @ factor
    return {
        "rows": x,
        "weight": weight,
        "factor": factor,
        "ceiling": prior.double(),
        "length": length.double(),
    }


def rbf_moments(
    posterior: Posterior, x: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "m c"], Float[Tensor, " m"]]:
    """Mean and variance of the outputs, noise left out."""
    kernel = rbf(x, posterior["rows"], posterior["ceiling"], posterior["length"])
    variance = posterior["ceiling"] - (kernel @ posterior["factor"].T).square().sum(dim=1)
    return kernel @ posterior["weight"].T, variance.clamp_min(0)


def rbf_covariance(posterior: Posterior, x: Float[Tensor, "*groups m d"]) -> Float[Tensor, "*groups m m"]:
    """Covariance of the outputs at some inputs, noise left out."""
    prior, length = posterior["ceiling"], posterior["length"]
    shrunk = rbf(x, posterior["rows"], prior, length) @ posterior["factor"].T
    return rbf(x, x, prior, length) - shrunk @ shrunk.mT


def left_out(
    mean: Float[Tensor, "*groups m c"],
    covariance: Float[Tensor, "*groups m m"],
    y: Float[Tensor, "*groups m c"],
    noise: Tensor,
) -> tuple[Float[Tensor, "*groups m c"], Float[Tensor, "*groups m"]]:
    """Mean and variance at a group of rows of weight 1 under the posterior of all others (equation 5.12).

    Args:
        mean: of the outputs at the group's rows, under the posterior of all rows.
        covariance: of the same outputs, without noise.
        y: the observed outputs.
        noise: variance of their noise.
    """
    share = covariance / noise
    solved = torch.linalg.solve(
        _eye(share.shape[-1], share) - share, torch.cat([mean - share @ y, covariance], dim=-1)
    )
    n_outputs = y.shape[-1]
    return solved[..., :n_outputs], solved[..., n_outputs:].diagonal(dim1=-2, dim2=-1).clamp_min(0)


def log_marginal_linear(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n c"], noise: Tensor, prior: Tensor
) -> Float[Tensor, " c"]:
    """Log density of each output's column under N(0, prior x x' + noise I); solved in d dimensions if d < n."""
    x, y, noise, prior = x.double(), y.double(), noise.double(), prior.double()
    n, d = x.shape
    if n < d:
        return log_density(prior * x @ x.T + noise * _eye(n, x), y)
    root = torch.linalg.cholesky(x.T @ x / noise + _eye(d, x) / prior)
    inner = torch.linalg.solve_triangular(root, x.T @ y / noise, upper=False)
    squares = y.square().sum(dim=0) / noise - inner.square().sum(dim=0)
    determinant = 2 * root.diagonal().log().sum() + d * prior.log() + n * noise.log()
    result: Tensor = -(squares + determinant + n * math.log(2 * math.pi)) / 2
    return result


def log_marginal_rbf(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n c"],
    root_weight: Float[Tensor, " n"],
    noise: Tensor,
    prior: Tensor,
    length: Tensor,
) -> Float[Tensor, " c"]:
    """Log density of each output's column, multiplied by the roots of its weights; arguments as for `rbf_posterior`."""
    w = root_weight.double()[:, None]
    return log_density(_weighted_rbf(x.double(), w, noise, prior, length), w * y.double())


def log_density(covariance: Float[Tensor, "n n"], y: Float[Tensor, "n c"]) -> Float[Tensor, " c"]:
    """Log density of each column under N(0, covariance)."""
    root = torch.linalg.cholesky(covariance)
    inner = torch.linalg.solve_triangular(root, y, upper=False)
    squares = inner.square().sum(dim=0)
    result: Tensor = -(squares + len(y) * math.log(2 * math.pi)) / 2 - root.diagonal().log().sum()
    return result


def _weighted_rbf(
    x: Float[Tensor, "n d"], w: Float[Tensor, "n 1"], noise: Tensor, prior: Tensor, length: Tensor
) -> Float[Tensor, "n n"]:
    return w * rbf(x, x, prior.double(), length.double()) * w.T + noise.double() * _eye(len(x), x)


def _eye(n: int, like: Tensor) -> Float[Tensor, "n n"]:
    return torch.eye(n, dtype=like.dtype, device=like.device)
