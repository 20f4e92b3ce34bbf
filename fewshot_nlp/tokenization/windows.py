"""Tokenising texts of any length: what does not fit the encoder's window becomes overlapping windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.locks import shared_lock
from fewshot_nlp.rows import ItemError


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Tokenised texts.

    Args:
        ids: token ids of each window, special tokens included.
        types: token type ids of each window, or None where the encoder has none.
        owner: which text each window belongs to; ascending.
        encodings: the tokenizer's own record of each window (offsets, word ids, sequence ids).
        stride: tokens that neighbouring windows of a text share.
    """

    ids: list[list[int]]
    types: list[list[int]] | None
    owner: Int[np.ndarray, " n_windows"]
    encodings: Sequence[Any]
    stride: int


class WindowTokenizer:
    """A fast Hugging Face tokenizer that never truncates. Safe to call from several threads.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        max_length: tokens in a window, special tokens included.
        stride: tokens that neighbouring windows share; default a quarter of the window.
    """

    def __init__(self, tokenizer: Any, max_length: int, stride: int | None = None) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise FewShotError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, so words cannot be aligned with tokens; "
                "choose an encoder that has a tokenizer.json."
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.stride = max_length // 4 if stride is None else stride
        if max_length < 8 or not 0 <= self.stride <= max_length // 2:
            raise FewShotError(
                f"max_length {max_length} must be at least 8, and stride {self.stride} between 0 and half of it."
            )
        unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
        self.nothing = [unknown or 0]  # for a text that the tokenizer leaves nothing of
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        self._lock = shared_lock()

    def texts(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Windows:
        """Windows of texts, or of pairs of texts: the first text whole in each window, the second divided.

        Raises:
            ItemError: when a first text of a pair takes more than half of the window.
        """
        if pairs is None or not texts:
            return self._windows(list(texts), None)
        with self._lock:
            lengths = [len(e.ids) for e in self._encode(list(texts), None, None).encodings]
        longest = max(range(len(lengths)), key=lengths.__getitem__, default=None)
        if longest is not None and lengths[longest] > self.max_length // 2:
            raise ItemError(
                longest,
                f"the first text of the pair has {lengths[longest]} tokens, but it must fit half of the window of "
                f"{self.max_length}; shorten it, or give the other text first where the order is free. "
                f"It begins: {texts[longest][:40]!r}.",
            )
        return self._windows(list(texts), list(pairs))

    def words(self, words: Sequence[Sequence[str]]) -> Windows:
        """Windows of texts that are lists of words: the tokens of the words joined by single blanks."""
        return self.texts([" ".join(w) for w in words])

    def _encode(self, first: list[str], second: list[str] | None, length: int | None) -> Any:
        cut: dict[str, Any] = {}
        if length is not None:
            cut = {
                "truncation": "only_second" if second is not None else True,
                "max_length": length,
                "stride": self.stride,
                "return_overflowing_tokens": True,
            }
        return self.tokenizer(first, second, return_attention_mask=False, verbose=False, **cut)

    def _windows(self, first: list[str], second: list[str] | None) -> Windows:
        if not first:
            return Windows([], [] if self.has_types else None, np.zeros(0, int), [], self.stride)
        with self._lock:
            encoded = self._encode(first, second, self.max_length)
        ids = [row or self.nothing for row in encoded["input_ids"]]
        types = encoded["token_type_ids"] if self.has_types and second is not None else None
        return Windows(
            ids, types, np.asarray(encoded["overflow_to_sample_mapping"]), encoded.encodings, self.stride
        )


def unit_spans(
    windows: Windows, units: Int[np.ndarray, " n_tokens"], slots: Int[np.ndarray, " n_tokens"]
) -> Int[np.ndarray, "n_spans 4"]:
    """Tokens of every unit of text, from the window in which the unit has most text on both sides.

    Args:
        windows: the windows.
        units: for each token of all windows, one after the other, the number of the unit that it is part of, -1
            for tokens that belong to none (special tokens, a question); of a unit in several windows one is taken.
        slots: for each token the slot of its unit.

    Returns:
        Rows (slot, window, first token, token after the last), sorted by window and place.
    """
    lengths = np.array([len(row) for row in windows.ids], int)
    window = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(units)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    new = np.ones(len(units), bool)
    new[1:] = (units[1:] != units[:-1]) | (window[1:] != window[:-1])
    start = np.flatnonzero(new)
    end = np.append(start[1:], len(units))
    real = units[start] >= 0
    start, end = start[real], end[real]
    slot, owner, left, right = slots[start], window[start], place[start], place[end - 1] + 1
    first, last = np.full(len(lengths), np.iinfo(int).max), np.zeros(len(lengths), int)
    np.minimum.at(first, owner, left)
    np.maximum.at(last, owner, right)
    margin = np.minimum(left - first[owner], last[owner] - right)
    order = np.lexsort((-margin, slot))
    keep = order[np.append(True, np.diff(slot[order]) > 0)] if len(order) else order
    spans = np.stack([slot, owner, left, right], axis=1)[keep]
    result: np.ndarray = spans[np.lexsort((spans[:, 2], spans[:, 1]))]
    return result
