"""What a model with a memory remembers: the examples, their ids, and which of them a prediction rests on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fewshot_nlp.episode import Example, Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.nearest_neighbour import NearestNeighbour
from fewshot_nlp.memory import Entry, MemoryStore
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.rows import Label
from fewshot_nlp.slots import SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.models.base import FewShotModel
    from fewshot_nlp.tasks.label_words import Labels

CHUNK = 256
"""Inputs that are looked up at once."""


def has_memory(pipeline: Pipeline) -> bool:
    """Whether the learner keeps the support set's slots, each by itself."""
    return isinstance(pipeline.learner, NearestNeighbour)


class ModelMemory:
    """The memory of a model with ``learner="nearest_neighbour"``, which is as if adapted to all that is in it at once.

    Args:
        model: a `FewShotModel`.

    Raises:
        FewShotError: its learner does not remember examples.
    """

    def __init__(self, model: "FewShotModel") -> None:
        self._model, self._learner = model, _remembering(model.pipeline)

    def add(
        self, rows: Any, labels: "Labels | None" = None, *, column_mapping: Mapping[str, str] | None = None
    ) -> list[str]:
        """Puts rows into the memory; the first ones adapt the model.

        Args:
            rows: as for `adapt`.
            labels: as for `adapt`; further labels.
            column_mapping: your column's name to the task's name for it.

        Returns:
            The ids of the rows, for `forget`; `neighbours` names them too.
        """
        examples = self._model._read(rows, column_mapping)
        if self._model.is_adapted:
            self._model._extend(examples, labels)
        else:
            self._model._adapt(examples, labels, tuple(labels or ()))
        return [example_id(e) for e in examples]

    def forget(self, *, ids: Collection[str] = (), texts: Collection[str] = ()) -> int:
        """Removes examples.

        Args:
            ids: that `add` or `neighbours` told.
            texts: inputs of the examples, whole (a text, a question, words joined by spaces).

        Returns:
            How many examples were removed.

        Raises:
            FewShotError: an id or text that no example has, or nothing would be left; the memory stays as it was.
        """
        before = self._model._examples
        kept = without(before, ids, texts)
        self._model._adapt_again(kept, self._model._named)
        return len(before) - len(kept)

    @property
    def store(self) -> MemoryStore:
        """The memory as a store of its own, to search, to save, or to join with those of other tasks."""
        model = self._model
        if model._store is None:
            model._store = store_of(model._adapted(), self._learner, model._examples, model.descriptions)
        return model._store

    def neighbours(self, inputs: Iterable[Any], *, k: int | None = None) -> list[list[dict[str, Json]]]:
        """Which remembered examples each prediction rests on.

        Args:
            inputs: as for `predict`.
            k: how many for each slot; None for as many as the learner looks at.

        Returns:
            For each input its decisive slots (the text, every word, the ends of the answer, every token of the
            translation; none of an empty input): "text", what was "predicted" for it, and its "neighbours", nearest
            first, each with "id", "label", "distance", "text", "place" (number of the slot in its example), "start"
            and "end" (characters, where known), and the whole "example". The id is empty for a label's name.
        """
        model = self._model._adapted()
        queries = self._model._queries(inputs)
        targets = [p["target"] for p in model.predict(queries, progress=None)]
        shown = [
            Example(q.inputs, target) for q, target in zip(queries, targets, strict=True) if q is not None
        ]
        found = iter(neighbours_of(model, self.store, shown, k or self._learner.config.k))
        return [[] if q is None else next(found) for q in queries]


def _remembering(pipeline: Pipeline) -> NearestNeighbour:
    learner = pipeline.learner
    if not isinstance(learner, NearestNeighbour):
        raise FewShotError(
            f"{learner.name} has no memory of single examples; load the model with learner='nearest_neighbour'."
        )
    return learner


def example_id(example: Example) -> str:
    """An example's id: twelve digits of a digest of its inputs and target, the same in every process."""
    return sha256(canonical_json([dict(example.inputs), example.target]))[:12]


def texts_of(example: Example) -> list[str]:
    """The inputs of an example as texts; words are joined by spaces."""
    values = example.inputs.values()
    return [" ".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in values]


def without(examples: Sequence[Example], ids: Collection[str], texts: Collection[str]) -> list[Example]:
    """The examples but those with one of the ids, or one of the texts among their inputs.

    Raises:
        FewShotError: nothing is named, or something that no example has.
    """
    if isinstance(ids, str) or isinstance(texts, str) or not (ids or texts):
        raise FewShotError("Say what to forget: ids=[...] that add() or neighbours() told, or texts=[...].")
    known = [(example_id(e), texts_of(e)) for e in examples]
    all_ids, all_texts = {i for i, _ in known}, {t for _, found in known for t in found}
    for kind, given, there in (("id", ids, all_ids), ("text", texts, all_texts)):
        unknown = [value for value in given if value not in there]
        if unknown:
            raise FewShotError(
                f"No remembered example has the {kind} {str(unknown[0])[:60]!r} ({len(unknown)} such of {len(given)}; "
                f"{len(examples)} examples are remembered). Nothing was forgotten."
            )
    return [
        e
        for e, (i, found) in zip(examples, known, strict=True)
        if i not in ids and not any(t in texts for t in found)
    ]


def store_of(
    model: TaskModel,
    learner: NearestNeighbour,
    examples: Sequence[Example],
    descriptions: Mapping[Label, str],
) -> MemoryStore:
    """The memory of an adapted model as a store with provenance."""
    task, encoder = model.pipeline.task, learner.encoder
    keys = model.adapted.state.get("keys")
    if keys is None:
        raise FewShotError("The memory is empty; call memory.add(rows) first.")
    support = model.pipeline.support(examples, model.labels, descriptions)
    support = support.select(learner.kept(support))
    if support.n_slots != len(keys):
        raise FewShotError(
            f"The model has {len(keys)} keys, but knows the examples of {support.n_slots} only: it was saved "
            "without them; adapt it again."
        )
    store = MemoryStore(
        keys.shape[1],
        fingerprint(encoder),
        metric=learner.config.metric,
        search=learner.config.search,
    )
    known = {example_id(e): e.to_json() for e in examples}
    store.remember(keys, entries_of(support, encoder.tokenizer, task.name), known)
    return store


def entries_of(batch: SlotBatch, tokenizer: Any, task: str) -> list[Entry]:
    """One entry for each slot of a batch with targets."""
    groups = batch.groups.numpy()
    place = np.arange(len(groups)) - np.searchsorted(groups, groups)
    ids = [example_id(item) if isinstance(item, Example) else "" for item in batch.items]
    offsets = np.zeros((len(groups), 2), int) if batch.hints.offsets is None else batch.hints.offsets
    rows = zip(labels_of(batch), slot_texts(batch, tokenizer), groups, place, offsets, strict=True)
    return [
        Entry(
            label=label,
            example=ids[group] if group < len(ids) else "",
            text=text,
            place=int(number),
            start=int(start),
            end=int(end),
            task=task,
        )
        for label, text, group, number, (start, end) in rows
    ]


def labels_of(batch: SlotBatch) -> list[str]:
    """Each slot's class, or its classes joined by "+"."""
    if batch.gold.dim() == 1:
        return [str(batch.classes[i]) for i in batch.gold.tolist()]
    names: list[list[str]] = [[] for _ in range(batch.n_slots)]
    for slot, number in (batch.gold > 0).nonzero().tolist():
        names[slot].append(str(batch.classes[number]))
    return ["+".join(found) for found in names]


def slot_texts(batch: SlotBatch, tokenizer: Any) -> list[str]:
    """The tokens of each slot as text; of a slot in several windows, those of the first."""
    first: dict[int, tuple[int, int, int]] = {}
    for slot, window, low, high in batch.spans.tolist():
        if slot in first and first[slot][0] == window and first[slot][2] == low:
            first[slot] = (window, first[slot][1], high)
        first.setdefault(slot, (window, low, high))
    pieces = [batch.windows[w][low:high] for w, low, high in (first[i] for i in range(batch.n_slots))]
    fast = tokenizer.tokenizer
    texts = fast.batch_decode(pieces, skip_special_tokens=True)
    return [t.strip() or fast.decode(p) for t, p in zip(texts, pieces, strict=True)]


def neighbours_of(
    model: TaskModel, store: MemoryStore, shown: Sequence[Example], k: int
) -> list[list[dict[str, Json]]]:
    """For every example, a prediction taken for its target: the slots that make it up, and what is nearest to each."""
    learner, task = model.pipeline.learner, model.pipeline.task
    result: list[list[dict[str, Json]]] = []
    for begin in range(0, len(shown), CHUNK):
        part = shown[begin : begin + CHUNK]
        batch = task.collate(part, model.labels, learner.encoder.tokenizer, with_targets=True)
        batch = batch.select(_decisive(batch))
        with torch.no_grad(), learner.encoder.as_loaded():
            found = store.search(learner.features(batch), k)
        entries = entries_of(batch, learner.encoder.tokenizer, task.name)
        ends = np.searchsorted(batch.groups.numpy(), np.arange(len(part) + 1))
        for low, high in pairwise(ends):
            slots = zip(entries[low:high], found[low:high], strict=True)
            result.append(
                [
                    {
                        "text": entry.text,
                        "predicted": entry.label,
                        "start": entry.start,
                        "end": entry.end,
                        "neighbours": [_told(n.entry, n.distance, store) for n in near],
                    }
                    for entry, near in slots
                ]
            )
    return result


def _told(entry: Entry, distance: float, store: MemoryStore) -> dict[str, Json]:
    return {
        "id": entry.example,
        "label": entry.label,
        "distance": distance,
        "text": entry.text,
        "place": entry.place,
        "start": entry.start,
        "end": entry.end,
        "example": store.examples.get(entry.example),
    }


def _decisive(batch: SlotBatch) -> torch.Tensor:
    """Slots that have a class; all slots of an item none of whose slots has one."""
    if batch.gold.dim() == 1:
        return torch.ones(batch.n_slots, dtype=torch.bool)
    chosen = batch.gold.sum(dim=1) > 0
    served = torch.zeros(len(batch.items), dtype=torch.bool)
    served[batch.groups[chosen]] = True
    return chosen | ~served[batch.groups]


def fingerprint(encoder: Any) -> str:
    """Of all that keys depend on: the encoder's own and the adapter's weights."""
    parts = [encoder.fingerprint]
    for name, weight in sorted(encoder.adapter.items()):
        data = weight.detach().cpu().contiguous().flatten().view(torch.uint8)
        parts += [name, data.numpy().tobytes().hex()]
    return sha256("\n".join(parts)) if encoder.adapter else str(encoder.fingerprint)
