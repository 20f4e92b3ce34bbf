"""Words and sentences of a text, by its characters alone."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise

import regex

# SA: Thai, Lao, Khmer, Myanmar, Tai Lue, ...
_SCRIPTS = """
Han Hiragana Katakana Bopomofo Hangul Yi Nushu Tangut Khitan_Small_Script
Line_Break=SA Tibetan Javanese Balinese Cham
"""
UNSPACED = "".join(rf"\p{{{script}}}" for script in _SCRIPTS.split())
"""Scripts, as parts of a character class, in which a blank does not part words, or a name and its particle."""
_WORD = regex.compile(
    rf"(?V1)(?:(?![{UNSPACED}ー])[\p{{L}}\p{{M}}\p{{N}}])+(?:[.,]\p{{N}}+)*|(?=\S)\X", regex.VERSION1
)
_NUMBER_AND_LETTER = regex.compile(r"(?<=\p{N})(?=\p{L})|(?<=\p{L})(?=\p{N})")
_ABBREVIATIONS = "|".join(
    (
        "Dr|Mrs?|Ms|Prof|St|Jr|Sr|[Vv]s|al|Figs?|[Nn]os?|Inc|Ltd|Pvt|Corp|Co|approx|etc|Secs?|Arts?|pp|eds?|Exs?|Exh",
        "Ext|App|Addl|Misc|Rs|Crl?|Cri|Smt|Shri|Sri|Sh|Mohd|[Ll]d|Ors|Anr|dt|ca|cf|Nr|Abs|Abb|Tab|Bd|Str|bzw|vgl|usw",
    )
)
_SENTENCE_END = regex.compile(
    rf"(?<!(?<!\w)(?:\p{{L}}|\d\d?|{_ABBREVIATIONS})\s?)[.!?…]+[\"'”’»)\]]*"  # the mark and what it closes
    r"(?=\s+[\"'“‘«(\[]*[\p{Lu}\p{Lo}])|[。！？]+[」』”’]*|(?<=\S)(?=[^\S\n]*\n\s*\n)"
)
CUT = "|"
"""Marks the place at which a word is cut; no word of letters holds it."""


def split_words(text: str, cuts: Collection[str] = ()) -> list[tuple[int, int]]:
    """Character offsets of the words of a text.

    A word is a run of letters, marks and digits (numbers keep their inner points and commas), or any other
    single character as a reader sees it (a combined emoji is one). In scripts without blanks between words (Chinese,
    Japanese, Thai, ...) and in Korean, every character as a reader sees it is a word.

    Args:
        text: any text.
        cuts: words that are split, with marked positions: ``"gon|na"``. If one of them is split between a digit and a
            letter (``"10|mg"``), all words are split there.
    """
    inner: dict[str, set[int]] = {}
    for cut in cuts:
        inner.setdefault(cut.replace(CUT, ""), set()).update(accumulate(map(len, cut.split(CUT)[:-1])))
    numbers = any(place in _by_numbers(word) for word, places in inner.items() for place in places)
    result: list[tuple[int, int]] = []
    for found in _WORD.finditer(text):
        (start, end), word = found.span(), found.group()
        places = set(inner.get(word, ()))
        if numbers:
            places |= _by_numbers(word)
        result += pairwise([start, *(start + place for place in sorted(places)), end])
    return result


def sentences(text: str, words: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Character offsets of the sentences of a text; together they are the whole text.

    A sentence ends after a full stop, question or exclamation mark that a capital or a letter of a script without
    capitals follows after a blank, unless an abbreviation, a single letter or a number of one or two digits stands
    before it; after the full-width marks of Chinese and Japanese; and before an empty line. The blanks between two
    sentences belong to the second, as a tokenizer reads them with its first word.

    Args:
        text: any text.
        words: offsets of its words, ascending; none is cut.
    """
    starts = [start for start, _ in words]
    borders = [0]
    for found in _SENTENCE_END.finditer(text):
        before = bisect_left(starts, found.end())  # words that begin before the border
        if 0 < before < len(words) and words[before - 1][1] <= found.end():
            borders.append(found.end())
    return list(pairwise([*borders, len(text)]))


def _by_numbers(word: str) -> set[int]:
    return {found.start() for found in _NUMBER_AND_LETTER.finditer(word)}


def cut_at(offsets: Sequence[tuple[int, int]], borders: Iterable[int]) -> list[tuple[int, int]]:
    """Words, split at borders inside them.

    Args:
        offsets: start and end characters of words, ascending.
        borders: positions in characters.
    """
    places = sorted(set(borders))
    result: list[tuple[int, int]] = []
    for start, end in offsets:
        inside = places[bisect_right(places, start) : bisect_left(places, end)]
        result += pairwise([start, *inside, end])
    return result
