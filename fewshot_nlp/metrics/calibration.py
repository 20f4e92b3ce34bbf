"""Calibration: whether confidences are the shares of what is right, and whether they put mistakes last.

All take decisions: a confidence in [0, 1] and whether the decision was right. What was not decided (an entity that was
missed) is none of them.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from seqeval.scheme import IOB2, Entities

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
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Coverage k / n, and the share of mistakes among the k surest decisions, for k = 1, ..., n.

    El-Yaniv & Wiener 2010. Decisions of one confidence come in a random order: their mistakes count as their mean.
    """
    confidence, right = _checked(confidence, right)
    _, place = np.unique(-confidence, return_inverse=True)
    mistakes = np.bincount(place, 1.0 - right) / np.bincount(place)
    k = np.arange(1, len(confidence) + 1)
    return k / len(k), np.cumsum(mistakes[np.sort(place)]) / k


def brier_score(probabilities: Float[np.ndarray, "n n_classes"], gold: Int[np.ndarray, " n"]) -> float:
    """Mean over rows of the squared distance to the gold class's unit vector, in [0, 2] (Brier 1950)."""
    probabilities = np.asarray(probabilities, float)
    return float(np.square(probabilities - np.eye(probabilities.shape[1])[gold]).sum(axis=1).mean())


def decision_calibration(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " m"], n_bins: int = N_BINS
) -> dict[str, float]:
    """``ece_15_bins`` (or how many there are), ``aurc`` and ``brier_of_decisions``.

    ``aurc`` is the mean of the risk over all coverages (Geifman & El-Yaniv 2017); ``brier_of_decisions`` is the mean
    squared difference of confidence and right (1) or wrong (0), in [0, 1].
    """
    sure, correct = _checked(confidence, right)
    return {
        f"ece_{n_bins}_bins": expected_calibration_error(confidence, right, n_bins),
        "aurc": float(risk_coverage_curve(confidence, right)[1].mean()),
        "brier_of_decisions": float(np.square(sure - correct).mean()),
    }


def classification_calibration(
    probabilities: Float[np.ndarray, "n n_classes"], gold: Int[np.ndarray, " n"], n_bins: int = N_BINS
) -> dict[str, float]:
    """`decision_calibration` of the likeliest class, and ``brier`` over all classes."""
    probabilities = np.asarray(probabilities, float)
    right = probabilities.argmax(axis=1) == gold
    scores = decision_calibration(probabilities.max(axis=1), right, n_bins)
    return scores | {"brier": brier_score(probabilities, gold)}


def entity_decisions(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Confidence of every predicted entity, and whether both ends and the type are right.

    Args:
        gold: IOB2 tags of each sentence.
        predicted: IOB2 tags of each sentence.
        scores: confidences of each sentence's predicted entities, from left to right.
    """
    known, found = (Entities([list(t) for t in tags], IOB2).entities for tags in (gold, predicted))
    confidence, right = [], []
    for true, guess, values in zip(known, found, scores, strict=True):
        if len(guess) != len(values):
            raise FewShotError(f"A sentence has {len(guess)} predicted entities, but {len(values)} scores.")
        places = {(e.tag, e.start, e.end) for e in true}
        right += [(e.tag, e.start, e.end) in places for e in sorted(guess, key=lambda e: e.start)]
        confidence += list(values)
    return np.array(confidence, float), np.array(right, bool)


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
