"""Pooling of tokens to spans and of spans to slots."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.slots import Features, SlotBatch

TextPooling = Literal["mean", "first", "max", "sqrt_mean", "weighted_mean"]
"""How a whole text becomes one vector; see `pool_spans`."""


def check_pooling(pooling: TextPooling) -> TextPooling:
    """The mode, if there is one of that name."""
    if pooling not in get_args(TextPooling):
        raise FewShotError(f"pooling is {pooling!r}, but must be one of: {', '.join(get_args(TextPooling))}.")
    return pooling


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
    """One vector a span of tokens h_1 to h_n.

    Args:
        hidden: of all tokens.
        spans: first token, and token after the last; not empty.
        mode: "first" gives the first token's vector, "max" the largest value of each feature, "mean" the sum by n,
            "sqrt_mean" the sum by sqrt(n), and "weighted_mean" the sum of i h_i by the sum of i (SGPT, Muennighoff
            2022, eq. 2).
    """
    if mode == "first":
        return hidden[torch.from_numpy(spans[:, 0]).to(hidden.device)]
    lengths = spans[:, 1] - spans[:, 0]
    ends = np.cumsum(lengths)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    token = torch.from_numpy(place + np.repeat(spans[:, 0], lengths)).to(hidden.device)
    values, mass = hidden[token], lengths
    if mode == "max" and len(spans):
        return torch.stack([part.amax(dim=0) for part in torch.split(values, lengths.tolist())])
    if mode == "weighted_mean":
        values, mass = values * torch.from_numpy(place + 1).to(hidden)[:, None], lengths * (lengths + 1) / 2
    elif mode == "sqrt_mean":
        mass = np.sqrt(lengths)
    owner = torch.from_numpy(np.repeat(np.arange(len(spans)), lengths)).to(hidden.device)
    total = torch.zeros(len(spans), hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
    return total.index_add(0, owner, values) / torch.from_numpy(mass).to(hidden)[:, None]


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
