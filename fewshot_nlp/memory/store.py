"""A memory that outlives its process: keys, labels as text, and where every entry came from.

Entries of several tasks share a store as long as one encoder made their keys. A search tells the nearest entries, so a
prediction can be traced to the examples that decided it. The file is one safetensors file, the entries are JSON in it;
it is written beside the old one and then takes its name, so readers see the old or the new memory, whole. Of two
processes that save, the last one wins; with ``merge=True`` each first takes over what the other has added, under a
lock, and nothing is lost (what one of them had forgotten comes back if the other still holds it).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.memory.entries import Entry, Eviction, Neighbour, evicted
from fewshot_nlp.memory.growing import GrowingRows
from fewshot_nlp.memory.index import Index
from fewshot_nlp.memory.store_file import locked, read_store, write_store
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.settings import check


class MemoryStore:
    """Keys with entries, and once for each example what it was, under its id; grows, forgets, saves and loads.

    Args:
        dimension: length of a key.
        fingerprint: of whatever made the keys (encoder and adapter); stores of two fingerprints never mix.
        capacity: most entries that it holds; None for no bound.
        eviction: which go beyond it: "oldest", "least_used" (by searches; of those the oldest), or "balanced": the
            oldest of the label that has most.
        metric: "euclidean" (squared distance) or "cosine".
        search: "exact" or "faiss".
    """

    def __init__(
        self,
        dimension: int,
        fingerprint: str = "",
        *,
        capacity: int | None = None,
        eviction: Eviction = "oldest",
        metric: Literal["euclidean", "cosine"] = "cosine",
        search: Literal["exact", "faiss"] = "exact",
    ) -> None:
        check("capacity", capacity, Annotated[int, Field(ge=1)] | None)
        check("eviction", eviction, Eviction)
        check("metric", metric, Literal["euclidean", "cosine"])
        check("search", search, Literal["exact", "faiss"])
        self.dimension, self.fingerprint = dimension, fingerprint
        self.capacity, self.eviction = capacity, eviction
        self.metric, self.backend = metric, search
        self._keys = GrowingRows(torch.zeros(0, dimension))
        self.entries: list[Entry] = []
        self.examples: dict[str, Json] = {}
        self.next_number = 0
        self._indices: dict[str | None, tuple[Index, list[int]]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def keys(self) -> Float[Tensor, "n d"]:
        """One row for each entry."""
        return self._keys.rows

    @property
    def bytes(self) -> int:
        """Bytes of the keys."""
        return self.keys.nbytes

    def remember(
        self,
        keys: Float[Tensor, "n d"],
        entries: Sequence[Entry],
        examples: Mapping[str, Json] | None = None,
    ) -> list[int]:
        """Adds entries, evicting others beyond the capacity.

        Args:
            keys: one for each entry.
            entries: their numbers are not looked at.
            examples: id to what the example was, such as its inputs and target; kept as long as an entry names it.

        Returns:
            The numbers that the entries were given.

        Raises:
            FewShotError: keys of another length, not as many as entries, or NaN among them; nothing is added then.
        """
        if keys.dim() != 2 or keys.shape[1] != self.dimension:
            raise FewShotError(
                f"The memory's keys have {self.dimension} features, but the new ones {keys.shape[-1]}; use the encoder "
                "that the memory was made with."
            )
        if len(keys) != len(entries):
            raise FewShotError(f"{len(keys)} keys but {len(entries)} entries; each key needs one.")
        if not torch.isfinite(keys).all():
            raise FewShotError("A key is NaN or infinite; nothing was remembered.")
        numbers = list(range(self.next_number, self.next_number + len(entries)))
        new = keys.detach().cpu()
        if not len(self) or self.keys.dtype != new.dtype:
            self._keys = GrowingRows(torch.cat([self.keys.to(new.dtype), new]))
            self._indices.clear()
        else:
            self._keys.append(new)
        for task, (index, places) in self._indices.items():
            chosen = [i for i, e in enumerate(entries) if task is None or e.task == task]
            index.add(new[chosen])
            places += [len(self.entries) + i for i in chosen]
        self.entries += [replace(e, number=n) for e, n in zip(entries, numbers, strict=True)]
        self.next_number += len(entries)
        self.examples |= examples or {}
        self._evict()
        return numbers

    def forget(
        self,
        *,
        examples: Collection[str] = (),
        texts: Collection[str] = (),
        numbers: Collection[int] = (),
        task: str | None = None,
    ) -> int:
        """Removes the entries of some examples, with some texts, or with some numbers.

        Args:
            examples: ids of examples.
            texts: texts of slots.
            numbers: of entries.
            task: only entries of this task; alone, all of them.

        Returns:
            How many were removed.
        """
        everything = not (examples or texts or numbers)
        if everything and task is None:
            raise FewShotError("Say what to forget: examples, texts, numbers or a task.")

        def stays(e: Entry) -> bool:
            named = everything or e.example in examples or e.text in texts or e.number in numbers
            return not named or (task is not None and e.task != task)

        before = len(self)
        self._keep([i for i, e in enumerate(self.entries) if stays(e)])
        return before - len(self)

    def search(
        self, queries: Float[Tensor, "q d"], k: int, *, task: str | None = None, count_uses: bool = False
    ) -> list[list[Neighbour]]:
        """The k nearest entries of each query, nearest first; fewer where there are fewer.

        Args:
            queries: vectors by the encoder that made the keys.
            k: how many, from 1.
            task: entries of this task only.
            count_uses: count the entries found as used, for eviction.
        """
        if queries.shape[1] != self.dimension or k < 1:
            raise FewShotError(
                f"Queries must have {self.dimension} features and k be at least 1, not {queries.shape[1]} and {k}."
            )
        index, places = self._index(task)
        if index is None:
            return [[] for _ in queries]
        distances, found = index.search(queries.detach().cpu(), k)
        result = [
            [
                Neighbour(self.entries[places[i]], max(d, 0.0))
                for d, i in zip(row, near, strict=True)
                if d < torch.inf
            ]
            for row, near in zip(distances.tolist(), found.tolist(), strict=True)
        ]
        if count_uses:
            reached = found[distances < torch.inf].tolist()  # faiss may find fewer than k
            for i, n in Counter(places[i] for i in reached).items():
                self.entries[i] = replace(self.entries[i], uses=self.entries[i].uses + n)
        return result

    def save(self, path: str | Path, *, merge: bool = False) -> Path:
        """Writes the store to a file, whole or not at all.

        Args:
            path: the file; one that is there is replaced.
            merge: first take over entries that the file has and this store has not.

        Raises:
            FewShotError: the file cannot be written, or merged with (damaged, another encoder); it stays as it was.
        """
        path = user_path(path)
        with locked(path):
            if merge and path.exists():
                self._take_over(MemoryStore.load(path))
            write_store(path, self.keys, self._header())
        return path

    @classmethod
    def load(
        cls, path: str | Path, *, dimension: int | None = None, fingerprint: str | None = None
    ) -> "MemoryStore":
        """Reads what `save` wrote.

        Args:
            path: the file.
            dimension: the feature size that it must have.
            fingerprint: of the encoder that it must have been made with.

        Raises:
            FewShotError: no such file, a damaged or foreign one, other feature size, another encoder.
        """
        keys, header = read_store(user_path(path))
        found, made = header["dimension"], header["fingerprint"]
        if dimension is not None and found != dimension:
            raise FewShotError(
                f"{path} has keys of {found} features, but the encoder gives {dimension}; load the encoder that it was "
                "made with."
            )
        if fingerprint is not None and made != fingerprint:
            raise FewShotError(
                f"{path} was made with an encoder with fingerprint {made[:12]}..., but this one has "
                f"{fingerprint[:12]}...; load that encoder, or remember the examples again."
            )
        options = {n: header[n] for n in ("capacity", "eviction", "metric", "search")}
        store = cls(found, made, **options)
        store._keys, store.next_number = GrowingRows(keys), header["next_number"]
        store.entries = [Entry(**entry) for entry in header["entries"]]
        store.examples = header["examples"]
        return store

    def _header(self) -> dict[str, object]:
        return {
            "dimension": self.dimension,
            "fingerprint": self.fingerprint,
            "capacity": self.capacity,
            "eviction": self.eviction,
            "metric": self.metric,
            "search": self.backend,
            "next_number": self.next_number,
            "entries": [asdict(e) for e in self.entries],
            "examples": self.examples,
        }

    def _take_over(self, other: "MemoryStore") -> None:
        """Entries of another store that this one has not: all that differ in more than number and uses."""
        if (other.dimension, other.fingerprint) != (self.dimension, self.fingerprint):
            raise FewShotError(
                "Two memories can only be merged if one encoder made both, but they have "
                f"{other.dimension} and {self.dimension} features and the fingerprints {other.fingerprint[:12]}... and "
                f"{self.fingerprint[:12]}...."
            )
        known = Counter(replace(e, number=-1, uses=0) for e in self.entries)
        new: list[int] = []
        for i, e in enumerate(other.entries):
            same = replace(e, number=-1, uses=0)
            known[same] -= 1
            if known[same] < 0:
                new.append(i)
        self.remember(other.keys[new], [other.entries[i] for i in new], other.examples)

    def _index(self, task: str | None) -> tuple[Index | None, list[int]]:
        if task not in self._indices:
            places = [i for i, e in enumerate(self.entries) if task is None or e.task == task]
            if not places:
                return None, []
            self._indices[task] = Index(self.keys[places], self.metric, self.backend), places
        return self._indices[task]

    def _keep(self, places: Sequence[int]) -> None:
        self._keys = GrowingRows(self.keys[list(places)])
        self.entries = [self.entries[i] for i in places]
        named = {e.example for e in self.entries}
        self.examples = {name: value for name, value in self.examples.items() if name in named}
        self._indices.clear()

    def _evict(self) -> None:
        over = 0 if self.capacity is None else len(self) - self.capacity
        if over <= 0:
            return
        gone = evicted(self.entries, over, self.eviction)
        self._keep([i for i in range(len(self)) if i not in gone])
