"""CoNLL files: a word and its tag on each line, a blank line between sentences."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, logger

Row = dict[str, Any]
DOCUMENT_MARK = "-DOCSTART-"


_TAG = re.compile(r"O|[BIESLUM]-\S.*")
_NOTE = re.compile(r"#\s*[\w.:-]+\s*=")
"""A comment that names a value: ``# text = ...``."""

Line = tuple[int, list[str]]
"""Number and cells of a line."""


def parse_conll(text: str, path: Path) -> list[Row]:
    """Sentences as ``{"tokens": [...], "ner_tags": [...]}``: first column and last; others are ignored.

    A line with a tab is divided at tabs alone, so that words may hold spaces; any other line at spaces. Only
    LF and CRLF end a line, and only tab and space divide one: a no-break space is part of a word. Lines that begin with
    "#" and end in no tag are comments. Where the first column counts the words of every sentence, the second has the
    words. An empty word outside entities is left out. Rows of a file of several documents, marked by ``-DOCSTART-`` or
    ``# newdoc``, have the number of theirs as "document", which keeps them on one side of an episode.

    Raises:
        FewShotError: a line without word or tag, with its number.
    """
    sentences: list[list[Line]] = [[]]
    documents = [0]
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        starts = line.startswith((DOCUMENT_MARK, "# newdoc"))
        if starts or not line.strip(" \t"):
            sentences.append([])
            documents.append(documents[-1] + starts)
            continue
        cells = line.split("\t") if "\t" in line else [cell for cell in line.split(" ") if cell]
        if not _is_comment(line, cells):
            sentences[-1].append(
                (number, ["", *cells] if line.startswith(" ") and len(cells) == 1 else cells)
            )
    word, several = int(_counts_words([s for s in sentences if s])), documents[-1] > 1
    rows: list[Row] = []
    empty = 0
    for sentence, document in zip(sentences, documents, strict=True):
        # "1-2" and "1.1" of CoNLL-U stand for words that are there, or not there, beside the others.
        pairs = [_pair(line, word, path) for line in sentence if not word or line[1][0].isdecimal()]
        kept = [(token, tag) for token, tag in pairs if token]
        empty += len(pairs) - len(kept)
        if kept:
            row: Row = {"tokens": [token for token, _ in kept], "ner_tags": [tag for _, tag in kept]}
            rows.append(row | ({"document": document} if several else {}))
    if empty:
        logger.warning("%s: %d empty words are left out.", path, empty)
    return rows


def _is_comment(line: str, cells: Sequence[str]) -> bool:
    return line.startswith("#") and (
        _NOTE.match(line) is not None or not _TAG.fullmatch(cells[-1].strip(" "))
    )


def _counts_words(sentences: Sequence[Sequence[Line]]) -> bool:
    """Whether the first of three columns or more counts the words of every sentence, from 0 or 1."""
    numbers = [[cells[0] for _, cells in s if re.fullmatch(r"\d+", cells[0])] for s in sentences]
    others = [cells[0] for s in sentences for _, cells in s if not re.fullmatch(r"\d+([-.]\d+)?", cells[0])]
    narrow = any(len(cells) < 3 for s in sentences for _, cells in s)
    first = numbers[0][0] if numbers and numbers[0] else "-"
    return (
        not others
        and not narrow
        and first in ("0", "1")
        and max(map(len, numbers)) > 1
        and all(n == [str(int(first) + i) for i in range(len(n))] for n in numbers)
    )


def _pair(line: Line, word: int, path: Path) -> tuple[str, str]:
    number, cells = line
    token, tag = cells[word] if len(cells) > word + 1 else cells[0], cells[-1].strip(" ")
    shown = " ".join(" ".join(cells).split())[:60]
    if len(cells) < 2 or not tag:
        raise FewShotError(
            f"{path}, line {number}: {shown!r} is one column, but a word and its tag were expected, with a tab or a "
            "space between them (aspirin B-DRUG)."
        )
    if not token and tag != "O":
        raise FewShotError(
            f"{path}, line {number}: the word of the tag {tag!r} is empty; add it, or remove the line."
        )
    return token, tag


def render_conll(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sentences with a tab between word and tag; a mark stands where the "document" changes.

    Raises:
        FewShotError: for rows with other columns, and for words that a line cannot hold.
    """
    lines: list[str] = []
    for number, row in enumerate(rows, start=1):
        if set(row) - {"document"} != {"tokens", "ner_tags"}:
            raise FewShotError(
                f"Row {number} has the columns {', '.join(map(str, row)) or 'none'}, but CoNLL holds tokens "
                "and ner_tags alone; write .jsonl instead."
            )
        if "document" in row and (number == 1 or row["document"] != rows[number - 2].get("document")):
            lines.append(f"{DOCUMENT_MARK}\tO\n\n")
        tokens, tags = list(row["tokens"]), list(row["ner_tags"])
        if not tokens or len(tokens) != len(tags):
            raise FewShotError(
                f"Row {number} has {len(tokens)} tokens and {len(tags)} tags; CoNLL needs one for each."
            )
        for token, tag in zip(tokens, tags, strict=True):
            if not _fits(token) or token == DOCUMENT_MARK or not _fits(tag) or tag != tag.strip(" "):
                raise FewShotError(
                    f"Row {number}: CoNLL cannot hold the word {token!r} with the tag "
                    f"{tag!r}; write .jsonl instead."
                )
            lines.append(f"{token}\t{tag}\n")
        lines.append("\n")
    return "".join(lines)


def _fits(text: Any) -> bool:
    return isinstance(text, str) and text != "" and not set(text) & set("\t\r\n")
