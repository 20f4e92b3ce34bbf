"""Means with intervals that hold both spreads: of the support sets, and of the rows that are scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats.

    Args:
        mean: the mean.
        half: half of its 95 % interval; None for a single repeat.
        p_value: two-sided, of a mean of 0; None for a single repeat.
        n: number of repeats.
    """

    mean: float
    half: float | None
    p_value: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}{self._spread}"

    @property
    def signed(self) -> str:
        """The mean with its sign, and the interval."""
        return f"{self.mean:+.3f}{self._spread}"

    @property
    def _spread(self) -> str:
        return "" if self.half is None else f" ± {self.half:.3f}"


def estimate(values: ArrayLike, without: ArrayLike) -> Estimate:
    """Mean over support sets that were all scored on the same rows.

    The interval's half is the root of a sum of two squares: Student's t over the support sets, and 1.96 times the
    standard error of the mean over the rows, by the delete-a-group jackknife (Kott 2001).

    Args:
        values: score of each support set, shape (repeats,).
        without: the same with one block of rows left out, shape (repeats, blocks); blocks may be none.

    Examples:
        >>> str(estimate([0.5, 0.6, 0.7], []))
        '0.600 ± 0.248'
    """
    scores = np.asarray(values, float)
    n, mean = len(scores), float(scores.mean())
    left_out: NDArray[np.float64] = np.asarray(without, float).reshape(n, -1).mean(axis=0)
    if n < 2:
        return Estimate(mean, None, None, n)
    blocks = len(left_out)
    of_rows = (blocks - 1) / blocks * float(((left_out - left_out.mean()) ** 2).sum()) if blocks else 0.0
    of_supports = float(scores.var(ddof=1)) / n
    half = float(np.sqrt(stats.t.ppf(0.975, n - 1) ** 2 * of_supports + 1.96**2 * of_rows))
    error = np.sqrt(of_supports + of_rows)
    p_value = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return Estimate(mean, half, p_value, n)


def mean_of(found: Sequence[Estimate | None]) -> Estimate | None:
    """Mean of independent estimates, its half the root of the squares' sum; None where one is missing."""
    there = [e for e in found if e is not None]
    if len(there) < len(found) or not there:
        return None
    halves = [e.half for e in there if e.half is not None]
    half = float(np.sqrt(np.square(halves).sum())) / len(there) if len(halves) == len(there) else None
    return Estimate(float(np.mean([e.mean for e in there])), half, None, min(e.n for e in there))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in their order.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(steps), 1.0)
    result = np.empty(len(p_values))
    result[order] = corrected
    return [float(p) for p in result]
