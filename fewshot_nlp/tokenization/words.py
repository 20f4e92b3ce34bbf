"""Words as slots: the tokens of every word of some texts, and those of further texts that are slots as a whole."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from fewshot_nlp.tokenization.windows import Windows, WindowTokenizer, unit_spans


class WordSlots(NamedTuple):
    """Fields of a `SlotBatch` whose slots are words.

    Args:
        windows: token ids of each window.
        spans: rows (slot, window, first token, token after the last).
        groups: for each slot the number of its text.
    """

    windows: list[list[int]]
    spans: Int[np.ndarray, "n_spans 4"]
    groups: Int[np.ndarray, " n_slots"]


def word_slots(
    tokenizer: WindowTokenizer, words: Sequence[Sequence[str]], texts: Sequence[str] = ()
) -> WordSlots:
    """One slot for each word, then one for each further text.

    Args:
        tokenizer: the encoder's.
        words: texts as lists of words.
        texts: such as descriptions of labels; the slot is all of a text's tokens but the special ones.
    """
    n_words = np.array([len(w) for w in words], np.int64)
    cut = tokenizer.words(words)
    windows, spans = list(cut.ids), _word_spans(cut, n_words)
    groups = np.repeat(np.arange(len(words)), n_words)
    if texts:
        more = tokenizer.texts(texts)
        owner = more.owner + len(groups)
        inner = [
            (owner[w], len(windows) + w, t, t + 1)
            for w, row in enumerate(more.ids)
            for t in range(1, len(row) - 1) or [0]  # a text that the tokenizer reads nothing of
        ]
        spans = np.concatenate([spans, np.array(inner, np.int64).reshape(-1, 4)])
        groups = np.concatenate([groups, np.arange(len(texts)) + len(words)])
        windows += more.ids
    return WordSlots(windows, spans, groups)


def _word_spans(windows: Windows, n_words: Int[np.ndarray, " n_items"]) -> Int[np.ndarray, "n_spans 4"]:
    """Tokens of every word, as `unit_spans` chooses them.

    A word of which the tokenizer leaves nothing (a lone control character) takes its window's first token.
    """
    lengths = np.array([len(row) for row in windows.ids], int)
    words = np.array([-1 if w is None else w for e in windows.encodings for w in e.word_ids], int)
    first_slot = (np.cumsum(n_words) - n_words)[windows.owner]
    spans = unit_spans(windows, words, np.repeat(first_slot, lengths) + words)
    missing = np.setdiff1d(np.arange(sum(n_words)), spans[:, 0])
    if len(missing):
        owner = np.repeat(np.arange(len(n_words)), n_words)[missing]
        at = np.searchsorted(windows.owner, owner)
        spans = np.concatenate([spans, np.stack([missing, at, np.zeros_like(at), np.ones_like(at)], axis=1)])
    return spans[np.lexsort((spans[:, 2], spans[:, 1]))]
