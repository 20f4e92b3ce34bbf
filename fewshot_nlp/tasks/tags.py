"""BIO tags: checking and repairing them, to and from entity spans, and decoding with transitions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import regex
from jaxtyping import Float, Int

from fewshot_nlp.errors import FewShotError

Repair = Literal["begin", "error"]
"""What an ``I-X`` that continues no ``X`` becomes: a ``B-X``, or an error."""

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:[.,]\p{N}+)*|(?=\S)\X")
_SCHEMES = {"S": "B", "U": "B", "E": "I", "L": "I", "B": "B", "I": "I"}


def split_words(text: str) -> list[tuple[int, int]]:
    """Character offsets of the words of a text.

    A word is a run of letters, marks and digits (numbers keep their inner points and commas), or any other
    single character as a reader sees it (a combined emoji is one).
    """
    return [m.span() for m in _WORD.finditer(text)]


def check_tags(tags: Sequence[str], repair: Repair = "begin") -> list[str]:
    """Tags in BIO; BIOES and BILOU are translated, an ``I-`` without a ``B-`` is repaired or refused."""
    result: list[str] = []
    for position, tag in enumerate(tags):
        if not isinstance(tag, str):
            raise FewShotError(
                f"tag {position + 1} is {tag!r} of type {type(tag).__name__}, but must be a text such as 'B-DRUG' "
                "or 'O'; give the names of the tags, not their numbers."
            )
        prefix, _, label = tag.partition("-")
        if tag == "O":
            result.append(tag)
            continue
        if prefix not in _SCHEMES or not label:
            raise FewShotError(f"tag {position + 1} is {tag!r}, but must be 'O', 'B-TYPE' or 'I-TYPE'.")
        prefix = _SCHEMES[prefix]
        if prefix == "I" and (not result or result[-1][2:] != label):
            if repair == "error":
                raise FewShotError(
                    f"tag {position + 1} is {tag!r}, but no {label} begins before it; mend it, or leave repair='begin'."
                )
            prefix = "B"
        result.append(f"{prefix}-{label}")
    return result


def tag_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities of BIO tags: (type, first word, word after the last)."""
    spans: list[tuple[str, int, int]] = []
    start = 0
    for position, tag in enumerate([*tags, "O"]):
        if position and tags[position - 1] != "O" and not tag.startswith("I-"):
            spans.append((tags[position - 1][2:], start, position))
        if tag.startswith("B-"):
            start = position
    return spans


def spans_to_tags(
    offsets: Sequence[tuple[int, int]], spans: Iterable[Mapping[str, object]], text: str
) -> list[str]:
    """BIO tags of words from character spans; a span that cuts a word is widened to the whole word.

    Raises:
        FewShotError: a span outside the text, without a word, or overlapping another.
    """
    tags = ["O"] * len(offsets)
    for span in sorted(spans, key=lambda s: (int(str(s["start"])), int(str(s["end"])))):
        start, end, label = int(str(span["start"])), int(str(span["end"])), str(span["label"])
        if not 0 <= start < end <= len(text):
            raise FewShotError(f"the span {start} to {end} of {label} is outside the text of {len(text)} characters.")
        words = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        if not words:
            raise FewShotError(f"the span {start} to {end} of {label} holds no word: {text[start:end]!r}.")
        if any(tags[i] != "O" for i in words):
            raise FewShotError(
                f"the span {start} to {end} of {label} overlaps another at {text[start:end]!r}; nested entities are "
                "not supported, keep one of them."
            )
        for i in words:
            tags[i] = f"{'B' if i == words[0] else 'I'}-{label}"
    return tags


def bio_transitions(classes: Sequence[str]) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, "c c"]]:
    """Log-scores that forbid an ``I-X`` at the start or after anything but ``B-X`` and ``I-X``."""
    inside = np.array([c.startswith("I-") for c in classes])
    types = np.array([c[2:] for c in classes])
    start = np.where(inside, -np.inf, 0.0)
    step = np.where(inside[None, :] & (types[:, None] != types[None, :]), -np.inf, 0.0)
    return start, step


def viterbi(
    emissions: Float[np.ndarray, "n_words n_classes"],
    lengths: Sequence[int],
    start: Float[np.ndarray, " n_classes"],
    step: Float[np.ndarray, "n_classes n_classes"],
) -> Int[np.ndarray, " n_words"]:
    """The best class sequence of every sentence: all sentences of a batch advance together.

    Args:
        emissions: log-scores of all words, sentence after sentence.
        lengths: words of each sentence.
        start: log-score of each class at a sentence's start.
        step: log-score of each class (column) after each class (row).
    """
    order = np.argsort([-n for n in lengths], kind="stable")
    sizes = np.asarray(lengths)[order]
    first = (np.cumsum(lengths) - np.asarray(lengths))[order]
    best = np.zeros(len(emissions), int)
    if not len(emissions):
        return best
    score = start + emissions[first[sizes > 0]]
    back: list[np.ndarray] = []
    finals = np.zeros(len(sizes), int)
    for t in range(1, int(sizes[0]) + 1):
        alive = int((sizes > t).sum())
        ended = slice(alive, int((sizes > t - 1).sum()))
        finals[ended] = score[ended].argmax(axis=1)
        if alive:
            paths = score[:alive, :, None] + step
            back.append(paths.argmax(axis=1))
            score = paths.max(axis=1) + emissions[first[:alive] + t]
    state = np.zeros(len(sizes), int)
    for t in range(int(sizes[0]) - 1, -1, -1):
        alive = int((sizes > t).sum())
        follows = int((sizes > t + 1).sum())
        state[:follows] = back[t][np.arange(follows), state[:follows]] if follows else state[:0]
        state[follows:alive] = finals[follows:alive]
        best[first[:alive] + t] = state[:alive]
    return best
