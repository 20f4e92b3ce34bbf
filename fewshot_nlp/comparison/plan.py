"""Which rows are learned from, and which are scored: folds of all rows, and support sets drawn outside a fold."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Protocol

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from fewshot_nlp.episode import Episode, TaskDataset
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import Label, joined, sorted_labels
from fewshot_nlp.sampling.draft import SupportBuilder

MOST_FOLDS = 10
"""Each row out, where there are at most `ONE_OUT` rows and so many folds are too few."""
ONE_OUT = 30
N_BLOCKS = 20
"""Blocks of rows of the jackknife."""
HELD_OUT = 30
"""Rows that are scored at most where one fold alone is."""
REPAIRS = 100


class Drawn(Protocol):
    """Support sets, and the rows that are scored with each."""

    @property
    def shots(self) -> tuple[int, ...]:
        """Sizes of support sets, rising."""

    @property
    def tested(self) -> tuple[int, ...]:
        """Rows that are scored in every repeat."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels."""

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Places in `tested` by block of the jackknife."""

    def parts(self, k: int, repeat: int) -> list[tuple[list[int], Episode]]:
        """What a repeat scores, with the support set for it."""


@dataclass(frozen=True)
class Plan:
    """Repeats of cross-validation, each with its own folds and support sets; a pure function of data and seed.

    Args:
        dataset: the rows.
        shots: sizes of support sets, rising: mentions of each label (fewer of a rare one), or rows where the task has
            no labels.
        n_folds: folds of a repeat, for each size the fewest that allow it. A fold's rows are predicted by a model that
            was adapted to a support set from the other folds.
        tested: rows that are scored in every repeat.
        seed: other seeds give other folds, support sets and scored rows.
        notes: what was left out of the request, and why, a line each.
        held_out: one fold is scored, the same in every repeat, and support sets come from the other.
    """

    dataset: TaskDataset
    shots: tuple[int, ...]
    n_folds: tuple[int, ...]
    tested: tuple[int, ...]
    seed: int
    notes: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels, in their natural order."""
        return self.dataset.label_names

    @cached_property
    def _units(self) -> list[str]:
        """The group of each row; a row without one is its own."""
        return list(self.dataset.groups) or [str(i) for i in range(len(self.dataset))]

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Places in `tested` by block of the jackknife; a group stands in one block."""
        return blocks_of([self._units[row] for row in self.tested], self.seed)

    def folds(self, k: int, repeat: int) -> list[tuple[list[int], list[int]]]:
        """For each fold of a repeat, the rows to learn from and the rows to score.

        Raises:
            FewShotError: a group stands on both sides, which would let a learner see what it is scored on.
        """
        n_folds = self.n_folds[self.shots.index(k)]
        rarity = Counter(label for counts in self.dataset.label_counts for label in counts)
        strata = [min(map(str, c), key=lambda x: rarity[x], default="") for c in self.dataset.label_counts]
        random = self.seed * 1000 + (0 if self.held_out else repeat)
        options = {"n_splits": n_folds, "shuffle": True, "random_state": random}
        grouped = len(set(self._units)) < len(self._units)
        labelled = len(set(strata)) > 1 and n_folds < len(self.dataset)
        splitter = {
            (True, True): StratifiedGroupKFold,
            (True, False): GroupKFold,
            (False, True): StratifiedKFold,
            (False, False): KFold,
        }[grouped, labelled](**options)
        with warnings.catch_warnings():  # a rare label in fewer rows than there are folds
            warnings.simplefilter("ignore")
            parts = list(splitter.split(strata, strata, self._units))
        tested, found = set(self.tested), []
        for pool, out in parts[:1] if self.held_out else parts:
            both = {self._units[r] for r in pool} & {self._units[r] for r in out}
            if both:
                raise FewShotError(f"The group {min(both)!r} would be learned from and scored at once.")
            found.append((pool.tolist(), [r for r in out.tolist() if r in tested]))
        return found

    def parts(self, k: int, repeat: int) -> list[tuple[list[int], Episode]]:
        """Each fold of a repeat that scores any rows: these rows, and the episode of its support set and them.

        Raises:
            FewShotError: a support set holds a row that is scored (`Episode`).
        """
        return [
            (rows, self._episode(self.support(pool, k, repeat, fold), rows, f"{k} {repeat} {fold}"))
            for fold, (pool, rows) in enumerate(self.folds(k, repeat))
            if rows
        ]

    def _episode(self, support: Sequence[int], rows: Sequence[int], name: str) -> Episode:
        query, examples = [self.dataset.examples[r] for r in rows], self.dataset.examples
        if not support:
            raise FewShotError("No row outside a fold has a label; add rows, or groups of fewer rows.")
        return Episode(
            task=self.dataset.task,
            support=tuple(examples[r] for r in support),
            query=tuple(query),
            label_names=self.labels,
            task_id=self.dataset.name,
            episode_id=name,
        )

    def support(self, pool: Sequence[int], k: int, repeat: int, fold: int) -> list[int]:
        """Rows of a support set: at least K of each label where the pool holds so many, and at most 2K."""
        rng = np.random.default_rng([self.seed, 2, k, repeat, fold])
        order: list[int] = rng.permutation(np.asarray(pool)).tolist()
        if not self.labels:
            return order[:k]
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
        return sorted(builder.rows)

    def cheaper(self, most: int = HELD_OUT) -> "list[Plan]":
        """Smaller plans, the largest first: sizes that two folds allow; one fold of them; fewer of the sizes.

        Args:
            most: rows that are scored at most where one fold alone is.
        """
        small = tuple(k for k, n in zip(self.shots, self.n_folds, strict=True) if n == 2)
        if not small or self.held_out:
            return [replace(self, shots=self.shots[:1], n_folds=self.n_folds[:1])]
        two = replace(self, shots=small, n_folds=(2,) * len(small))
        [(_, out)] = replace(two, held_out=True).folds(small[0], 0)
        if len(out) < 2:
            return [two]
        scored = np.random.default_rng([self.seed, 3]).permutation(out)[:most]
        one = replace(two, held_out=True, tested=tuple(sorted(scored.tolist())))
        fewer = [c for n in range(len(small), 0, -1) for c in reversed([*combinations(small, n)])]
        return [two, *(replace(one, shots=shots, n_folds=(2,) * len(shots)) for shots in fewer)]


def blocks_of(units: Sequence[str], seed: int) -> tuple[tuple[int, ...], ...]:
    """Places of the groups that rows are of, in at most `N_BLOCKS` blocks at random; none where there is one group."""
    groups = sorted(set(units))
    order = np.random.default_rng([seed, 1]).permutation(len(groups))
    block = {groups[i]: place % min(N_BLOCKS, len(groups)) for place, i in enumerate(order.tolist())}
    found: dict[int, list[int]] = {}
    for place, unit in enumerate(units):
        found.setdefault(block[unit], []).append(place)
    return tuple(map(tuple, found.values())) if len(found) > 1 else ()


def make_plan(dataset: TaskDataset, k_shot: Sequence[int], max_scored: int, seed: int) -> Plan:
    """The sizes that the rows allow, each with the fewest folds that allow it.

    Raises:
        FewShotError: fewer than four rows or two groups, or no size that can be had.
    """
    n, n_groups = len(dataset), len(set(dataset.groups)) or len(dataset)
    if n < 4 or n_groups < 2:
        raise FewShotError(
            f"There are {n} distinct rows in {n_groups} groups; comparing learners takes at least 4 rows in 2 groups."
        )
    wanted = sorted(set(k_shot))
    totals = Counter(
        label for counts in dataset.label_counts for label, c in counts.items() for _ in range(c)
    )
    usual = sorted(totals.values())[len(totals) // 2] if totals else n
    choices = [*range(2, min(MOST_FOLDS, n_groups) + 1), *([n_groups] if n_groups <= ONE_OUT else [])]
    what = f"half of the labels have at most {usual} in all" if totals else f"there are {n} rows"
    unit = "examples a label" if totals else "examples"
    enough = {k: [f for f in choices if usual * (f - 1) // f >= k] for k in wanted}
    folds = {k: found[0] for k, found in enough.items() if found}
    if not folds:
        most = max(1, usual * (choices[-1] - 1) // choices[-1])
        fix = f"take k_shot=[{most}]" if most < wanted[0] else "label more rows"
        raise FewShotError(
            f"{wanted[0]} {unit} cannot be had, since {what} and others must be scored; {fix}."
        )
    notes = [f"{k} {unit} were left out: {what}." for k in wanted if k not in folds]
    most, n_folds = max(folds), max(folds.values())
    short = [label for label, total in totals.items() if total * (n_folds - 1) // n_folds < most]
    if short:
        notes.append(f"Fewer than {most} examples in the support sets: {joined(sorted_labels(short))}.")
    homes: dict[Label, set[str]] = {}
    for counts, group in zip(dataset.label_counts, dataset.groups, strict=False):
        for label in counts:
            homes.setdefault(label, set()).add(group)
    alone = sorted_labels(label for label, groups in homes.items() if len(groups) == 1 < totals[label])
    if alone:
        told = f"All rows of a label stand in one group, so it is not learned where it is scored: {joined(alone)}."
        if len(alone) == len(homes):
            raise FewShotError(f"{told} Name another group_column.")
        notes.append(told)
    if n_folds == n_groups > MOST_FOLDS:
        notes.append(f"With so few rows each of the {n} is predicted from the others (leave one out).")
    chosen = np.random.default_rng([seed, 0]).permutation(n)[:max_scored]
    if len(chosen) < n:
        notes.append(f"{len(chosen)} of {n} rows are scored, at random.")
    tested = tuple(sorted(chosen.tolist()))
    return Plan(dataset, tuple(folds), tuple(folds.values()), tested, seed, tuple(notes))
