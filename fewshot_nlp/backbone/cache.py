"""Cache of frozen layers' output by text, so that repeated examples cost no further pass."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.slots import SlotBatch


class FeatureCache:
    """Least-recently-used cache with a bound in bytes.

    Args:
        max_bytes: bound on the bytes of all tensors; the least recently used are dropped first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._items: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """The tensor stored under ``key``, or None."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        self.hits += value is not None
        self.misses += value is None
        return value

    def put(self, key: bytes, value: Tensor) -> None:
        """Stores a copy of a tensor; drops others beyond the bound."""
        if key in self._items:
            return
        self._items[key] = kept = value.detach().clone()
        self.bytes += kept.nbytes
        while self.bytes > self.max_bytes and self._items:
            _, dropped = self._items.popitem(last=False)
            self.bytes -= dropped.nbytes

    def clear(self) -> None:
        """Drops all tensors."""
        self._items.clear()
        self.bytes = 0


def spans_by_cache(
    cache: FeatureCache, batch: SlotBatch, read: Callable[[list[int]], Tensor]
) -> Float[Tensor, "n_spans d"]:
    """Pooled vectors of a batch's spans, from the cache; those of missing windows are computed by ``read``.

    Args:
        cache: stores the computed vectors.
        batch: windows and spans.
        read: computes the vectors of the spans of some windows, in the order of the spans.
    """
    keys = window_keys(batch)
    found = [cache.get(key) for key in keys]
    missing = [i for i, value in enumerate(found) if value is None]
    if missing:
        counts = np.bincount(batch.spans[:, 1], minlength=len(keys))[missing].tolist()
        for i, value in zip(missing, torch.split(read(missing), counts), strict=True):
            found[i] = value
            cache.put(keys[i], value)
    return torch.cat([value for value in found if value is not None])


def weight_versions(model: nn.Module) -> list[tuple[Any, ...]]:
    """What changes with any change of a model's weights: where they lie, and torch's count of changes in place."""
    return [(p.data_ptr(), p.device, 0 if p.is_inference() else p._version) for p in model.parameters()]


def window_keys(batch: SlotBatch) -> list[bytes]:
    """Cache key of every window of a batch: its tokens, its spans, and their pooling."""
    per_window: list[list[int]] = [[] for _ in batch.windows]
    for row in batch.spans.tolist():
        per_window[row[1]] += row[2:]
    types = batch.types or [()] * len(batch.windows)
    return [
        np.array([len(w), len(t), *w, *t, *s], np.int32).tobytes() + batch.pooling.encode()
        for w, t, s in zip(batch.windows, types, per_window, strict=True)
    ]
