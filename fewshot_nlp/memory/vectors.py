"""A memory that an engine holds instead of this process: LanceDB, in a folder or in an object store.

It remembers, forgets and searches as `MemoryStore` does. Keys and entries lie in a table of the engine, so that memory
grows beyond one process or machine, and several processes share it. LanceDB keeps Arrow files; nothing is pickled.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.memory.entries import Entry, Neighbour
from fewshot_nlp.persistence.disk import first_line
from fewshot_nlp.settings import check

SLOTS, EXAMPLES = "slots", "examples"
_FIELDS = tuple(field.name for field in fields(Entry) if field.name != "uses")
_ENGINE = {"cosine": "cosine", "euclidean": "l2"}
"""LanceDB's names of the metrics; its "l2" is squared as well."""


class VectorStore:
    """Keys with entries in LanceDB; what is remembered is on the disk at once.

    Args:
        place: a folder, or a URI that LanceDB knows, such as ``s3://bucket/memory``; it is made where there is none.
        dimension: length of a key.
        fingerprint: of whatever made the keys; a table of another one is refused.
        metric: "euclidean" (squared distance) or "cosine".

    Raises:
        FewShotError: LanceDB is not installed, the place cannot be read, or its table was made otherwise.
    """

    def __init__(
        self,
        place: str | Path,
        dimension: int,
        fingerprint: str = "",
        *,
        metric: Literal["euclidean", "cosine"] = "cosine",
    ) -> None:
        check("metric", metric, Literal["euclidean", "cosine"])
        self.dimension, self.fingerprint, self.metric = dimension, fingerprint, metric
        about = {"dimension": str(dimension), "fingerprint": fingerprint, "metric": metric}
        self._slots, self._examples = _tables(str(place), dimension, about)
        found = {k.decode(): v.decode() for k, v in (self._slots.schema.metadata or {}).items()}
        for name, value in about.items():
            if found.get(name) != value:
                raise FewShotError(
                    f"The memory at {place} was made with {name} {found.get(name, 'none')[:24]!r}, but {value[:24]!r} "
                    "is given; load the encoder that it was made with, or name another place."
                )
        self._last_number = 0

    def __len__(self) -> int:
        return int(self._slots.count_rows())

    def remember(
        self,
        keys: Float[Tensor, "n d"],
        entries: Sequence[Entry],
        examples: Mapping[str, Json] | None = None,
    ) -> list[int]:
        """Adds entries; arguments, result and errors as for `MemoryStore.remember`.

        Numbers are nanoseconds since 1970, so that those of several processes differ and a later one is greater.
        """
        import pyarrow as pa

        if keys.dim() != 2 or keys.shape[1] != self.dimension or len(keys) != len(entries):
            raise FewShotError(
                f"The memory takes one key of {self.dimension} features for each of {len(entries)} entries, not "
                f"{list(keys.shape)}."
            )
        if not torch.isfinite(keys).all():
            raise FewShotError("A key is NaN or infinite; nothing was remembered.")
        if not entries:
            return []
        first = max(time.time_ns(), self._last_number + 1)
        numbers = list(range(first, first + len(entries)))
        self._last_number = numbers[-1]
        rows = [asdict(entry) | {"number": number} for entry, number in zip(entries, numbers, strict=True)]
        flat = pa.array(keys.detach().cpu().float().contiguous().numpy().ravel())
        columns = {"key": pa.FixedSizeListArray.from_arrays(flat, self.dimension)}
        columns |= {name: [row[name] for row in rows] for name in _FIELDS}
        if examples:
            known = {"id": list(examples), "json": [json.dumps(value) for value in examples.values()]}
            update = self._examples.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            update.execute(pa.table(known, schema=self._examples.schema))
        self._slots.add(pa.table(columns, schema=self._slots.schema))
        return numbers

    def forget(
        self,
        *,
        examples: Collection[str] = (),
        texts: Collection[str] = (),
        numbers: Collection[int] = (),
        task: str | None = None,
    ) -> int:
        """Removes entries, and examples that no entry names any more; arguments as for `MemoryStore.forget`."""
        named = [
            _one_of(column, values)
            for column, values in (("example", examples), ("text", texts), ("number", numbers))
            if values
        ]
        if not named and task is None:
            raise FewShotError("Say what to forget: examples, texts, numbers or a task.")
        condition = f"({' OR '.join(named)})" if named else "true"
        if task is not None:
            condition += f" AND {_one_of('task', [task])}"
        touched = self._slots.search().where(condition).select(["example"]).limit(None).to_arrow()
        removed = int(self._slots.delete(condition).num_deleted_rows)
        for name in set(touched["example"].to_pylist()):
            if not self._slots.count_rows(_one_of("example", [name])):
                self._examples.delete(_one_of("id", [name]))
        return removed

    def search(
        self,
        queries: Float[Tensor, "q d"],
        k: int,
        *,
        task: str | None = None,
        cells: int | None = None,
    ) -> list[list[Neighbour]]:
        """The k nearest entries of each query, nearest first; fewer where there are fewer.

        Args:
            queries: vectors by the encoder that made the keys.
            k: how many, from 1.
            task: entries of this task only.
            cells: of `index`, looked at for a query; None searches all keys.
        """
        if queries.dim() != 2 or queries.shape[1] != self.dimension or k < 1:
            raise FewShotError(
                f"Queries must have {self.dimension} features and k be at least 1, not {list(queries.shape)} and {k}."
            )
        result: list[list[Neighbour]] = []
        for vector in queries.detach().cpu().float().numpy():
            asked = self._slots.search(vector).distance_type(_ENGINE[self.metric]).limit(k)
            asked = asked.bypass_vector_index() if cells is None else asked.nprobes(cells)
            if task is not None:
                asked = asked.where(_one_of("task", [task]), prefilter=True)
            rows = asked.select([*_FIELDS, "_distance"]).to_arrow().to_pylist()
            result.append(
                [
                    Neighbour(Entry(**row), max(distance, 0.0))
                    for row in rows
                    for distance in [row.pop("_distance")]
                ]
            )
        return result

    def index(self, cells: int | None = None) -> None:
        """Divides the keys into cells (an inverted file), which `search` may look at in part; keys added later join in.

        Args:
            cells: how many; None for the root of the number of keys.
        """
        self._slots.create_index(
            metric=_ENGINE[self.metric],
            vector_column_name="key",
            index_type="IVF_FLAT",
            num_partitions=cells or max(1, round(len(self) ** 0.5)),
            replace=True,
        )

    def example(self, name: str) -> Json:
        """What an example was, by its id; None for an id that is not known."""
        found = self._examples.search().where(_one_of("id", [name])).limit(1).to_arrow()["json"].to_pylist()
        result: Json = json.loads(found[0]) if found else None
        return result


def _tables(place: str, dimension: int, about: Mapping[str, str]) -> tuple[Any, Any]:
    """The tables of slots and of examples, made where there are none."""
    try:
        import lancedb
        import pyarrow as pa
    except ImportError as error:
        raise FewShotError("A VectorStore needs LanceDB: pip install 'fewshot-nlp[vectors]'.") from error
    whole = ("place", "start", "end", "number")
    columns = [pa.field("key", pa.list_(pa.float32(), dimension))]
    columns += [pa.field(name, pa.int64() if name in whole else pa.string()) for name in _FIELDS]
    schemas = {
        SLOTS: pa.schema(columns, metadata=dict(about)),
        EXAMPLES: pa.schema([pa.field("id", pa.string()), pa.field("json", pa.string())]),
    }
    try:
        database = lancedb.connect(place)
        slots, examples = (_table(database, name, schema) for name, schema in schemas.items())
    except (OSError, ValueError, RuntimeError) as error:
        raise FewShotError(f"The memory at {place} cannot be opened: {first_line(error)[:150]}.") from error
    return slots, examples


def _table(database: Any, name: str, schema: Any) -> Any:
    try:
        return database.open_table(name)
    except (FileNotFoundError, ValueError):  # there is none
        return database.create_table(name, schema=schema, exist_ok=True)


def _one_of(column: str, values: Collection[str | int]) -> str:
    """An SQL condition; texts are quoted."""
    literals = [str(v) if isinstance(v, int) else "'" + v.replace("'", "''") + "'" for v in values]
    return f"{column} IN ({', '.join(literals)})"
