"""Greedy N-way K~2K-shot episodes of data in which an example may hold several labels, several times.

Source: Ding et al. 2021, "Few-NERD: A Few-shot Named Entity Recognition Dataset", algorithm 1, and the
sampler released with it, which also asks that a new sentence holds a label that is still short of K.

Deviations: sentences that also hold other types than the N are allowed, and those types become ``O`` (there,
such sentences are left out, which few data sets can afford). A walk that ends short of K is begun again, with
the examples of the labels that fell short in front (there, the walk would never end).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fewshot_nlp.episode import Episode, TaskDataset
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling.base import RESTARTS, SAMPLERS, SamplerConfig, generator, label_choice, whole
from fewshot_nlp.sampling.rows import (
    RowIndex,
    Rows,
    choose_labels,
    counted,
    draw_labels,
    make_episode,
    task_id,
)

Pairs = tuple[tuple[str, int], ...]
"""Labels of an example, each with how often it occurs there."""


@dataclass(frozen=True, kw_only=True)
class NWayK2KShotConfig(SamplerConfig):
    """Knobs of `NWayK2KShot`, which explains them."""

    sampler: ClassVar[str] = "n_way_k2k_shot"
    n_query: int = 5
    n_way: int | None = 5
    query: Literal["mentions", "rows"] = "mentions"
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_way is not None:
            whole("n_way", self.n_way, 1)
        if self.query not in ("mentions", "rows"):
            raise FewShotError(f"query is {self.query!r}, but must be one of: mentions, rows.")


def greedy(
    order: Sequence[int], pairs: Sequence[Pairs], labels: Sequence[str], k: int
) -> tuple[list[int], dict[str, int]]:
    """Walks through examples, taking each that holds a label short of ``k`` and brings none over ``2 * k``.

    One walk is the whole algorithm: an example that is refused once would be refused ever after.

    Args:
        order: numbers of examples.
        pairs: the labels of every example.
        labels: those that count.
        k: at least 1.

    Returns:
        The examples taken, and how often they hold each label; complete when none is below ``k``.

    Example:
        >>> greedy([0, 1, 2], [(("A", 3),), (("A", 1),), (("A", 1), ("B", 2))], ["A", "B"], 1)
        ([1, 2], {'A': 2, 'B': 2})
    """
    counts, missing, taken = dict.fromkeys(labels, 0), len(labels), []
    for row in order:
        useful = False
        for label, n in pairs[row]:
            have = counts.get(label)
            if have is None:
                continue
            if have + n > 2 * k:
                break
            useful = useful or have < k
        else:
            if useful:
                taken.append(row)
                for label, n in pairs[row]:
                    if label in counts:
                        missing -= counts[label] < k <= counts[label] + n
                        counts[label] += n
                if not missing:
                    break
    return taken, counts


@SAMPLERS.register("n_way_k2k_shot")
class NWayK2KShot:
    """K to 2K mentions of each of N labels in the support set: for NER, and texts with several labels.

    Labels are drawn uniformly among those that have enough mentions; all others leave the targets. Examples
    are walked through in random order, and one is taken if it holds a label that is short of K and brings
    none over 2K. The query set is drawn in the same way from the other examples, with ``n_query`` for K; or,
    with ``query="rows"``, it is ``n_query`` of the other examples as they come, also those without any label.
    Where the data set has groups, the query set keeps clear of the groups of the support set. An episode that
    cannot be completed is begun again up to 50 times.

    Args:
        dataset: data with labels.
        n_way: labels in an episode, at least 1; None for all ("K~2K-shot on all labels").
        k_shot: K, at least 1.
        n_query: mentions of each label in the query set (to twice as many), or examples in it; at least 1.
        query: what ``n_query`` counts: "mentions" or "rows".
        labels: labels to draw from; None for all.
        seed: at least 0.
        n_episodes: length of the stream, at least 1.

    Raises:
        FewShotError: the data set has no labels (use `KShot`), or too few labels with enough mentions.

    Example:
        >>> from fewshot_nlp.episode import Example, TaskDataset
        >>> examples = tuple(Example({"tokens": ["Ann", str(i)]}, ["B-PER", "B-NUM"]) for i in range(9))
        >>> data = TaskDataset(
        ...     name="toy", task="ner", examples=examples, label_counts=({"PER": 1, "NUM": 1},) * 9
        ... )
        >>> episode = NWayK2KShot(data, n_way=None, k_shot=2, n_query=3).episode(0)
        >>> len(episode.support), len(episode.query), episode.label_names
        (2, 3, ('NUM', 'PER'))
    """

    def __init__(
        self,
        dataset: TaskDataset,
        n_way: int | None = 5,
        k_shot: int = 5,
        n_query: int = 5,
        *,
        query: Literal["mentions", "rows"] = "mentions",
        labels: Sequence[str] | None = None,
        seed: int = 0,
        n_episodes: int = 600,
    ) -> None:
        self.dataset = dataset
        self.config = NWayK2KShotConfig(
            n_way=n_way,
            k_shot=k_shot,
            n_query=n_query,
            query=query,
            labels=label_choice(labels),
            seed=seed,
            n_episodes=n_episodes,
        )
        self._key = self.config.key()
        self._index = RowIndex(dataset)
        self._pairs: list[Pairs] = [tuple(counts.items()) for counts in dataset.label_counts]
        wanted = choose_labels(dataset, self._index.by_label, self.config.labels)
        self.n_way = len(wanted) if n_way is None else n_way
        self.label_names = self._drawable(wanted)
        self.n_examples = len(self._index.rows)

    @property
    def _protocol(self) -> str:
        return f"{self.n_way}-way {self.config.k_shot}~{2 * self.config.k_shot}-shot"

    @property
    def _asked(self) -> str:
        unit = f"query {self.config.query.removesuffix('s')}"
        return f"{self._protocol} with {counted(self.config.n_query, unit, unit + 's')}"

    def _shortage(self, label: str) -> tuple[int, str] | None:
        """Why a label can in no episode be had, after the number of mentions that it has; else None.

        What it asks is necessary: neither set may hold an example with more than twice its K mentions.
        """
        k, n = self.config.k_shot, self.config.n_query
        rows = self._index.by_label[label]
        mentions = np.array([self.dataset.label_counts[row][label] for row in rows.tolist()])
        needs = [(k, k)] if self.config.query == "rows" else [(k, k), (n, n), (max(k, n), k + n)]
        for cap, need in needs:
            have = int(mentions[mentions <= 2 * cap].sum())
            if have < need:
                return have, (
                    f"needs {counted(need, 'mention', 'mentions')} of each label in examples with at most "
                    f"{2 * cap} of it, but {label!r} has {have}"
                )
        groups = len(self._index.group_sizes(rows))
        if self.config.query == "mentions" and groups == 1:
            unit = "group" if self._index.grouped else "example"
            return int(mentions.sum()), f"needs each label in two {unit}s, but {label!r} occurs in one"
        return None

    def _drawable(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Labels with enough mentions; raises where they, or the examples, are too few."""
        if self.n_way > len(wanted):
            raise FewShotError(f"n_way is {self.n_way}, but there are {len(wanted)} labels to draw from.")
        if self.config.query == "rows" and len(self._index.rows) <= self.config.n_query:
            raise FewShotError(
                f"{self._asked}: {self.dataset.name} has {len(self._index.rows)} distinct examples, which "
                "leaves none for the support set; lower n_query."
            )
        short = {label: found for label in wanted if (found := self._shortage(label)) is not None}
        enough = tuple(label for label in wanted if label not in short)
        if self.n_way <= len(enough):
            return enough
        worst = min(short, key=lambda label: short[label][0])
        raise FewShotError(
            f"{self._asked} {short[worst][1]}. Labels with enough: {len(enough)} of {len(wanted)}. Lower k_shot "
            "or n_query, or pass labels=[...] to leave rare labels out."
            + (f" Or set n_way to at most {len(enough)}." if self.config.n_way and enough else "")
        )

    def episode(self, index: int) -> Episode:
        """Episode number ``index``, from 0 on.

        Raises:
            FewShotError: no such sets were found, naming the label that fell short and its counts.
        """
        config = self.config
        rng = generator(self.dataset.fingerprint, self._key, config.seed, index)
        labels = draw_labels(rng, self.label_names, self.n_way)
        support, query = self._draw(rng, labels)
        n_labels = len(self._index.by_label)
        return make_episode(
            self.dataset,
            support,
            query,
            labels=labels,
            restrict=len(labels) < n_labels,
            task_id=task_id(self.dataset, labels, n_labels),
            episode_id=f"{self.dataset.name}/{self._protocol.replace(' ', '-')}/seed-{config.seed}/{index}",
        )

    def __len__(self) -> int:
        return self.config.n_episodes

    def _draw(self, rng: np.random.Generator, labels: Sequence[str]) -> tuple[list[int], list[int]]:
        """Rows of support and query, shuffled."""
        config = self.config
        candidates = np.unique(np.concatenate([self._index.by_label[label] for label in labels]))
        first: dict[str, None] = {}  # labels that fell short so far, in the order in which they did
        failure = ""
        for attempt in range(RESTARTS + 1):
            order = self._order(rng, candidates, first, spread=attempt == 0)
            support, counts = greedy(order, self._pairs, labels, config.k_shot)
            if short := [label for label in labels if counts[label] < config.k_shot]:
                failure = self._failure("support", config.k_shot, counts)
            elif config.query == "rows":
                rest = self._index.outside(self._index.rows, np.array(support))
                if len(rest) >= config.n_query:
                    rows = rest[rng.choice(len(rest), config.n_query, replace=False)]
                    return rng.permutation(support).tolist(), rows.tolist()
                failure = f"{len(rest)} rows are left for the query set, which needs {config.n_query}"
            else:
                rest = self._index.outside(candidates, np.array(support))
                query, counts = greedy(
                    self._order(rng, rest, first, spread=True), self._pairs, labels, config.n_query
                )
                short = [label for label in labels if counts[label] < config.n_query]
                if not short:
                    return rng.permutation(support).tolist(), rng.permutation(query).tolist()
                failure = self._failure("query", config.n_query, counts)
            first.update(dict.fromkeys(short))
        raise FewShotError(
            f"{self._asked}: after {RESTARTS} restarts, {failure}. Lower k_shot, n_query or n_way, or pass "
            "labels=[...] to leave such labels out."
        )

    def _order(
        self, rng: np.random.Generator, rows: Rows, first: Iterable[str], *, spread: bool
    ) -> list[int]:
        """The rows in random order, those that hold one of the labels ``first`` in front."""
        order = rows[np.argsort(self._index.group_ranks(rng, spread)[rows])]
        for_first = [self._index.by_label[label] for label in first]
        if for_first:
            front = np.isin(order, np.concatenate(for_first))
            order = np.concatenate([order[front], order[~front]])
        return list(order.tolist())

    def _failure(self, part: str, need: int, counts: Mapping[str, int]) -> str:
        label = min(counts, key=lambda label: counts[label])
        rows = self._index.by_label[label].tolist()
        total = sum(self.dataset.label_counts[row][label] for row in rows)
        return (
            f"{label!r} came to {counts[label]} of {need} mentions in the {part} set (all of the data set: "
            f"{total} in {counted(len(rows), 'example', 'examples')}; all labels: {dict(counts)})"
        )
