"""A data set as samplers see it: its distinct rows, by label and by group, looked up once."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fewshot_nlp.episode import Episode, Example, TaskDataset, canonical_json
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.rows import joined

Rows = NDArray[np.int64]
"""Numbers of rows of a data set."""


class RowIndex:
    """The rows that may be drawn, and the group of each.

    Of rows that repeat an input only the first may be drawn, so that no input stands in support and query.
    A row without a group is a group of its own.

    Args:
        dataset: the data.

    Attributes:
        rows: distinct rows, in their order.
        group: for every row of the data set, the number of its group.
        by_label: label to the distinct rows in which it occurs; sorted by label.
        grouped: whether any two distinct rows share a group.
    """

    def __init__(self, dataset: TaskDataset) -> None:
        first: dict[str, int] = {}
        for row, example in enumerate(dataset.examples):
            first.setdefault(canonical_json(example.inputs), row)
        self.rows: Rows = np.fromiter(first.values(), np.int64, len(first))
        if len(first) < len(dataset):
            logger.warning(
                "%s: %d of %d rows repeat the input of an earlier row and are never drawn.",
                dataset.name,
                len(dataset) - len(first),
                len(dataset),
            )
        number: dict[str, int] = {}
        names = dataset.groups or tuple(map(str, range(len(dataset))))
        self.group: Rows = np.array([number.setdefault(name, len(number)) for name in names], np.int64)
        self.grouped = len(np.unique(self.group[self.rows])) < len(self.rows)
        found: dict[str, list[int]] = {}
        for row in self.rows.tolist():
            for label in dataset.label_counts[row]:
                found.setdefault(label, []).append(row)
        self.by_label: dict[str, Rows] = {label: np.array(found[label], np.int64) for label in sorted(found)}

    def outside(self, rows: Rows, used: Rows) -> Rows:
        """Those of ``rows`` whose group none of ``used`` belongs to."""
        return rows[~np.isin(self.group[rows], self.group[used])]

    def group_sizes(self, rows: Rows) -> list[int]:
        """How many of ``rows`` each group has, without the groups that have none."""
        return [int(n) for n in np.unique(self.group[rows], return_counts=True)[1]]

    def group_ranks(self, rng: np.random.Generator, spread: bool) -> NDArray[np.float64]:
        """A random number for every row; with ``spread`` False those of one group stand side by side."""
        noise = rng.random(len(self.group))
        if spread or not self.grouped:
            return noise
        ranks: NDArray[np.float64] = rng.permutation(len(self.group))[self.group] + noise
        return ranks


def can_divide(sizes: Sequence[int], k: int, n: int) -> bool:
    """Whether whole groups of these sizes can be dealt to two sides of at least ``k`` and ``n`` rows.

    Examples:
        >>> can_divide([9, 1], 5, 5), can_divide([4, 4, 2], 5, 4)
        (False, True)
    """
    spare = sum(sizes) - k - n
    if spare < 0 or max(sizes) <= spare + 1:  # taking groups until k are reached never takes too many
        return spare >= 0
    sums = 1  # bit s: some groups have s rows together
    for size in sizes:
        sums |= sums << size
    return (sums >> k) & ((1 << (spare + 1)) - 1) != 0


def choose_labels(
    dataset: TaskDataset, known: Iterable[str], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The labels to draw from: all that are known, or the given ones.

    Raises:
        FewShotError: the data set has no labels, or lacks a given one.
    """
    names = tuple(known)
    if not names:
        raise FewShotError(f"{dataset.name} has no labels; use KShot for tasks without labels.")
    for label in labels or ():
        if label not in names:
            raise FewShotError(f"{dataset.name} has no label {label!r}. It has: {joined(names)}.")
    return names if labels is None else tuple(labels)


def draw_labels(rng: np.random.Generator, labels: Sequence[str], n_way: int) -> tuple[str, ...]:
    """``n_way`` of the labels, uniformly, sorted."""
    return tuple(sorted(labels[i] for i in rng.choice(len(labels), n_way, replace=False).tolist()))


def task_id(dataset: TaskDataset, labels: Sequence[str], n_labels: int) -> str:
    """The data set's name, followed by the labels where they are not all of it."""
    return dataset.name if len(labels) == n_labels else dataset.name + canonical_json(list(labels))


def make_episode(
    dataset: TaskDataset,
    support: Iterable[int],
    query: Iterable[int],
    *,
    labels: tuple[str, ...],
    restrict: bool,
    task_id: str,
    episode_id: str,
) -> Episode:
    """The episode of some rows; with ``restrict``, other labels than the given ones leave the targets."""
    wanted = frozenset(labels)

    def example(row: int) -> Example:
        found = dataset.examples[row]
        return Example(found.inputs, dataset.restrict(found.target, wanted)) if restrict else found

    return Episode(
        task=dataset.task,
        support=tuple(map(example, support)),
        query=tuple(map(example, query)),
        label_names=labels,
        task_id=task_id,
        episode_id=episode_id,
    )


def counted(n: int, one: str, many: str) -> str:
    """A number with its noun: "1 query", "10 queries"."""
    return f"{n} {one if n == 1 else many}"
