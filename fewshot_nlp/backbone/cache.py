"""Features of frozen encoders, kept by text, so that an example met again costs no forward pass."""

from collections import OrderedDict

from torch import Tensor


class FeatureCache:
    """Least-recently-used cache with a bound in bytes.

    Args:
        max_bytes: bound on the bytes of all kept tensors; the least recently used are dropped first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._items: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """The tensor kept under ``key``, or None."""
        value = self._items.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._items.move_to_end(key)
        return value

    def put(self, key: bytes, value: Tensor) -> None:
        """Keeps a copy of a tensor, dropping others when the bound is passed."""
        if key in self._items:
            return
        self._items[key] = value.detach().clone()
        self.bytes += value.nbytes
        while self.bytes > self.max_bytes and self._items:
            _, dropped = self._items.popitem(last=False)
            self.bytes -= dropped.nbytes

    def clear(self) -> None:
        """Forgets everything."""
        self._items.clear()
        self.bytes = 0
