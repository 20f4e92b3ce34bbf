"""Manifests of benchmarks: which rows are learned from and which are scored, as numbers of rows, and their seals.

A manifest holds no text. It names each data set's fingerprint, so that rows that differ are refused, and has its own
SHA-256 beside it (``sha256sum -c`` reads it). Rows of a target whose text a source has are not scored: the text itself,
or an n-gram of its words (`fewshot_nlp.training.leakage`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fewshot_nlp.comparison.own_rows import plain
from fewshot_nlp.comparison.plan import Plan, blocks_of
from fewshot_nlp.episode import Episode, Example, Json, TaskDataset, input_key
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import Label
from fewshot_nlp.training.leakage import NGrams, hashes_of, overlapping_rows


@dataclass(frozen=True)
class FrozenPlan:
    """Support sets of a target's train rows, and the test rows that all of them are scored on.

    Args:
        train: rows of support sets.
        test: rows that are scored.
        shots: sizes of support sets, rising.
        tested: numbers of test rows.
        supports: for each size, the train rows of each repeat.
        seed: of the blocks.
    """

    train: TaskDataset
    test: TaskDataset
    shots: tuple[int, ...]
    tested: tuple[int, ...]
    supports: Mapping[int, Sequence[Sequence[int]]]
    seed: int

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels of the train rows."""
        return self.train.label_names

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Places in `tested` by block of the jackknife; a group stands in one block."""
        return blocks_of([_unit(self.test, row) for row in self.tested], self.seed)

    def parts(self, k: int, repeat: int) -> list[tuple[list[int], Episode]]:
        """The one part of a repeat; targets are restricted to the labels of its support set.

        Raises:
            FewShotError: a support set holds a row that is scored (`Episode`).
        """
        chosen = self.supports[k][repeat]
        support = tuple(self.train.examples[row] for row in chosen)
        labels = frozenset(label for row in chosen for label in self.train.label_counts[row])
        query = tuple(
            Example(e.inputs, self.test.restrict(e.target, labels))
            for e in map(self.test.examples.__getitem__, self.tested)
        )
        episode = Episode(
            task=self.test.task,
            support=support,
            query=query,
            label_names=tuple(label for label in self.labels if label in labels),
            task_id=self.test.name,
            episode_id=f"{k} {repeat}",
        )
        return [(list(self.tested), episode)]


def _unit(data: TaskDataset, row: int) -> str:
    return data.groups[row] if data.groups else str(row)


class Seen:
    """Texts of sources, and the n-grams of their words.

    Args:
        sources: rows that models were trained on, by name.
        ngram: words in an n-gram.
    """

    def __init__(self, sources: Mapping[str, TaskDataset], ngram: int) -> None:
        self._n, self._grams = ngram, NGrams(ngram)
        self._keys = {name: {input_key(e.inputs) for e in data.examples} for name, data in sources.items()}
        self._hashes = {name: hashes_of(data.examples, self._grams) for name, data in sources.items()}

    def rows(self, data: TaskDataset) -> dict[str, set[int]]:
        """Rows that a source has seen, by the reason."""
        found = {}
        own = [input_key(e.inputs) for e in data.examples]
        shared = overlapping_rows(data, self._grams, self._hashes)
        for name, keys in self._keys.items():
            found[f"text in {name}"] = {row for row, key in enumerate(own) if key in keys}
            found[f"{self._n}-gram in {name}"] = set(np.flatnonzero(shared[name]).tolist())
        return found


def frozen_target(
    train: TaskDataset,
    test: TaskDataset,
    seen: Seen,
    *,
    k_shot: Sequence[int],
    repeats: int,
    scored: int,
    seed: int,
) -> dict[str, Json]:
    """What the manifest says of a target.

    Rows are scored in an order at random in which every beginning has each label (the rarest of a row) in its share.

    Args:
        train: its train rows.
        test: its test rows.
        seen: texts that no scored row may have.
        k_shot: sizes of support sets.
        repeats: support sets of each size.
        scored: test rows at most.
        seed: of all draws.

    Raises:
        FewShotError: no test row is left.
    """
    ours, known = set(_plain(train)), set(train.label_names)
    reasons = {
        "label not in train": {
            row for row, counts in enumerate(test.label_counts) if counts and not set(counts) & known
        },
        "group in train": {row for row, group in enumerate(test.groups) if group in set(train.groups)},
        "text in train": {row for row, text in enumerate(_plain(test)) if text in ours},
        **seen.rows(test),
    }
    gone = set[int]().union(*reasons.values())
    left = [row for row in range(len(test)) if row not in gone]
    if not left:
        why = max(reasons, key=lambda reason: len(reasons[reason]))
        raise FewShotError(
            f"{test.name}: no test row is left; {len(reasons[why])} of {len(test)} have a {why}."
        )
    draw = Plan(train, tuple(k_shot), (2,) * len(k_shot), (), seed)
    rows = range(len(train))
    return {
        "train": {"rows": len(train), "sha256": train.fingerprint},
        "test": {"rows": len(test), "sha256": test.fingerprint},
        "left_out": {why: len(found) for why, found in reasons.items() if found},
        "scored": _by_label(test, left, seed)[:scored],
        "supports": {str(k): [draw.support(rows, k, r, 0) for r in range(repeats)] for k in k_shot},
    }


def _plain(data: TaskDataset) -> list[str]:
    return [plain(e.inputs) for e in data.examples]


def _by_label(data: TaskDataset, rows: Sequence[int], seed: int) -> list[int]:
    rarity = Counter(label for row in rows for label in data.label_counts[row])
    order = [rows[i] for i in np.random.default_rng([seed, 0]).permutation(len(rows)).tolist()]
    strata = {
        row: min(map(str, data.label_counts[row]), key=lambda x: rarity[x], default="") for row in order
    }
    sizes, seen = Counter(strata.values()), Counter[str]()
    place = {}
    for row in order:
        seen[strata[row]] += 1
        place[row] = (seen[strata[row]] - 0.5) / sizes[strata[row]]
    return sorted(order, key=lambda row: place[row])


def thawed(
    name: str,
    found: Mapping[str, Json],
    train: TaskDataset,
    test: TaskDataset,
    k_shot: Sequence[int],
    repeats: int,
    scored: int,
    seed: int,
) -> FrozenPlan:
    """The plan that a manifest holds for a target, over rows that must be those it was made of.

    Raises:
        FewShotError: the rows differ, sizes or repeats are not frozen, or a scored text is also learned from.
    """
    for part, data in (("train", train), ("test", test)):
        if data.fingerprint != found[part]["sha256"]:
            raise FewShotError(
                f"The {part} rows of {name!r} are not those of the manifest ({len(data)} rows with sha256 "
                f"{data.fingerprint[:12]}..., not {found[part]['rows']} with {found[part]['sha256'][:12]}...): get the "
                "rows that its card names, or freeze the benchmark again."
            )
    supports = {k: found["supports"].get(str(k), [])[:repeats] for k in k_shot}
    short = next((k for k, sets in supports.items() if len(sets) < repeats), None)
    if short is not None:
        raise FewShotError(
            f"The manifest has {len(supports[short])} support sets of {short} for {name!r}, fewer than {repeats}; "
            "freeze the benchmark again."
        )
    tested = tuple(found["scored"][:scored])
    learned = {plain(train.examples[row].inputs) for sets in supports.values() for s in sets for row in s}
    leaks = [row for row in tested if plain(test.examples[row].inputs) in learned]
    if leaks:
        raise FewShotError(
            f"{len(leaks)} of {len(tested)} scored rows of {name!r} are also in support sets, the first is row "
            f"{leaks[0] + 1}; freeze the benchmark again."
        )
    return FrozenPlan(train, test, tuple(sorted(k_shot)), tested, supports, seed)


def read_manifest(path: Path) -> tuple[dict[str, Json], str]:
    """A manifest and its SHA-256.

    Raises:
        FewShotError: it or its seal is missing, or it was changed.
    """
    seal = path.with_name(path.name + ".sha256")
    if not path.is_file() or not seal.is_file():
        raise FewShotError(
            f"The benchmark has no manifest {path} with {seal.name} beside it; freeze it first."
        )
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    wanted = seal.read_text(encoding="utf-8").split()[:1]
    if wanted != [digest]:
        raise FewShotError(
            f"{path} has sha256 {digest[:12]}..., but {seal.name} says {(wanted or ['nothing'])[0][:12]}...: the "
            "manifest was changed; get it again."
        )
    found: dict[str, Json] = json.loads(data)
    return found, digest
