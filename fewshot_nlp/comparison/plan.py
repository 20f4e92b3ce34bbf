"""Which rows are learned from, and which are scored: folds of all rows, and support sets drawn outside a fold."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from fewshot_nlp.episode import Example, TaskDataset
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import Label, joined, sorted_labels
from fewshot_nlp.sampling.draft import SupportBuilder

FOLDS = (2, 3, 5, 10)
"""Numbers of folds that are tried, the smallest first; each row out, where there are at most `ONE_OUT` rows."""
ONE_OUT = 30
N_BLOCKS = 20
"""Blocks of rows of the jackknife."""
REPAIRS = 100


@dataclass(frozen=True)
class Plan:
    """Repeats of cross-validation, each with its own folds and support sets; a pure function of data and seed.

    Args:
        dataset: the rows.
        shots: sizes of support sets, rising: mentions of each label (fewer of a rare one), or rows where the task has
            no labels.
        n_folds: folds of a repeat. A fold's rows are predicted by a model that was adapted to a support set from the
            other folds.
        tested: rows that are scored in every repeat.
        seed: other seeds give other folds, support sets and scored rows.
        notes: what was left out of the request, and why, a line each.
    """

    dataset: TaskDataset
    shots: tuple[int, ...]
    n_folds: int
    tested: tuple[int, ...]
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels, in their natural order."""
        return sorted_labels(label for counts in self.dataset.label_counts for label in counts)

    @cached_property
    def _units(self) -> list[str]:
        """The group of each row; a row without one is its own."""
        return list(self.dataset.groups) or [str(i) for i in range(len(self.dataset))]

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Places in `tested` by block of the jackknife; a group stands in one block."""
        groups = sorted({self._units[row] for row in self.tested})
        order = np.random.default_rng([self.seed, 1]).permutation(len(groups))
        block = {groups[i]: place % min(N_BLOCKS, len(groups)) for place, i in enumerate(order.tolist())}
        found: dict[int, list[int]] = {}
        for place, row in enumerate(self.tested):
            found.setdefault(block[self._units[row]], []).append(place)
        return tuple(map(tuple, found.values())) if len(found) > 1 else ()

    def folds(self, repeat: int) -> list[tuple[list[int], list[int]]]:
        """For each fold of a repeat, the rows to learn from and the rows to score."""
        rarity = Counter(label for counts in self.dataset.label_counts for label in counts)
        strata = [min(map(str, c), key=lambda x: rarity[x], default="") for c in self.dataset.label_counts]
        options = {"n_splits": self.n_folds, "shuffle": True, "random_state": self.seed * 1000 + repeat}
        grouped = len(set(self._units)) < len(self._units)
        labelled = len(set(strata)) > 1 and self.n_folds < len(self.dataset)
        splitter = {
            (True, True): StratifiedGroupKFold,
            (True, False): GroupKFold,
            (False, True): StratifiedKFold,
            (False, False): KFold,
        }[grouped, labelled](**options)
        with warnings.catch_warnings():  # a rare label in fewer rows than there are folds
            warnings.simplefilter("ignore")
            parts = list(splitter.split(strata, strata, self._units))
        tested = set(self.tested)
        return [(pool.tolist(), [r for r in out.tolist() if r in tested]) for pool, out in parts]

    def support(self, pool: Sequence[int], k: int, repeat: int, fold: int) -> list[Example]:
        """A support set from some rows: at least K of each label where they hold so many, and at most 2K."""
        rng = np.random.default_rng([self.seed, 2, k, repeat, fold])
        order = rng.permutation(np.asarray(pool)).tolist()
        if not self.labels:
            return [self.dataset.examples[row] for row in order[:k]]
        pairs = [tuple((str(x), n) for x, n in counts.items()) for counts in self.dataset.label_counts]
        caps = {str(label): 2 * k for label in self.labels}
        builder = SupportBuilder(pairs, k, caps)
        builder.walk(order)
        inside = np.zeros(len(self.dataset), bool)
        inside[order] = True
        holding = {
            x: np.array([r for r, p in enumerate(pairs) if inside[r] and x in dict(p)], int) for x in caps
        }
        builder.repair(rng, lambda label: holding[label], REPAIRS)
        return [self.dataset.examples[row] for row in sorted(builder.rows)]


def make_plan(dataset: TaskDataset, k_shot: Sequence[int], max_scored: int, seed: int) -> Plan:
    """The sizes that the rows allow, with the fewest folds that allow them.

    Raises:
        FewShotError: fewer than four rows or two groups, or no size that can be had.
    """
    n, n_groups = len(dataset), len(set(dataset.groups)) or len(dataset)
    if n < 4 or n_groups < 2:
        raise FewShotError(
            f"There are {n} distinct rows in {n_groups} groups; comparing learners takes at least 4 rows in 2 groups."
        )
    wanted = sorted(set(k_shot))
    if not wanted or wanted[0] < 1:
        raise FewShotError(f"k_shot is {list(k_shot)}, but must be whole numbers of at least 1.")
    totals = Counter(
        label for counts in dataset.label_counts for label, c in counts.items() for _ in range(c)
    )
    usual = sorted(totals.values())[len(totals) // 2] if totals else n
    choices = [f for f in FOLDS if f <= n_groups] + ([n_groups] if n_groups <= ONE_OUT else [])

    def had(k: int, folds: int) -> bool:
        return usual * (folds - 1) // folds >= k

    possible = [k for k in wanted if had(k, choices[-1])] or wanted[:1]
    folds = next((f for f in choices if had(possible[-1], f)), choices[-1])
    what = f"half of the labels have at most {usual} in all" if totals else f"there are {n} rows"
    unit = "examples a label" if totals else "examples"
    notes = [f"{k} {unit} were left out: {what}." for k in wanted if k not in possible]
    short = [label for label, total in totals.items() if total * (folds - 1) // folds < possible[-1]]
    if short:
        notes.append(f"Fewer than {possible[-1]} examples in the support sets: {joined(short)}.")
    if folds == n_groups:
        notes.append(f"With so few rows each of the {n} is predicted from the others (leave one out).")
    chosen = np.random.default_rng([seed, 0]).permutation(n)[:max_scored]
    if len(chosen) < n:
        notes.append(f"{len(chosen)} of {n} rows are scored, at random.")
    return Plan(dataset, tuple(possible), folds, tuple(sorted(chosen.tolist())), seed, tuple(notes))
