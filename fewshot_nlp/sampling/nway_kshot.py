"""N-way K-shot episodes of data in which every example has one label (Vinyals et al. 2016, section 4.1)."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from fewshot_nlp.episode import Episode, TaskDataset
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling.base import RESTARTS, LabelledConfig, Sampler
from fewshot_nlp.sampling.rows import (
    Rows,
    can_divide,
    choose_labels,
    counted,
    draw_labels,
    make_episode,
    task_id,
)


class NWayKShotConfig(LabelledConfig):
    """Knobs of `NWayKShot`."""

    n_way: Annotated[int, Field(ge=2)] | None = 5


class NWayKShot(Sampler[NWayKShotConfig], name="n_way_k_shot"):
    """Exactly ``k_shot`` support and ``n_query`` query rows of each of ``n_way`` labels.

    Labels are drawn uniformly among those with at least ``k_shot + n_query`` distinct inputs; others are
    never drawn. Rows are drawn uniformly, and both sets are shuffled. Where the data set has groups, the
    query set keeps clear of the groups of the support set; where support rows drawn at large leave too few
    rows for that, they are taken group by group, in random order, with up to 50 restarts.

    Args:
        dataset: data whose every example has exactly one label.
        n_way: labels in an episode, at least 2; None for all.
        k_shot: support rows of each label, at least 1.
        n_query: query rows of each label, at least 1.
        labels: labels to draw from; None for all.
        seed: at least 0.
        n_episodes: length of the stream, at least 1.

    Raises:
        FewShotError: examples with several labels or none (use `NWayK2KShot`, or `KShot` where there are no
            labels), or too few labels with enough examples.

    Examples:
        >>> from fewshot_nlp.episode import Example, TaskDataset
        >>> labels = ["card", "loan"] * 10
        >>> data = TaskDataset(
        ...     name="toy",
        ...     task="classification",
        ...     examples=tuple(Example({"text": f"text {i}"}, label) for i, label in enumerate(labels)),
        ...     label_counts=tuple({label: 1} for label in labels),
        ... )
        >>> episode = NWayKShot(data, n_way=2, k_shot=2, n_query=5).episode(0)
        >>> sorted(example.target for example in episode.support)
        ['card', 'card', 'loan', 'loan']
    """

    def __init__(
        self,
        dataset: TaskDataset,
        n_way: int | None = 5,
        k_shot: int = 5,
        n_query: int = 10,
        *,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        n_episodes: int = 600,
    ) -> None:
        knobs: dict[str, Any] = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query, "labels": labels}
        super().__init__(dataset, NWayKShotConfig(**knobs, seed=seed, n_episodes=n_episodes))
        wanted = choose_labels(dataset, self._index.by_label, self.config.labels)
        bad = sum(list(counts.values()) != [1] for counts in dataset.label_counts)
        if bad:
            raise FewShotError(
                f"{bad} of {len(dataset)} examples of {dataset.name} do not have exactly one label, so that "
                "K cannot be counted exactly; use NWayK2KShot, which takes K to 2K of each label."
            )
        self.n_way = len(wanted) if n_way is None else n_way
        self.label_names = self._drawable(wanted)

    @property
    def _asked(self) -> str:
        queries = counted(self.config.n_query, "query", "queries")
        return f"{self.n_way}-way {self.config.k_shot}-shot with {queries}"

    def _drawable(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Labels with enough examples; raises where they are too few."""
        k, n = self.config.k_shot, self.config.n_query
        if not 2 <= self.n_way <= len(wanted):
            raise FewShotError(
                f"n_way is {self.n_way}, but must be at least 2 and at most the number of labels to draw "
                f"from, {len(wanted)}."
            )
        sizes = {label: self._index.group_sizes(self._index.by_label[label]) for label in wanted}
        enough = tuple(label for label in wanted if can_divide(sizes[label], k, n))
        if self.n_way <= len(enough):
            return enough
        short = min((label for label in wanted if label not in enough), key=lambda label: sum(sizes[label]))
        rows = sum(sizes[short])
        groups = counted(len(sizes[short]), "group", "groups")
        where = f" in {groups} that cannot be divided so" if rows >= k + n else ""
        raise FewShotError(
            f"{self._asked} needs {k + n} examples of each label, but {short!r} has {rows}{where}. "
            f"Labels with enough: {len(enough)} of {len(wanted)}. "
            "Lower k_shot or n_query, or pass labels=[...] to leave rare labels out."
            + (f" Or set n_way to at most {len(enough)}." if self.config.n_way and len(enough) > 1 else "")
        )

    def episode(self, index: int) -> Episode:
        """Episode number ``index``, from 0 on.

        Raises:
            FewShotError: groups cannot be divided between support and query (only where the data has groups).
        """
        config = self.config
        rng = self._generator(index)
        labels = draw_labels(rng, self.label_names, self.n_way)
        support, query = self._grouped(rng, labels) if self._index.grouped else self._plain(rng, labels)
        return make_episode(
            self.dataset,
            rng.permutation(support).tolist(),
            rng.permutation(query).tolist(),
            labels=labels,
            restrict=False,
            task_id=task_id(self.dataset, labels, len(self._index.by_label)),
            episode_id=f"{self.dataset.name}/{self.n_way}-way-{config.k_shot}-shot/seed-{config.seed}/{index}",
        )

    def _plain(self, rng: np.random.Generator, labels: Sequence[str]) -> tuple[Rows, Rows]:
        k, n = self.config.k_shot, self.config.n_query
        rows = [self._index.by_label[label] for label in labels]
        drawn = [r[rng.choice(len(r), k + n, replace=False)] for r in rows]
        return np.concatenate([d[:k] for d in drawn]), np.concatenate([d[k:] for d in drawn])

    def _grouped(self, rng: np.random.Generator, labels: Sequence[str]) -> tuple[Rows, Rows]:
        k, n = self.config.k_shot, self.config.n_query
        rows = [self._index.by_label[label] for label in labels]
        for attempt in range(RESTARTS + 1):
            rank = self._index.group_ranks(rng, spread=attempt == 0)
            support = np.concatenate([r[np.argsort(rank[r])[:k]] for r in rows])
            rest = [self._index.outside(r, support) for r in rows]
            if min(map(len, rest)) >= n:
                return support, np.concatenate([r[rng.choice(len(r), n, replace=False)] for r in rest])
        left, label = min((len(r), label) for r, label in zip(rest, labels, strict=True))
        raise FewShotError(
            f"{self._asked}: after {RESTARTS} restarts, {label!r} has {left} query rows in groups that the "
            f"support set does not touch, but needs {n}. Lower k_shot, n_query or n_way, or divide the data "
            "into smaller groups."
        )
