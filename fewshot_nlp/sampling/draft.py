"""A set of examples with K to 2K mentions of each label, found by a greedy walk and by repair."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

import numpy as np

from fewshot_nlp.sampling.rows import Rows

CHOICES = 8
"""Examples that an exchange chooses from."""

Pairs = tuple[tuple[str, int], ...]
"""Labels of an example, each with how often it occurs there."""


class SupportBuilder:
    """A set of examples in the making: between ``k`` and ``caps`` mentions of each label.

    Args:
        pairs: the labels of every example of the data set.
        k: mentions wanted of each label, at least 1.
        caps: mentions allowed, at least ``k``, of each label that counts; other labels do not.

    Attributes:
        rows: the examples taken.
        counts: how often they hold each label.

    Examples:
        >>> draft = SupportBuilder([(("A", 3),), (("A", 1),), (("A", 1), ("B", 2))], 1, {"A": 2, "B": 2})
        >>> draft.walk([0, 1, 2])
        >>> draft.rows, draft.counts
        ([1, 2], {'A': 2, 'B': 2})
    """

    def __init__(self, pairs: Sequence[Pairs], k: int, caps: Mapping[str, int]) -> None:
        self._pairs, self._k, self._caps = pairs, k, caps
        self.rows: list[int] = []
        self.counts = dict.fromkeys(caps, 0)

    def short(self) -> list[str]:
        """The labels that are below ``k``."""
        return [label for label, n in self.counts.items() if n < self._k]

    def walk(self, order: Iterable[int]) -> None:
        """Takes each example that holds a label still short and brings none over its cap.

        One walk is the whole algorithm: an example that is refused once would be refused ever after.
        """
        missing = len(self.short())
        for row in order:
            useful = False
            for label, n in self._pairs[row]:
                have = self.counts.get(label)
                if have is None:
                    continue
                if have + n > self._caps[label]:
                    break
                useful = useful or have < self._k
            else:
                if useful:
                    self._add(row, 1)
                    missing = len(self.short())
            if not missing:
                return

    def repair(self, rng: np.random.Generator, holding: Callable[[str], Rows], steps: int) -> None:
        """Exchanges examples until no label is short, or the steps are used up.

        A step adds an example of a label that is short: of a few drawn at random, the one that brings the
        fewest mentions over the caps. Then it takes out others until all caps hold again, those first whose
        mentions are missed least.

        Args:
            rng: random numbers.
            holding: gives the examples to choose from for a label.
            steps: at least 0.
        """
        for _ in range(steps):
            short = self.short()
            if not short:
                return
            rows = holding(short[int(rng.integers(len(short)))])
            drawn = rows[rng.integers(len(rows), size=CHOICES)].tolist() if len(rows) else []
            damage = [(self._over(row), row) for row in drawn if row not in self.rows]
            least, row = min(damage, default=(inf, -1), key=lambda found: found[0])
            if least == inf:
                continue
            self._add(row, 1)
            for label, _ in self._pairs[row]:
                while label in self.counts and self.counts[label] > self._caps[label]:
                    others = [r for r in self.rows if r != row and any(x == label for x, _ in self._pairs[r])]
                    noise = rng.random(len(others)).tolist()
                    missed = [self._missed(r) for r in others]
                    self._add(min(zip(missed, noise, others, strict=True))[2], -1)

    def _missed(self, row: int) -> int:
        """How many mentions would be missing, up to ``k`` of each label, without an example."""
        counts, k = self.counts, self._k
        return sum(
            max(0, min(counts[label], k) - counts[label] + n)
            for label, n in self._pairs[row]
            if label in counts
        )

    def _over(self, row: int) -> float:
        """How many mentions an example would bring over the caps; infinite if it could not stand alone."""
        total = 0.0
        for label, n in self._pairs[row]:
            if label in self.counts:
                cap = self._caps[label]
                total += inf if n > cap else max(0, self.counts[label] + n - cap)
        return total

    def _add(self, row: int, times: int) -> None:
        """Takes an example, or with ``times`` -1 takes it out."""
        (self.rows.append if times > 0 else self.rows.remove)(row)
        for label, n in self._pairs[row]:
            if label in self.counts:
                self.counts[label] += times * n
