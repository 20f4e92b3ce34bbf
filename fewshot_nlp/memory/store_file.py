"""The file of a memory, a safetensors file: keys, and JSON with the entries as bytes; read with suspicion.

The JSON is no metadata of the safetensors header, which may not grow beyond 100 MB.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import atomic_write, first_line, write_tensors

FORMAT = 1
HEADER = "fewshot_nlp.memory"
_FORM: dict[str, Any] = {
    "dimension": int,
    "fingerprint": str,
    "capacity": int | None,
    "eviction": str,
    "metric": str,
    "search": str,
    "next_number": int,
    "entries": list,
    "examples": dict,
}
_ENTRY = {
    "label": str,
    "example": str,
    "text": str,
    "place": int,
    "start": int,
    "end": int,
    "task": str,
    "number": int,
    "uses": int,
}


def write_store(path: Path, keys: Float[Tensor, "n d"], header: Mapping[str, Any]) -> None:
    """Writes a memory beside ``path``, then gives it that name.

    Raises:
        FewShotError: it cannot be written; what was there stays.
    """
    text = np.frombuffer(json.dumps({"format": FORMAT, **header}).encode(), np.uint8).copy()
    with atomic_write(path) as part:
        write_tensors({"keys": keys.contiguous(), HEADER: torch.from_numpy(text)}, part)


def read_store(path: Path) -> tuple[Float[Tensor, "n d"], dict[str, Any]]:
    """Keys and header of a memory, which must fit each other.

    Raises:
        FewShotError: no such file, a foreign or damaged one, or one of a later format.
    """
    if not path.is_file():
        raise FewShotError(f"There is no memory at {path}.")
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            if names != {"keys", HEADER}:
                raise FewShotError(f"{path} is no memory of this package: it has no {HEADER}.")
            header: dict[str, Any] = json.loads(file.get_tensor(HEADER).numpy().tobytes())
            keys: Tensor = file.get_tensor("keys")
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, first_line(error)) from error
    _check(path, header, keys)
    return keys, header


def _check(path: Path, header: Any, keys: Tensor) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        number = header.get("format") if isinstance(header, dict) else None
        raise FewShotError(
            f"{path} has format {number}, this version reads format {FORMAT}; load it with the version that wrote it."
        )
    wrong = next((n for n, kind in _FORM.items() if n not in header or not isinstance(header[n], kind)), None)
    if wrong is not None:
        raise _damaged(path, f"{wrong} is missing or of a wrong type")
    for number, entry in enumerate(header["entries"]):
        if not isinstance(entry, dict) or {n: type(v) for n, v in entry.items()} != _ENTRY:
            raise _damaged(path, f"entry {number} does not have the fields {', '.join(_ENTRY)}")
    expected = [len(header["entries"]), header["dimension"]]
    if list(keys.shape) != expected:
        raise _damaged(path, f"its keys have the shape {list(keys.shape)}, its entries need {expected}")


def _damaged(path: Path, reason: str) -> FewShotError:
    return FewShotError(
        f"{path} is damaged ({reason}); nothing was loaded: take a copy, or remember the examples again."
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds ``<path>.lock`` in the block; another process that wants it waits. A process that ends lets go of it."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except OSError as error:
        raise FewShotError(f"{path} cannot be written: {error.strerror}; name another file.") from error
    with held:
        yield
