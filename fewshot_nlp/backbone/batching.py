"""Chunks of windows for one forward pass: packed (real tokens only) or padded.

Packing concatenates the windows of a chunk into a single row, so that embeddings, linear layers
and norms see no padding; attention runs over windows of equal length at once, without a mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PACKED = "fewshot_nlp_packed"
"""Name under which packed attention is registered with transformers."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive windows of equal length in a packed row."""

    count: int
    length: int

    @property
    def tokens(self) -> int:
        """Number of tokens in the run."""
        return self.count * self.length


def chunks(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Window indices sorted by length, in chunks of at most ``token_budget`` tokens (at least one window)."""
    chunk: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunk and tokens + lengths[index] > token_budget:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(index)
        tokens += lengths[index]
    if chunk:
        yield chunk


def runs(lengths: Sequence[int]) -> list[Run]:
    """Runs of equal lengths in a sequence of window lengths."""
    return [Run(len(list(windows)), length) for length, windows in groupby(lengths)]


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, dropout: float
) -> Tensor:
    """Attention in plain tensor operations, which has a second derivative."""
    logits = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return F.dropout(logits.softmax(-1), dropout, training=dropout > 0) @ v


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, dropout: float
) -> Tensor:
    """Torch's fused attention; on a CPU with gradients in float32, since its bfloat16 backward pass is slow there."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
    with torch.autocast("cpu", enabled=False):
        parts = q.float(), k.float(), v.float()
        return F.scaled_dot_product_attention(*parts, mask, dropout, scale=scale).to(q.dtype)


def packed_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "1 heads n_tokens head_dim"],
    key: Float[Tensor, "1 heads n_tokens head_dim"],
    value: Float[Tensor, "1 heads n_tokens head_dim"],
    attention_mask: None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packing: Sequence[Run] = (),
    double_backward: bool = False,
    **_: Any,
) -> tuple[Float[Tensor, "1 n_tokens heads head_dim"], None]:
    """Attention within each window of a packed row, with the signature that transformers expects."""
    heads, dim = query.shape[1], query.shape[3]
    scale = dim**-0.5 if scaling is None else scaling
    sizes = [run.tokens for run in packing]
    outputs = []
    # One split instead of a slice for each run: the gradient of a slice is as long as the whole row.
    for run, *parts in zip(packing, *(torch.split(x[0], sizes, 1) for x in (query, key, value)), strict=True):
        q, k, v = (x.reshape(heads, run.count, run.length, dim).transpose(0, 1) for x in parts)
        mask = None
        if sliding_window is not None and run.length > sliding_window:
            place = torch.arange(run.length, device=q.device)
            mask = (place[:, None] - place[None, :]).abs() < sliding_window
        if double_backward:
            out = plain_attention(q, k, v, scale, mask, dropout)
        else:
            out = fused_attention(q, k, v, scale, mask, dropout)
        outputs.append(out.transpose(1, 2).reshape(run.tokens, heads, dim))
    return torch.cat(outputs)[None], None


def register_packed_attention() -> None:
    """Registers packed attention with transformers; idempotent."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *args, **kwargs: None)


def flat_tokens(rows: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, " n_tokens"]:
    """All rows, concatenated."""
    return torch.tensor([token for row in rows for token in row], dtype=torch.long, device=device)


def positions(lengths: Sequence[int], first: int, device: torch.device) -> Int[Tensor, " n_tokens"]:
    """Position ids of a packed row: each window counts from ``first``."""
    return torch.cat([torch.arange(first, first + n, device=device) for n in lengths])


def padded_tokens(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> Int[Tensor, "n_rows longest"]:
    """Rows padded to the longest with ``pad``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
