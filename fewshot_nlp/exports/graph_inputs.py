"""Inputs of an exported graph, from the slots of texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def graph_inputs(
    windows: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None,
    spans: np.ndarray,
    groups: np.ndarray,
    mode: str,
    pad: int,
    word_shape: np.ndarray | None = None,
    labelled: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Inputs by name.

    Args:
        windows: token ids of each window.
        types: token type ids, or None.
        spans: rows (slot, window, first token, token after the last).
        groups: for each slot the number of its text.
        mode: how tokens of a slot become one vector: "mean", "first", "sqrt_mean" or "weighted_mean".
        pad: the token that fills windows.
        word_shape: surface features of words, [n_slots, 14].
        labelled: slots whose tokens the support set labels.
    """
    longest = max(map(len, windows))

    def padded(rows: Any, fill: int) -> np.ndarray:
        return np.array([[*row, *[fill] * (longest - len(row))] for row in rows], np.int64)

    slots, window, first, last = spans.T
    size = spans[:, 3] - spans[:, 2]
    last = first + 1 if mode == "first" else last
    count = last - first
    place = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    of = np.repeat(np.arange(len(count)), count)
    share = {
        "mean": np.ones(len(of)),
        "first": size[of],
        "sqrt_mean": np.sqrt(size[of]),
        "weighted_mean": 2 * (place + 1) / (size[of] + 1),
    }[mode]
    given = {
        "input_ids": padded(windows, pad),
        "attention_mask": padded([[1] * len(w) for w in windows], 0),
        **({} if types is None else {"token_type_ids": padded(types, 0)}),
        "token": window[of] * longest + first[of] + place,
        "slot": slots[of],
        "weight": share.astype(np.float32),
        "part": (size[of] / count[of]).astype(np.float32),
        "example": groups.astype(np.int64),
    }
    if word_shape is not None:
        given["word_shape"] = word_shape.astype(np.float32)
    if labelled is not None:
        given["labelled"] = labelled
    return given
