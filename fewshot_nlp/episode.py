"""The values that every part of the package passes around: examples, episodes, data sets of examples.

All are frozen; what must hold for them is checked here, once, when they are made. They carry text and
label names, never tensors.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

from fewshot_nlp.errors import FewShotError, logger, quoted
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.rows import Label, joined, sorted_labels

Json = Any
"""A JSON value: str, number, bool, None, list or dict of them."""


def canonical_json(value: Json) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def input_key(inputs: Mapping[str, Json]) -> str:
    """Text that is equal for inputs that differ in white space, case or Unicode composition (NFC) alone.

    A text with its words and the words alone are the same input.

    Examples:
        >>> input_key({"text": "Give  20 MG.", "tokens": ["Give", "20", "MG", "."]})
        '["give20mg."]'
    """
    texts = ("".join(map(str, v)) if isinstance(v, list) else str(v) for v in inputs.values())
    plain = (normalize("NFC", normalize("NFC", text).casefold()) for text in texts)
    return canonical_json(sorted({"".join(text.split()) for text in plain}))


def sha256(text: str) -> str:
    """Hexadecimal SHA-256 of a text in UTF-8 (lone surrogates included)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Query:
    """What a model may see of an example: its input columns (JSON values), without the target."""

    inputs: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Example(Query):
    """An input with its gold target, in the task's normal form (a label, a list of tags, answers, ...)."""

    target: Json

    @property
    def query(self) -> Query:
        """The same input without its target."""
        return Query(self.inputs)

    def to_json(self) -> dict[str, Json]:
        """A JSON object from which ``from_json`` makes an equal example."""
        return {"inputs": dict(self.inputs), "target": self.target}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Example":
        """The example that ``to_json`` wrote; KeyError or TypeError for anything else."""
        return cls(dict(value["inputs"]), value["target"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One few-shot task: a support set to adapt on and a query set to be scored on.

    Args:
        task: name of the task ("ner").
        support: examples to adapt on; at least one.
        query: examples to predict; at least one, none of whose inputs is also in the support set.
        label_names: sorted, unique label names of this episode; empty for tasks without labels.
        task_id: which learning problem this is, e.g. data set and label subset.
        episode_id: unique within a stream of episodes.
    """

    task: str
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    label_names: tuple[Label, ...]
    task_id: str
    episode_id: str

    def __post_init__(self) -> None:
        if not self.support or not self.query:
            raise FewShotError(
                f"Episode {self.episode_id!r} has {len(self.support)} support and {len(self.query)} query "
                "examples; both must have at least one."
            )
        if self.label_names != sorted_labels(self.label_names):
            raise FewShotError(f"Episode {self.episode_id!r}: label_names must be sorted and unique.")
        seen = {canonical_json(e.inputs) for e in self.support}
        shared = sum(canonical_json(e.inputs) in seen for e in self.query)
        if shared:
            raise FewShotError(
                f"Episode {self.episode_id!r}: {shared} of {len(self.query)} query inputs are also in the "
                "support set; remove duplicate rows from the data."
            )

    @property
    def queries(self) -> tuple[Query, ...]:
        """Query inputs without targets: all that prediction may see."""
        return tuple(e.query for e in self.query)

    @property
    def targets(self) -> tuple[Json, ...]:
        """Gold targets of the query, in the order of ``queries``."""
        return tuple(e.target for e in self.query)

    def to_json(self) -> dict[str, Json]:
        """A JSON object from which ``from_json`` makes an equal episode."""
        return {
            "task": self.task,
            "task_id": self.task_id,
            "episode_id": self.episode_id,
            "label_names": list(self.label_names),
            "support": [e.to_json() for e in self.support],
            "query": [e.to_json() for e in self.query],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Episode":
        """The episode that ``to_json`` wrote."""
        try:
            return cls(
                task=value["task"],
                task_id=value["task_id"],
                episode_id=value["episode_id"],
                label_names=tuple(value["label_names"]),
                support=tuple(map(Example.from_json, value["support"])),
                query=tuple(map(Example.from_json, value["query"])),
            )
        except (KeyError, TypeError) as error:
            raise FewShotError(f"Not an episode: {type(error).__name__} {error}.") from error


def write_episodes(path: str | Path, episodes: Iterable[Episode]) -> str:
    """Writes episodes as JSON lines, and ``<path>.sha256`` with the digest of the file beside it.

    Returns:
        The SHA-256 of the file: the manifest that a report names.
    """
    return write_with_digest(user_path(path), (episode.to_json() for episode in episodes))


def write_with_digest(path: Path, values: Iterable[Json]) -> str:
    """Writes values, a line each, and ``<path>.sha256`` beside them, for ``sha256sum -c``; returns the SHA-256."""
    digest = hashlib.sha256()
    with atomic_write(path) as part, part.open("wb") as file:
        for value in values:
            line = (canonical_json(value) + "\n").encode("utf-8", "surrogatepass")
            digest.update(line)
            file.write(line)
    with atomic_write(path.with_name(path.name + ".sha256")) as part:
        part.write_text(f"{digest.hexdigest()}  {path.name}\n")
    return digest.hexdigest()


def read_episodes(path: str | Path) -> tuple[list[Episode], str]:
    """Reads what ``write_episodes`` wrote and checks it against its manifest, where there is one.

    Returns:
        The episodes and the SHA-256 of the file.
    """
    path = user_path(path)
    if not path.is_file():
        raise FewShotError(f"There is no file of episodes at {path}.")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    manifest = path.with_name(path.name + ".sha256")
    if manifest.is_file() and manifest.read_text().split()[0] != digest:
        raise FewShotError(
            f"{path} has sha256 {digest[:12]}..., but its manifest says {manifest.read_text()[:12]}...: the "
            "file was changed or cut short; export the episodes again."
        )
    episodes = []
    for number, line in enumerate(data.decode("utf-8", "surrogatepass").split("\n"), start=1):
        if not line:
            continue
        try:
            episodes.append(Episode.from_json(json.loads(line)))
        except json.JSONDecodeError as error:
            raise FewShotError(f"{path}, line {number}: not JSON ({error.msg}).") from error
    return episodes, digest


def _keep_target(target: Json, labels: frozenset[Label]) -> Json:
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDataset:
    """Validated examples of one data set, with what a sampler needs to know of each: its label counts.

    Args:
        name: name of the data set.
        task: name of its task.
        examples: the examples.
        label_counts: for each example, how often each label occurs in it (1 for a text's label, the number
            of mentions for entity types, empty for tasks without labels).
        domain: "medical", "legal", ...; used by domain-disjoint splits.
        groups: for each example, the unit that must not be divided between support and query (a document);
            empty when every example stands alone.
        restrict: ``restrict(target, labels)`` drops from a target all labels but the given ones.
    """

    name: str
    task: str
    examples: tuple[Example, ...]
    label_counts: tuple[Mapping[Label, int], ...]
    domain: str = "general"
    groups: tuple[str, ...] = ()
    restrict: Callable[[Json, frozenset[Label]], Json] = _keep_target
    fingerprint: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if len(self.examples) != len(self.label_counts):
            raise FewShotError(f"{len(self.examples)} examples, but {len(self.label_counts)} label counts.")
        digest = hashlib.sha256()
        for example in self.examples:
            line = canonical_json([dict(example.inputs), example.target])
            digest.update(line.encode("utf-8", "surrogatepass"))
        digest.update(canonical_json([list(map(dict, self.label_counts)), self.groups]).encode("utf-8"))
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def label_names(self) -> tuple[Label, ...]:
        """Sorted names of all labels that occur."""
        return sorted_labels(label for counts in self.label_counts for label in counts)

    def take(self, indices: Sequence[int]) -> "TaskDataset":
        """The data set of the given rows, in the given order."""
        return replace(
            self,
            examples=tuple(self.examples[i] for i in indices),
            label_counts=tuple(self.label_counts[i] for i in indices),
            groups=tuple(self.groups[i] for i in indices) if self.groups else (),
        )

    def without(self, inputs: set[str], where: str) -> "TaskDataset":
        """The data set without some inputs; the logger says how many rows went.

        Args:
            inputs: the inputs, as `input_key`.
            where: what else has them, for the message.
        """
        rows = [i for i, example in enumerate(self.examples) if input_key(example.inputs) not in inputs]
        if len(rows) == len(self):
            return self
        gone = len(self) - len(rows)
        logger.warning("%s: %d of %d rows are left out, because %s.", self.name, gone, len(self), where)
        return self.take(rows)

    def keep_labels(self, labels: Iterable[Label]) -> "TaskDataset":
        """Only the given labels: other labels are dropped from targets, rows left without any label too.

        A row that had no label to begin with (a sentence without entities) stays.
        """
        wanted = frozenset(labels)
        unknown = [label for label in wanted if label not in self.label_names]
        if unknown:
            raise FewShotError(
                f"{self.name} has no label {quoted(unknown[0])}. It has: {joined(self.label_names)}."
            )

        def rows() -> Iterator[tuple[int, Example, Mapping[Label, int]]]:
            for i, (example, counts) in enumerate(zip(self.examples, self.label_counts, strict=True)):
                kept = {label: n for label, n in counts.items() if label in wanted}
                if kept or not counts:
                    yield i, Example(example.inputs, self.restrict(example.target, wanted)), kept

        chosen = list(rows())
        return replace(
            self,
            examples=tuple(e for _, e, _ in chosen),
            label_counts=tuple(c for _, _, c in chosen),
            groups=tuple(self.groups[i] for i, _, _ in chosen) if self.groups else (),
        )
