"""Glossary terms in a text, independent of line breaks, spacing, soft hyphens and Unicode composition."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import regex

from fewshot_nlp.errors import FewShotError, clipped
from fewshot_nlp.rows import as_text, shown
from fewshot_nlp.tokenization.segmentation import UNSPACED

_UNSEEN = "[\u200b\u2060\ufeff]|\u00ad(?:[ \t]*\r?\n[ \t]*)?"
"""Zero-width blanks, and soft hyphens with the line break that they allow."""
_PIECES = regex.compile(rf"(?P<unseen>{_UNSEEN})|(?P<blank>\s(?:\s|{_UNSEEN})*)|\X")

_SPACED = rf"[[\w\p{{M}}]--[{UNSPACED}]]"
"""A character of a word of a script with blanks between words."""
_LEFT = {
    r"\p{Katakana}": r"(?<![\p{Katakana}ー])",
    r"\p{Hangul}": r"(?<!\p{Hangul})",
    f"[{UNSPACED}]": "",
    "": f"(?<!{_SPACED})",
}
"""What must stand before a term, by its first character."""
_RIGHT = {
    r"[\p{Katakana}ー]": r"(?![\p{Katakana}\p{M}ー])",
    f"[{UNSPACED}]": r"(?![\p{M}ー])",
    "": f"(?!{_SPACED})",
}
"""What must stand after it, by its last."""
Found = tuple[int, int, str]
"""First character, character after the last, and the term that stands there."""


def checked_glossary(glossary: Any) -> dict[str, str]:
    """Terms and the words for them.

    Raises:
        FewShotError: the glossary is not a mapping of texts to texts.
    """
    if not isinstance(glossary, Mapping):
        raise FewShotError(
            f"glossary is {shown(glossary)}, but must map terms to words, e.g. {{'Darlehen': 'loan'}}."
        )
    return {
        as_text(term, "glossary term"): as_text(words, f"glossary entry of {clipped(str(term))}")
        for term, words in glossary.items()
    }


def find_terms(text: str, glossary: Mapping[str, str]) -> list[Found]:
    """Terms that occur in a text as whole words, from left to right; of two with the same start the longer.

    In scripts without blanks between words a term is found wherever it stands, but for Katakana in a longer run of it,
    and Korean after other letters of the word.

    All runs of white space are equal (line breaks, no-break spaces), soft hyphens are ignored,
    and composed characters (NFC) equal decomposed ones (NFD).

    Examples:
        >>> find_terms("Das Haus  der\\nJu\\u00adgend.", {"Haus der Jugend": "youth centre"})
        [(4, 21, 'Haus der Jugend')]
        >>> find_terms("銀行のローンとAPI", {"銀行": "bank", "ローン": "loan", "API": "API"})
        [(0, 2, '銀行'), (3, 6, 'ローン'), (7, 10, 'API')]
    """
    terms = {_plain(term)[0].strip(): term for term in glossary}
    plain, places = _plain(text)
    longest = sorted(filter(None, terms), key=len, reverse=True)
    if not longest:
        return []
    pattern = regex.compile("|".join(map(_whole_word, longest)), regex.VERSION1)
    return [
        (places[found.start()][0], places[found.end() - 1][1], terms[found[0]])
        for found in pattern.finditer(plain)
        if places[found.end() - 1]
        not in places[found.end() : found.end() + 1]  # a character as a reader sees it
    ]


def _whole_word(term: str) -> str:
    """The pattern of a term that is not part of a longer word."""
    left = next(border for first, border in _LEFT.items() if regex.match(first, term[0], regex.VERSION1))
    right = next(border for last, border in _RIGHT.items() if regex.match(last, term[-1], regex.VERSION1))
    return f"{left}{regex.escape(term)}{right}"


def with_terms(text: str, glossary: Mapping[str, str]) -> str:
    """The text with its terms replaced by their translations."""
    pieces, at = [], 0
    for start, end, term in find_terms(text, glossary) if glossary else ():
        pieces += [text[at:start], glossary[term]]
        at = end
    return "".join([*pieces, text[at:]])


def _plain(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text composed, with single blanks and without what is not seen; and the place of each of its characters."""
    characters: list[str] = []
    places: list[tuple[int, int]] = []
    for piece in _PIECES.finditer(text):
        if piece["unseen"] is None:
            composed = " " if piece["blank"] else unicodedata.normalize("NFC", piece[0])
            characters += composed
            places += [piece.span()] * len(composed)
    return "".join(characters), places
