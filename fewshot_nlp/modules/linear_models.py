"""Linear classifiers for few rows in many dimensions; fast enough for cross-validation.

All take float arrays: ``x`` [n, d], ``y`` [n] class numbers, and return coefficients [n_classes, d + 1] whose last
column is the intercept.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize

Array = np.ndarray

DECOMPOSED = 1500
"""Largest size of a Gram matrix whose eigenvectors are computed."""


def unit_rows(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows divided by their norms."""
    result: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return result


def log_softmax(scores: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """Row-wise log-softmax."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def apply(head: Float[Array, "c d1"], x: Float[Array, "n d"]) -> Float[Array, "n c"]:
    """Scores of a linear head, whose last column is the intercept (d1 = d + 1)."""
    result: Array = x @ head[:, :-1].T + head[:, -1]
    return result


class PreconditionedRegression:
    """Multinomial logistic regression with an L2 penalty, in coordinates where it converges in a few steps.

    Rows are written in the eigenvectors of their Gram matrix, each scaled by the inverse square root of an
    approximate Hessian, eigenvalue x (C - 1) / C^2 + penalty. This changes the speed, not the optimum. The same
    coordinates serve every subset of the rows, so all folds of a cross-validation share them. Beyond
    ``DECOMPOSED`` rows and dimensions the eigenvectors would cost more than they save, and rows are not transformed.

    Args:
        x: all rows that any fit will use.
        n_classes: number of classes.
        C: inverse strength of the penalty on the coefficients (not on the intercept), as in scikit-learn.
        dtype: of the arithmetic; float32 is faster, float64 converges further.
    """

    def __init__(
        self, x: Float[Array, "n d"], n_classes: int, C: float, dtype: type[np.floating] = np.float32
    ) -> None:
        n, d = x.shape
        x = x.astype(dtype)
        basis = None
        if min(n, d) > DECOMPOSED:
            values = np.full(d, float((x**2).sum() / d))
        elif n < d:
            values, vectors = np.linalg.eigh(x @ x.T)
            keep = values > 10 * np.finfo(dtype).eps * max(values[-1], 1e-12)
            values = values[keep]
            basis = x.T @ (vectors[:, keep] / np.sqrt(values))
        else:
            values, basis = np.linalg.eigh(x.T @ x)
            values = np.maximum(values, 0.0)
        hessian = values * (n_classes - 1) / n_classes**2 + 1 / C
        self.n_classes = n_classes
        scale = 1 / np.sqrt(hessian)
        self.basis = (scale if basis is None else basis * scale).astype(dtype)
        self.penalty = (1 / (C * hessian)).astype(dtype)[:, None]
        self.rows = (x * self.basis if basis is None else x @ self.basis).astype(dtype)
        self.dtype = dtype
        self.intercept_scale = dtype(1 / np.sqrt(n * (n_classes - 1) / n_classes**2 + 1e-6))

    def fit(
        self,
        rows: Int[Array, " m"],
        y: Int[Array, " m"],
        weight: Float[Array, " m"],
        n_classes: int | None = None,
        tolerance: float = 1e-4,
    ) -> Float[Array, "c d1"]:
        """Coefficients fitted on some of the rows.

        Args:
            rows: their indices.
            y: their classes.
            weight: their weights in the loss.
            n_classes: number of classes; None takes that of the constructor.
            tolerance: relative change of the loss at which to stop.
        """
        z, n = self.rows[rows], len(rows)
        n_classes = n_classes or self.n_classes
        truth = np.zeros((n, n_classes), self.dtype)
        truth[np.arange(n), y] = 1
        weights = weight.astype(self.dtype)[:, None]
        shape = (z.shape[1] + 1, n_classes)

        def loss_and_gradient(flat: Array) -> tuple[float, Array]:
            w = flat.reshape(shape).astype(self.dtype)
            log_p = log_softmax(z @ w[:-1] + self.intercept_scale * w[-1])
            residual = weights * (np.exp(log_p) - truth)
            loss = -float((weights[:, 0] * log_p[np.arange(n), y]).sum())
            loss += 0.5 * float((self.penalty * w[:-1] ** 2).sum())
            gradient = np.concatenate(
                [z.T @ residual + self.penalty * w[:-1], self.intercept_scale * residual.sum(axis=0)[None]]
            )
            return loss, gradient.ravel().astype(np.float64)

        found = minimize(
            loss_and_gradient,
            np.zeros(shape[0] * shape[1]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "maxcor": 20, "ftol": tolerance, "gtol": 10 * tolerance},
        )
        w = found.x.reshape(shape).astype(self.dtype)
        back = self.basis[:, None] * w[:-1] if self.basis.ndim == 1 else self.basis @ w[:-1]
        return np.concatenate([back.T, self.intercept_scale * w[-1][:, None]], axis=1).astype(np.float32)


def shrunk_lda(
    x: Float[Array, "n d"],
    y: Int[Array, " n"],
    n_classes: int,
    shrinkage: float,
    names: Float[Array, "m d"] | None = None,
    name_classes: Int[Array, " m"] | None = None,
) -> Float[Array, "c d1"]:
    """Linear discriminant analysis with equal priors and a covariance shrunk towards a multiple of the identity.

    Friedman 1989, Regularized Discriminant Analysis: S = (1 - a) S_within + a (tr S_within / d) I.

    Args:
        x: rows.
        y: their classes.
        n_classes: number of classes; one without rows and names gets the mean of the others.
        shrinkage: a, in (0, 1].
        names: further rows, which enter the class means but not the covariance.
        name_classes: their classes.
    """
    d = x.shape[1]
    count = np.bincount(y, minlength=n_classes).astype(np.float32)
    total = np.zeros((n_classes, d), np.float32)
    np.add.at(total, y, x)
    means = total / np.maximum(count, 1)[:, None]
    seen = count > 0
    centre = means[seen].mean(axis=0)
    residual = x - means[y]
    if names is not None and name_classes is not None:
        np.add.at(total, name_classes, names)
        count = count + np.bincount(name_classes, minlength=n_classes)
    means = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centre)
    freedom = max(len(x) - int(seen.sum()), 1)
    ridge = np.float32(shrinkage * max(float((residual**2).sum()) / freedom / d, 1e-8))
    shift = (means - centre).astype(np.float32)
    share = np.float32((1 - shrinkage) / freedom)
    if len(x) < d:  # Woodbury: solve in the space of the rows
        a = residual * np.sqrt(share)
        inner = np.linalg.solve(a @ a.T + ridge * np.eye(len(x), dtype=np.float32), a)
        weight = (shift - (shift @ a.T) @ inner) / ridge
    else:
        weight = np.linalg.solve(
            residual.T @ residual * share + ridge * np.eye(d, dtype=np.float32), shift.T
        ).T
    bias = -(0.5 * (shift * weight).sum(axis=1) + weight @ centre)
    return np.concatenate([weight, bias[:, None]], axis=1).astype(np.float32)


def stack_weights(
    scores: Float[Array, "k n c"], y: Int[Array, " n"], prior: Float[Array, " k"], strength: float
) -> Float[Array, " k"]:
    """Positive weights a that minimise the log-loss of softmax(sum_k a_k scores_k) plus a penalty towards a prior.

    The penalty is ``strength`` x sum_k log(a_k / prior_k)^2. Wolpert 1992, Stacked Generalization.
    """
    scores = scores.astype(np.float64)
    index = np.arange(len(y))
    start = np.log(prior)

    def loss_and_gradient(log_a: Array) -> tuple[float, Array]:
        a = np.exp(log_a)
        log_p = log_softmax(np.tensordot(a, scores, 1))
        p = np.exp(log_p)
        gradient = np.array([(p * s).sum() - s[index, y].sum() for s in scores]) * a
        loss = -log_p[index, y].sum() + strength * ((log_a - start) ** 2).sum()
        return loss, gradient + 2 * strength * (log_a - start)

    bounds = [(s - 4, s + 4) for s in start]
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
    result: Array = np.exp(found.x)
    return result


def stratified_folds(y: Int[Array, " n"], k: int) -> Int[Array, " n"]:
    """Fold of each row: rows of a class are dealt to the folds in turn; -1 (never held out) for a class's only row."""
    fold = np.full(len(y), -1)
    for c in np.unique(y):
        rows = np.flatnonzero(y == c)
        if len(rows) > 1:
            fold[rows] = (np.arange(len(rows)) + rows[0]) % k
    return fold
