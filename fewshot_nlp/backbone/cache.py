"""What frozen layers give, kept by text, so that an example met again costs no pass through them."""

from collections import OrderedDict

from torch import Tensor

from fewshot_nlp.backbone.spill import Spill


class FeatureCache:
    """Least-recently-used cache with a bound in bytes.

    Args:
        max_bytes: bound on the bytes of all tensors in memory; the least recently used are dropped first.
        spill: keeps on disk what was put, also when it is dropped from memory; may be set later.
    """

    def __init__(self, max_bytes: int, spill: Spill | None = None) -> None:
        self.max_bytes = max_bytes
        self.spill = spill
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._items: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """The tensor kept under ``key``, or None."""
        value = self._items.get(key)
        if value is None and self.spill is not None:
            value = self.spill.get(key)
            if value is not None:
                self._keep(key, value)
        elif value is not None:
            self._items.move_to_end(key)
        self.hits += value is not None
        self.misses += value is None
        return value

    def put(self, key: bytes, value: Tensor) -> None:
        """Keeps a copy of a tensor, dropping others when the bound is passed."""
        if key in self._items:
            return
        self._keep(key, value.detach().clone())
        if self.spill is not None:
            self.spill.put(key, value)

    def clear(self) -> None:
        """Forgets everything."""
        self._items.clear()
        self.bytes = 0

    def _keep(self, key: bytes, value: Tensor) -> None:
        self._items[key] = value
        self.bytes += value.nbytes
        while self.bytes > self.max_bytes and self._items:
            _, dropped = self._items.popitem(last=False)
            self.bytes -= dropped.nbytes
