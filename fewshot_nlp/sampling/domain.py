"""Meta-splits that share no class or no domain, and episodes of tasks without labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np

from fewshot_nlp.episode import Episode, Example, Json, TaskDataset, input_key
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.sampling.base import RESTARTS, AtLeastOne, Sampler, SamplerConfig, generator
from fewshot_nlp.sampling.rows import Rows, can_divide, counted, make_episode
from fewshot_nlp.settings import check

T = TypeVar("T")
SAME = "a part for evaluation has the same inputs"
PARTS = ("meta_train", "meta_val", "meta_test")


@dataclass(frozen=True, kw_only=True)
class MetaSplits(Generic[T]):
    """The three parts of a meta-learning experiment: to train on, to choose by, to report on."""

    meta_train: T
    meta_val: T
    meta_test: T


def split_classes(
    dataset: TaskDataset,
    fractions: Sequence[float] | None = None,
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    shared: Literal["restrict", "drop"] = "restrict",
) -> MetaSplits[TaskDataset]:
    """Deals the labels of a data set to three parts, so that no label stands in two of them.

    A row goes where its labels go. One whose labels go to several parts stands in each of them, with only
    that part's labels (``"restrict"``), or in none (``"drop"``: then the parts share no row either). A row
    without labels goes to one part, by lot. The logger says how many rows of several parts there were.

    Args:
        dataset: data with labels.
        fractions: shares of the labels for meta_train, meta_val and meta_test, adding up to 1; a share
            above 0 gets at least one label. None for 0.6, 0.2, 0.2.
        counts: numbers of labels instead of ``fractions``, adding up to the number of labels.
        seed: at least 0.
        shared: what becomes of rows whose labels go to several parts.

    Returns:
        Data sets named ``<name>.meta_train`` and so on; a part of 0 labels has no rows.

    Raises:
        FewShotError: shares that do not add up or are too many for the labels, or a label left without rows.
    """
    names = dataset.label_names
    if not names:
        raise FewShotError(f"{dataset.name} has no labels to split by; use split_domains.")
    sizes = _part_sizes(dataset.name, len(names), fractions, counts)
    check("shared", shared, Literal["restrict", "drop"])
    rng = generator(dataset.fingerprint, {"split": "classes", "counts": list(sizes)}, seed, 0)
    dealt = np.repeat(np.arange(3), sizes)[np.argsort(rng.permutation(len(names)))]
    part_of = dict(zip(names, dealt.tolist(), strict=True))
    lots = rng.choice(3, len(dataset), p=np.array(sizes) / len(names)).tolist()
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    n_shared = 0
    for row, found in enumerate(dataset.label_counts):
        parts = sorted({part_of[label] for label in found}) or [lots[row]]
        n_shared += len(parts) > 1
        for part in parts if len(parts) == 1 or shared == "restrict" else ():
            rows[part].append(row)
    result = []
    for part, name in enumerate(PARTS):
        kept = dataset.take(rows[part])
        labels = [label for label in names if part_of[label] == part]
        lost = sorted(set(labels) - set(kept.label_names))
        if lost:
            raise FewShotError(
                f"{dataset.name}: all rows of {lost[0]!r} also have labels of other parts and were dropped; "
                'pass shared="restrict", or another seed.'
            )
        result.append(replace(kept.keep_labels(labels), name=f"{dataset.name}.{name}"))
    told = "; ".join(f"{part.name} {len(part.label_names)} labels in {len(part)} rows" for part in result)
    fate = "dropped" if shared == "drop" else "kept in each part with only its labels"
    (logger.warning if n_shared else logger.info)(
        "%s split by class: %s. %d of %d rows had labels of several parts and were %s.",
        dataset.name,
        told,
        n_shared,
        len(dataset),
        fate,
    )
    return MetaSplits(meta_train=result[0], meta_val=result[1], meta_test=result[2])


def _part_sizes(
    name: str, n_labels: int, fractions: Sequence[float] | None, counts: Sequence[int] | None
) -> tuple[int, int, int]:
    """How many labels each part gets: the counts, or the fractions rounded by largest remainder."""
    if fractions is not None and counts is not None:
        raise FewShotError("Pass fractions or counts, not both.")
    given = fractions if counts is None else counts
    shares = (0.6, 0.2, 0.2) if given is None else tuple(given)
    total = 1 if counts is None else n_labels
    if len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - total) <= 1e-9:
        raise FewShotError(
            f"{'fractions' if counts is None else 'counts'} are {list(shares)}, but must be three numbers of "
            f"at least 0 for meta_train, meta_val and meta_test that add up to {total}"
            + ("." if counts is None else f", the number of labels of {name}.")
        )
    if counts is not None:
        check("counts", tuple(shares), tuple[int, ...])
        return int(shares[0]), int(shares[1]), int(shares[2])
    wanted = sum(share > 0 for share in shares)
    if n_labels < wanted:
        raise FewShotError(f"{name} has {counted(n_labels, 'label', 'labels')}, too few for {wanted} parts.")
    exact = [share * n_labels for share in shares]
    sizes = [max(int(value + 1e-9), value > 0) for value in exact]
    while sum(sizes) != n_labels:
        step = 1 if sum(sizes) < n_labels else -1
        open_parts = [p for p in range(3) if exact[p] > 0 and sizes[p] + step >= 1]
        sizes[max(open_parts, key=lambda p: step * (exact[p] - sizes[p]))] += step
    return sizes[0], sizes[1], sizes[2]


def split_domains(
    datasets: Iterable[TaskDataset], *, meta_test: Sequence[str], meta_val: Sequence[str] = ()
) -> MetaSplits[tuple[TaskDataset, ...]]:
    """Deals data sets to three parts by their domains, so that no domain and no input stands in two of them.

    An input that several parts hold stays in meta_test, else in meta_val; the other parts lose the row, and
    the logger says how many.

    Args:
        datasets: data sets of any tasks.
        meta_test: domains to report on; at least one.
        meta_val: domains to choose by.

    Returns:
        Data sets in the given order; meta_train has all other domains.

    Raises:
        FewShotError: an unknown domain, one named twice, or none left to train on.
    """
    datasets = tuple(datasets)
    known = sorted({dataset.domain for dataset in datasets})
    for name, domains in (("meta_test", meta_test), ("meta_val", meta_val)):
        if isinstance(domains, str) or (name == "meta_test" and not domains):
            raise FewShotError(f"{name} is {domains!r}, but must list domains. Known: {', '.join(known)}.")
        for domain in domains:
            if domain not in known:
                raise FewShotError(f"{name} names the domain {domain!r}. Known: {', '.join(known)}.")
            if name == "meta_val" and domain in meta_test:
                raise FewShotError(f"The domain {domain!r} is in meta_val and in meta_test; leave it in one.")
    if all(domain in (*meta_test, *meta_val) for domain in known):
        raise FewShotError(f"No domain is left to train on; all known are taken: {', '.join(known)}.")
    test = tuple(d for d in datasets if d.domain in meta_test)
    seen = {input_key(e.inputs) for d in test for e in d.examples}
    val = tuple(d.without(seen, SAME) for d in datasets if d.domain in meta_val)
    seen |= {input_key(e.inputs) for d in val for e in d.examples}
    train = tuple(d.without(seen, SAME) for d in datasets if d.domain not in (*meta_test, *meta_val))
    return MetaSplits(meta_train=train, meta_val=val, meta_test=test)


class KShotConfig(SamplerConfig):
    """Knobs of `KShot`.

    Args:
        unit: what ``k_shot`` counts.
    """

    k_shot: AtLeastOne = 16
    n_query: AtLeastOne = 16
    unit: Literal["rows", "words"] = "rows"

    def key(self) -> dict[str, Json]:
        """As for the other samplers; ``unit`` only where it is not the usual one."""
        return {name: value for name, value in super().key().items() if (name, value) != ("unit", "rows")}


class KShot(Sampler[KShotConfig], name="k_shot"):
    """``k_shot`` support and ``n_query`` query rows, whatever their labels: for QA and translation.

    A group (``TaskDataset.groups``, e.g. a document) is never divided between support and query. Support
    rows are drawn uniformly; where that leaves too few rows for the query set, the support set takes its
    rows group by group, in random order, with up to 50 restarts.

    Args:
        dataset: data of any task; with labels, ``label_names`` of an episode are all of the data set's.
        k_shot: support rows, at least 1; or words, see ``unit``.
        n_query: query rows, at least 1.
        unit: "rows", or "words": rows are drawn until their inputs have ``k_shot`` words or more between white space
            (supports of 4,000 words as in Meta-MT, Sharaf et al. 2020).
        seed: at least 0.
        n_episodes: length of the stream, at least 1.

    Raises:
        FewShotError: too few distinct inputs, or groups that cannot be divided into these sizes.

    Examples:
        >>> from fewshot_nlp.episode import Example, TaskDataset
        >>> examples = tuple(Example({"text": f"text {i}"}, "") for i in range(6))
        >>> documents = ("a", "a", "b", "b", "c", "c")
        >>> data = TaskDataset(
        ...     name="toy", task="any", examples=examples, label_counts=({},) * 6, groups=documents
        ... )
        >>> episode = KShot(data, k_shot=2, n_query=2).episode(0)
        >>> len(episode.support), len(episode.query)
        (2, 2)
    """

    def __init__(
        self,
        dataset: TaskDataset,
        k_shot: int = 16,
        n_query: int = 16,
        *,
        unit: Literal["rows", "words"] = "rows",
        seed: int = 0,
        n_episodes: int = 600,
    ) -> None:
        super().__init__(
            dataset, KShotConfig(k_shot=k_shot, n_query=n_query, unit=unit, seed=seed, n_episodes=n_episodes)
        )
        self._words = np.array([_words(example) for example in dataset.examples], np.int64)
        self._labels = tuple(self._index.by_label)
        sizes = self._index.group_sizes(self._index.rows)
        if unit == "words":
            self._check_words()
        elif not can_divide(sizes, k_shot, n_query):
            groups = counted(len(sizes), "group", "groups")
            where = f" in {groups}, none of which may stand on both sides" if self._index.grouped else ""
            raise FewShotError(
                f"{self._asked} needs {k_shot + n_query} distinct examples, but {dataset.name} has "
                f"{self.n_examples}{where}. Lower k_shot or n_query."
            )

    @property
    def _asked(self) -> str:
        size = (
            f"{self.config.k_shot}-shot"
            if self.config.unit == "rows"
            else f"A support of {self.config.k_shot} words"
        )
        return f"{size} with {counted(self.config.n_query, 'query', 'queries')}"

    def _check_words(self) -> None:
        words = int(self._words[self._index.rows].sum())
        if words < self.config.k_shot or self.n_examples <= self.config.n_query:
            raise FewShotError(
                f"{self._asked} cannot be had: {self.dataset.name} has {words} words in {self.n_examples} distinct "
                "examples. Lower k_shot or n_query."
            )

    def _size(self, rows: Rows) -> int:
        """How many of some rows, in their order, make a support set."""
        if self.config.unit == "rows":
            return self.config.k_shot
        return int(np.searchsorted(self._words[rows].cumsum(), self.config.k_shot)) + 1

    def episode(self, index: int) -> Episode:
        """Episode number ``index``, from 0 on.

        Raises:
            FewShotError: groups were not divided into these sizes in 50 restarts.
        """
        config, rows = self.config, self._index.rows
        rng = self._generator(index)
        for attempt in range(RESTARTS + 1):
            order = rows[np.argsort(self._index.group_ranks(rng, spread=attempt == 0)[rows])]
            support = order[: self._size(order)]
            rest = self._index.outside(rows, support)
            if len(rest) >= config.n_query:
                query = rest[rng.choice(len(rest), config.n_query, replace=False)]
                break
        else:
            raise FewShotError(
                f"{self._asked}: after {RESTARTS} restarts, {len(rest)} rows are left in groups that the "
                "support set does not touch. Lower k_shot or n_query, or divide the data into smaller groups."
            )
        name = "shot" if config.unit == "rows" else config.unit
        return make_episode(
            self.dataset,
            rng.permutation(support).tolist(),
            query.tolist(),
            labels=self._labels,
            restrict=False,
            task_id=self.dataset.name,
            episode_id=f"{self.dataset.name}/{config.k_shot}-{name}/seed-{config.seed}/{index}",
        )


def _words(example: Example) -> int:
    """Words between white space of an example's input texts."""
    return sum(len(value.split()) for value in example.inputs.values() if isinstance(value, str))
