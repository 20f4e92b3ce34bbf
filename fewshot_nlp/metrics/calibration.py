"""Calibration: whether confidences are the shares of what is right, and whether they put mistakes last.

All take decisions: a confidence in [0, 1] and whether the decision was right. What was not decided (an entity that was
missed) is none of them.
"""

import numpy as np
from jaxtyping import Bool, Float

from fewshot_nlp.errors import FewShotError

N_BINS = 15
"""Of the expected calibration error, as in Guo et al. 2017."""


def expected_calibration_error(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], n_bins: int = N_BINS
) -> float:
    """Mean over decisions of |accuracy - mean confidence| of their bin (Guo et al. 2017, equation 3).

    Bins are of equal width and hold their upper end; 0 is in the first.
    """
    confidence, right = _checked(confidence, right)
    edges = np.linspace(0, 1, n_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def risk_coverage_curve(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Share of mistakes among the k surest decisions, for k = 1, ..., n.

    El-Yaniv & Wiener 2010. Decisions of one confidence come in a random order: their mistakes count as their mean.
    """
    confidence, right = _checked(confidence, right)
    _, place = np.unique(-confidence, return_inverse=True)
    mistakes = np.bincount(place, 1.0 - right) / np.bincount(place)
    return np.cumsum(mistakes[np.sort(place)]) / np.arange(1, len(confidence) + 1)


def decision_calibration(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " m"]
) -> dict[str, float]:
    """``ece_15_bins``, ``aurc`` and ``brier_of_decisions``.

    ``aurc`` is the mean of the risk over all coverages (Geifman & El-Yaniv 2017); ``brier_of_decisions`` is the mean
    squared difference of confidence and right (1) or wrong (0), in [0, 1].
    """
    sure, correct = _checked(confidence, right)
    return {
        f"ece_{N_BINS}_bins": expected_calibration_error(confidence, right),
        "aurc": float(risk_coverage_curve(confidence, right).mean()),
        "brier_of_decisions": float(np.square(sure - correct).mean()),
    }


def _checked(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    if len(confidence) != len(right) or not len(right):
        raise FewShotError(
            f"There are {len(confidence)} confidences for {len(right)} decisions; give one for each, at least one."
        )
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise FewShotError("Confidences must be probabilities, from 0 to 1.")
    return np.minimum(confidence, 1.0), right
