"""BIO tags: checks, repair, conversion to and from entity spans; shapes of words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from fewshot_nlp.errors import FewShotError, clipped, quoted
from fewshot_nlp.rows import as_name, shown

Repair = Literal["begin", "error"]
"""What an ``I-X`` that continues no ``X`` becomes: a ``B-X``, or an error."""

_SCHEMES = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I", "B": "B", "I": "I"}
"""Prefixes of BIOES, BILOU and BMES, each with that of BIO."""
_ENDS = frozenset("SUEL")
"""Prefixes of an entity's last word."""


def check_tags(tags: Sequence[str], repair: Repair = "begin") -> list[str]:
    """Tags in BIO; BIOES, BILOU and BMES are converted, an ``I-`` without a ``B-`` is repaired or refused."""
    result: list[str] = []
    ended = True
    for position, tag in enumerate(tags):
        if not isinstance(tag, str):
            raise FewShotError(
                f"tag {position + 1} is {shown(tag)}, but must be a text such as 'B-DRUG' "
                "or 'O'; give the names of the tags, not their numbers."
            )
        prefix, _, label = tag.partition("-")
        if tag == "O":
            result.append("O")
            ended = True
            continue
        if prefix not in _SCHEMES or not label.strip():
            raise FewShotError(f"tag {position + 1} is {quoted(tag)}, but must be 'O', 'B-TYPE' or 'I-TYPE'.")
        last, prefix, label = (
            prefix in _ENDS,
            _SCHEMES[prefix],
            as_name(label, f"the type of tag {position + 1}"),
        )
        if prefix == "I" and (ended or result[-1][2:] != label):
            if repair == "error":
                raise FewShotError(
                    f"tag {position + 1} is {quoted(tag)}, but no {clipped(label)} begins before it; mend it, or leave "
                    "repair='begin'."
                )
            prefix = "B"
        result.append(f"{prefix}-{label}")
        ended = last
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
    offsets: Sequence[tuple[int, int]], spans: Iterable[Mapping[str, Any]], text: str
) -> list[str]:
    """BIO tags of words from character spans; a span border inside a word is moved to include the whole word.

    Raises:
        FewShotError: a span outside the text, without a word, or overlapping another.
    """
    tags = ["O"] * len(offsets)
    for span in sorted(spans, key=lambda s: (s["start"], s["end"])):
        start, end, label = span["start"], span["end"], span["label"]
        if not 0 <= start < end <= len(text):
            raise FewShotError(
                f"the span {start} to {end} of {clipped(label)} is outside the text of {len(text)} characters."
            )
        words = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        if not words:
            raise FewShotError(
                f"the span {start} to {end} of {clipped(label)} holds no word: {quoted(text[start:end])}."
            )
        if any(tags[i] != "O" for i in words):
            raise FewShotError(
                f"the span {start} to {end} of {clipped(label)} overlaps another at {quoted(text[start:end])}; nested "
                "entities are not supported, keep one of them."
            )
        for i in words:
            tags[i] = f"{'B' if i == words[0] else 'I'}-{label}"
    return tags


def word_shapes(sentences: Sequence[Sequence[str]]) -> Float[np.ndarray, "n_words 14"]:
    """Surface features of each word, 0 or 1: capitals, digits, punctuation, length, and first in the sentence."""
    words = [word for sentence in sentences for word in sentence]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
    shapes = np.array([_shape(word) for word in numbers], np.float32).reshape(-1, 14)
    result = shapes[[numbers[word] for word in words]] if words else shapes
    lengths = np.array([len(sentence) for sentence in sentences], int)
    result[(np.cumsum(lengths) - lengths)[lengths > 0], -1] = 1.0
    return result


def _shape(word: str) -> tuple[bool, ...]:
    return (
        word[:1].isupper(),
        word.isupper() and len(word) > 1,
        word.istitle(),
        any(c.isupper() for c in word[1:]),
        word.islower(),
        any(c.isdigit() for c in word),
        word.isdigit(),
        not any(c.isalnum() for c in word),
        len(word) <= 2,
        len(word) >= 9,
        "-" in word,
        "." in word,
        any(c in "/%$" for c in word),
        False,
    )
