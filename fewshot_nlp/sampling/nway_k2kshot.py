"""Greedy N-way K~2K-shot episodes of data in which an example may hold several labels, several times.

Source: Ding et al. 2021, "Few-NERD: A Few-shot Named Entity Recognition Dataset", algorithm 1, and the
sampler released with it, which also asks that a new sentence holds a label that is still short of K.

Deviations: sentences that also hold other types than the N are allowed, and those types become ``O`` (there,
such sentences are left out, which few data sets can afford). The support mentions of a rare label are held
below 2K where the query set needs the rest. A walk that ends short of K is repaired by exchanging sentences,
and begun again if that fails (there, it would never end, as on many small data sets with all labels).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fewshot_nlp.episode import Episode, TaskDataset
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling.base import AtLeastOne, LabelledConfig, Sampler
from fewshot_nlp.sampling.draft import Pairs, SupportBuilder
from fewshot_nlp.sampling.rows import (
    Rows,
    choose_labels,
    counted,
    draw_labels,
    make_episode,
    task_id,
)

RESTARTS = 100
"""How often an episode that cannot be completed is begun again, with other random numbers."""

REPAIR_STEPS = 100
"""Exchanges that are tried each time."""


class NWayK2KShotConfig(LabelledConfig):
    """Knobs of `NWayK2KShot`.

    Args:
        query: what ``n_query`` counts.
    """

    n_query: AtLeastOne = 5
    query: Literal["mentions", "rows"] = "mentions"


class NWayK2KShot(Sampler[NWayK2KShotConfig], name="n_way_k2k_shot"):
    """K to 2K mentions of each of N labels in the support set: for NER, and texts with several labels.

    Labels are drawn uniformly among those that have enough mentions; all others leave the targets. Examples
    are walked through in random order, and one is taken if it holds a label that is short of K and brings
    none over 2K. The query set is drawn in the same way from the other examples, with ``n_query`` for K; or,
    with ``query="rows"``, it is ``n_query`` of the other examples as they come, also those without any label.
    Where the data set has groups, the query set keeps clear of the groups of the support set. An episode that
    cannot be completed so is repaired, by up to 100 exchanges, and begun again, up to 100 times.

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

    Examples:
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
        knobs: dict[str, Any] = {
            "n_way": n_way,
            "k_shot": k_shot,
            "n_query": n_query,
            "query": query,
            "labels": labels,
        }
        super().__init__(dataset, NWayK2KShotConfig(**knobs, seed=seed, n_episodes=n_episodes))
        self._pairs: list[Pairs] = [
            tuple((str(label), n) for label, n in counts.items()) for counts in dataset.label_counts
        ]
        self._totals = {
            label: sum(dataset.label_counts[row][label] for row in rows.tolist())
            for label, rows in self._index.by_label.items()
        }
        wanted = choose_labels(dataset, self._index.by_label, self.config.labels)
        self.n_way = len(wanted) if n_way is None else n_way
        self.label_names = self._drawable(wanted)

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
        groups = len(self._index.group_sizes(rows[mentions <= 2 * max(k, n)]))
        if self.config.query == "mentions" and groups == 1:
            unit = "group" if self._index.grouped else "example"
            return int(mentions.sum()), (
                f"needs each label in two {unit}s with at most {2 * max(k, n)} of it, but {label!r} has one"
            )
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
            f"{self._asked} {short[worst][1]}. Labels with enough: {len(enough)} of {len(wanted)}. Lower "
            "k_shot or n_query, or pass labels=[...] to leave rare labels out."
            + (f" Or set n_way to at most {len(enough)}." if self.config.n_way and enough else "")
        )

    def episode(self, index: int) -> Episode:
        """Episode number ``index``, from 0 on.

        Raises:
            FewShotError: no such sets were found, naming the label that fell short and its counts.
        """
        config = self.config
        rng = self._generator(index)
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

    def _draw(self, rng: np.random.Generator, labels: Sequence[str]) -> tuple[list[int], list[int]]:
        """Rows of support and query, shuffled."""
        k, n, by_mentions = self.config.k_shot, self.config.n_query, self.config.query == "mentions"
        candidates = np.unique(np.concatenate([self._index.by_label[label] for label in labels]))
        leave = n if by_mentions else 0
        caps = {label: min(2 * k, max(k, self._totals[label] - leave)) for label in labels}
        for attempt in range(RESTARTS + 1):
            support = self._complete(rng, candidates, k, caps, spread=attempt == 0)
            failure = "support", k, support.counts
            if support.short():
                continue
            used = np.array(support.rows)
            rest = self._index.outside(candidates if by_mentions else self._index.rows, used)
            if by_mentions:
                query = self._complete(rng, rest, n, dict.fromkeys(labels, 2 * n), spread=True)
                failure = "query", n, query.counts
                if not query.short():
                    return rng.permutation(used).tolist(), rng.permutation(query.rows).tolist()
            elif len(rest) >= n:
                rows = rest[rng.choice(len(rest), n, replace=False)]
                return rng.permutation(used).tolist(), rows.tolist()
        if not by_mentions and not support.short():
            told = f"{len(rest)} rows are left for the query set, which needs {n}."
        else:
            told = self._failure(*failure)
        raise FewShotError(
            f"{self._asked}: after {RESTARTS} restarts, {told} Lower k_shot, n_query or n_way, or "
            "pass labels=[...] to leave such labels out."
        )

    def _complete(
        self, rng: np.random.Generator, rows: Rows, k: int, caps: Mapping[str, int], *, spread: bool
    ) -> SupportBuilder:
        """A set from these rows, by a walk in random order and, where that falls short, repair."""
        draft = SupportBuilder(self._pairs, k, caps)
        draft.walk(rows[np.argsort(self._index.group_ranks(rng, spread)[rows])].tolist())
        if draft.short():
            allowed = np.zeros(len(self.dataset), bool)
            allowed[rows] = True
            by_label = self._index.by_label
            draft.repair(rng, lambda label: by_label[label][allowed[by_label[label]]], REPAIR_STEPS)
        return draft

    def _failure(self, part: str, need: int, counts: Mapping[str, int]) -> str:
        """Which label fell short in the last restart, and by how much."""
        worst = min(counts, key=lambda label: counts[label])
        rows = counted(len(self._index.by_label[worst]), "example", "examples")
        return (
            f"{worst!r} came to {counts[worst]} of {need} mentions in the {part} set. The data has"
            f" {self._totals[worst]} in {rows}, but they bring others over {2 * need}, or too few are left."
            f" All counts: {', '.join(f'{label} {n}' for label, n in counts.items())}."
        )
