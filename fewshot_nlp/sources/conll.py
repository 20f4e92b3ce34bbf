"""CoNLL files: a word and its tag on each line, a blank line between sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError

Row = dict[str, Any]
DOCUMENT_MARK = "-DOCSTART-"


def parse_conll(text: str, path: Path) -> list[Row]:
    """Sentences as ``{"tokens": [...], "ner_tags": [...]}``: first column and last; others are ignored.

    A line with a tab is divided at tabs alone, so that words may hold spaces; any other line at spaces. Only
    LF and CRLF end a line, and only tab and space divide one: a no-break space is part of a word.
    """
    rows: list[Row] = []
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip(" \t"):
            if tokens:
                rows.append({"tokens": tokens, "ner_tags": tags})
                tokens, tags = [], []
            continue
        cells = line.split("\t") if "\t" in line else line.split(" ")
        if "\t" not in line:
            cells = [cell for cell in cells if cell]
        if cells[0] == DOCUMENT_MARK:
            continue
        token, tag = cells[0], cells[-1].strip(" ")
        if len(cells) < 2 or not token or not tag:
            raise FewShotError(
                f"{path}, line {number}: {line.strip()[:60]!r} is one column, but a word and its tag were "
                "expected, with a tab or a space between them (aspirin B-DRUG)."
            )
        tokens.append(token)
        tags.append(tag)
    if tokens:
        rows.append({"tokens": tokens, "ner_tags": tags})
    return rows


def render_conll(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sentences with a tab between word and tag.

    Raises:
        FewShotError: for rows with other columns, and for words that a line cannot hold.
    """
    lines: list[str] = []
    for number, row in enumerate(rows, start=1):
        if set(row) != {"tokens", "ner_tags"}:
            raise FewShotError(
                f"Row {number} has the columns {', '.join(map(str, row)) or 'none'}, but CoNLL holds tokens "
                "and ner_tags alone; write .jsonl instead."
            )
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
