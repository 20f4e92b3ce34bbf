"""A matrix that rows are appended to, at a cost of their number alone."""

import torch
from jaxtyping import Float
from torch import Tensor


class GrowingRows:
    """Rows in a buffer that doubles when it is full, so that appending n rows one by one copies O(n).

    Args:
        rows: shape [n, d], or [n]; taken as they are, not copied before the first append.
    """

    def __init__(self, rows: Float[Tensor, "n ..."]) -> None:
        self._buffer, self._count = rows, len(rows)

    @property
    def rows(self) -> Float[Tensor, "n ..."]:
        """All rows, a view; later appends do not change it."""
        return self._buffer[: self._count]

    def append(self, more: Float[Tensor, "m ..."]) -> None:
        """Adds rows at the end."""
        total = self._count + len(more)
        if total > len(self._buffer):
            buffer = torch.empty(
                max(total, 2 * self._count), *self._buffer.shape[1:], dtype=self._buffer.dtype
            )
            buffer[: self._count] = self._buffer[: self._count]
            self._buffer = buffer
        self._buffer[self._count : total] = more
        self._count = total
