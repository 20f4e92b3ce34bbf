"""Pooling of tokens to spans and of spans to slots."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_nlp.slots import Features, SlotBatch


def chunk_spans(
    batch: SlotBatch, windows: Sequence[int]
) -> tuple[Int[np.ndarray, "n_spans 2"], Int[np.ndarray, " n_spans"]]:
    """The spans of some windows, with token positions in their concatenation, and the spans' indices."""
    first_span = np.searchsorted(batch.spans[:, 1], np.arange(len(batch.windows) + 1))
    chosen = [np.arange(first_span[i], first_span[i + 1]) for i in windows]
    lengths = np.array([len(batch.windows[i]) for i in windows], int)
    offsets = np.repeat(np.cumsum(lengths) - lengths, [len(c) for c in chosen])
    order = np.concatenate(chosen)
    return batch.spans[order, 2:] + offsets[:, None], order


def pool_spans(
    hidden: Float[Tensor, "n_tokens d"], spans: Int[np.ndarray, "n_spans 2"], mode: str
) -> Float[Tensor, "n_spans d"]:
    """One vector a span: that of its first token, or the mean."""
    start = torch.from_numpy(spans[:, 0]).to(hidden.device)
    if mode == "first":
        return hidden[start]
    lengths = spans[:, 1] - spans[:, 0]
    ends = np.cumsum(lengths)
    token = np.arange(ends[-1] if len(ends) else 0) + np.repeat(spans[:, 0] - (ends - lengths), lengths)
    owner = torch.from_numpy(np.repeat(np.arange(len(spans)), lengths)).to(hidden.device)
    total = torch.zeros(len(spans), hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
    total = total.index_add(0, owner, hidden[torch.from_numpy(token).to(hidden.device)])
    return total / torch.from_numpy(lengths).to(hidden)[:, None]


def join_spans(vectors: Float[Tensor, "n_spans d"], batch: SlotBatch) -> Features:
    """One vector a slot: the mean of its spans, weighted by their numbers of tokens."""
    slots = batch.spans[:, 0]
    if len(slots) == batch.n_slots and (slots == np.arange(len(slots))).all():
        return vectors
    weight = torch.from_numpy((batch.spans[:, 3] - batch.spans[:, 2]).astype(np.float32)).to(vectors)
    slot = torch.from_numpy(slots).to(vectors.device)
    total = torch.zeros(batch.n_slots, vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    total = total.index_add(0, slot, vectors * weight[:, None])
    mass = torch.zeros(batch.n_slots, dtype=vectors.dtype, device=vectors.device).index_add(0, slot, weight)
    return total / mass[:, None]
