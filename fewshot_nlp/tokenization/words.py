"""Words as slots: the tokens of every word of some texts, and those of further texts that are slots as a whole."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from fewshot_nlp.tokenization.segmentation import sentences
from fewshot_nlp.tokenization.windows import Windows, WindowTokenizer

LONG = 60
"""Words of a text up to which it is read as a whole."""


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


def place_words(words: Sequence[str], text: str | None = None) -> tuple[str, list[tuple[int, int]]]:
    """A text and the characters of each of its words (first, and after the last).

    Args:
        words: in their order.
        text: that they stand in; None where they are given alone, and then joined by single blanks.
    """
    whole = " ".join(words) if text is None else text
    offsets, end = [], 0
    for word in words:
        start = whole.index(word, end)
        end = start + len(word)
        offsets.append((start, end))
    return whole, offsets


def word_slots(
    tokenizer: WindowTokenizer,
    words: Sequence[tuple[str, Sequence[tuple[int, int]]]],
    texts: Sequence[str] = (),
) -> WordSlots:
    """One slot for each word, then one for each further text.

    The tokens are those of the plain text; a token that reads two words is of both. Of a text of over `LONG` words
    every sentence has windows of its own: in a long window words are read less well.

    Args:
        tokenizer: the encoder's.
        words: texts and their words, as `place_words` gives them.
        texts: such as descriptions of labels; the slot is all of a text's tokens but the special ones.
    """
    parts = [part for text, offsets in words for part in by_sentence(text, offsets)]
    cut = tokenizer.texts([text for text, _ in parts])
    windows, spans = list(cut.ids), stretch_spans(cut, [offsets for _, offsets in parts])
    groups = np.repeat(np.arange(len(words)), np.array([len(offsets) for _, offsets in words], int))
    if texts:
        more = tokenizer.texts(texts)
        owner = more.owner + len(groups)
        inner = [
            (owner[w], len(windows) + w, t, t + 1)
            for w, encoding in enumerate(more.encodings)
            for t in np.flatnonzero(np.array(encoding.special_tokens_mask) == 0).tolist()
            or [0]  # a text of which the tokenizer leaves nothing
        ]
        spans = np.concatenate([spans, np.array(inner, np.int64).reshape(-1, 4)])
        groups = np.concatenate([groups, np.arange(len(texts)) + len(words)])
        windows += more.ids
    return WordSlots(windows, spans, groups)


def by_sentence(text: str, words: Sequence[tuple[int, int]]) -> list[tuple[str, list[tuple[int, int]]]]:
    """The sentences of a long text, or all of a short one, each with the offsets of its words in it."""
    if len(words) <= LONG:
        return [(text, list(words))]
    parts: list[tuple[str, list[tuple[int, int]]]] = []
    rest = deque(words)
    for start, end in sentences(text, words):
        inside = []
        while rest and rest[0][0] < end:
            first, last = rest.popleft()
            inside.append((first - start, last - start))
        parts.append((text[start:end], inside))
    if rest:  # words of nothing at the end of the text
        parts[-1][1].extend((first - start, last - start) for first, last in rest)
    return parts


def stretch_spans(
    windows: Windows, offsets: Sequence[Sequence[tuple[int, int]]]
) -> Int[np.ndarray, "n_spans 4"]:
    """Tokens that read any character of a stretch of text, from the window in which it stands farthest from an edge.

    Neighbouring stretches may share a token; a stretch of which the tokenizer leaves nothing (a lone control
    character) takes its window's first token.

    Args:
        windows: of the texts.
        offsets: for each text its stretches (first character, character after the last), ascending and disjoint.

    Returns:
        Rows (stretch, window, first token, token after the last), sorted by window and place; stretches are numbered
        through all texts.
    """
    counts = np.array([len(places) for places in offsets], int)
    first_slot = np.cumsum(counts) - counts
    places = [np.array(p, int).reshape(-1, 2) for p in offsets]
    rows, margins = [], []
    for window, (owner, encoding) in enumerate(zip(windows.owner, windows.encodings, strict=True)):
        tokens = np.array(encoding.offsets, int).reshape(-1, 2)
        real = np.flatnonzero((np.array(encoding.special_tokens_mask) == 0) & (tokens[:, 1] > tokens[:, 0]))
        if not len(real):
            continue
        starts, ends = tokens[real].T
        left = np.searchsorted(ends, places[owner][:, 0], side="right")
        right = np.searchsorted(starts, places[owner][:, 1], side="left")
        found = np.flatnonzero(right > left)
        left, right = left[found], right[found]
        slots = first_slot[owner] + found
        rows.append(np.stack([slots, np.full(len(found), window), real[left], real[right - 1] + 1], axis=1))
        margins.append(np.minimum(left, len(real) - right))
    spans = np.concatenate(rows) if rows else np.zeros((0, 4), int)
    if len(spans):
        order = np.lexsort((-np.concatenate(margins), spans[:, 0]))
        spans = spans[order[np.append(True, np.diff(spans[order, 0]) > 0)]]
    missing = np.setdiff1d(np.arange(counts.sum()), spans[:, 0])
    if len(missing):
        owner = np.repeat(np.arange(len(counts)), counts)[missing]
        at = np.searchsorted(windows.owner, owner)
        spans = np.concatenate([spans, np.stack([missing, at, np.zeros_like(at), np.ones_like(at)], axis=1)])
    result: np.ndarray = spans[np.lexsort((spans[:, 2], spans[:, 1]))]
    return result
