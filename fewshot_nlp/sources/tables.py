"""CSV and TSV files. A column whose header ends in ``:json`` holds JSON; every other column holds plain text.

So lists, numbers and missing values survive a round trip (``ner_tags:json``), and a text that happens to look
like JSON stays a text.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.sources.json_files import to_json

Row = dict[str, Any]
JSON_MARK = ":json"
INDEX = "index"
DELIMITERS = (",", ";", "\t", "|")


def parse_table(text: str, path: Path, delimiter: str | None = None) -> list[Row]:
    """Rows of a table whose first line names the columns; blank lines are skipped.

    Args:
        text: the table.
        path: for messages.
        delimiter: None for the one of `DELIMITERS` that stands most often in the first line, outside quotes.
    """
    given = re.match(r"sep=(.)\r?\n", text)  # what Excel reads first
    if given is not None:
        text, delimiter = text[given.end() :], given.group(1)
    if delimiter is None:
        head = re.sub(r'"[^"]*"', "", text.lstrip().split("\n", 1)[0])
        delimiter = max(DELIMITERS, key=head.count)
        if delimiter != ",":
            logger.info("%s: cells are divided by %r.", path, delimiter)
    spaced = re.match(rf"[^\n{re.escape(delimiter)}]*{re.escape(delimiter)} \S", text) is not None
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaced
    )
    rows: list[Row] = []
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                unnamed = cells[0] == "" and len(cells) > 1  # the index, as pandas writes it
                header = _header([INDEX, *cells[1:]] if unnamed else cells, path)
            elif len(cells) != len(header):
                raise FewShotError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header names {len(header)} "
                    f"columns: {', '.join(header)}. Put quotes around texts that contain {delimiter!r}."
                )
            else:
                where = f"{path}, line {reader.line_num}"
                rows.append(dict(_cell(name, cell, where) for name, cell in zip(header, cells, strict=True)))
    except csv.Error as error:
        raise FewShotError(
            f"{path}, line {reader.line_num}: {error}. Inside a quoted text every quote must be doubled; "
            f"or save the rows as .jsonl."
        ) from error
    return rows


def _header(cells: list[str], path: Path) -> list[str]:
    bare = [cell.removesuffix(JSON_MARK) for cell in cells]
    wrong = next((i for i, name in enumerate(bare) if not name.strip() or name in bare[:i]), None)
    if wrong is not None:
        what = (
            f"the column name {bare[wrong]!r} twice"
            if bare[wrong].strip()
            else f"no name for column {wrong + 1}"
        )
        raise FewShotError(f"{path}, line 1: {what}. The first line must be a header such as: text,label.")
    return cells


def _cell(name: str, cell: str, where: str) -> tuple[str, Any]:
    if not name.endswith(JSON_MARK):
        return name, cell
    try:
        return name.removesuffix(JSON_MARK), json.loads(cell)
    except json.JSONDecodeError as error:
        raise FewShotError(
            f"{where}: the column {name!r} must hold JSON, but has {cell[:60]!r} ({error.msg}). For plain "
            f"text name the column {name.removesuffix(JSON_MARK)!r}."
        ) from error


def render_table(rows: Sequence[Mapping[str, Any]], delimiter: str) -> str:
    """Rows as a table; all must have the same columns.

    Raises:
        FewShotError: when a row has other columns than the first.
    """
    columns = [str(name) for name in rows[0]]
    for number, row in enumerate(rows, start=1):
        if set(row) != set(columns):
            raise FewShotError(
                f"Row {number} has the columns {', '.join(map(str, row)) or 'none'}, but row 1 has "
                f"{', '.join(columns) or 'none'}; a table needs the same in all. Write .jsonl instead."
            )
    as_json = {c for c in columns if c.endswith(JSON_MARK) or not all(_is_text(row[c]) for row in rows)}
    out = io.StringIO(newline="")
    # "\r\n" is what RFC 4180 asks for; it also makes the writer quote a lone "\r" in a cell.
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow([c + JSON_MARK if c in as_json else c for c in columns])
    for number, row in enumerate(rows, start=1):
        writer.writerow([to_json(row[c], number) if c in as_json else row[c] for c in columns])
    return out.getvalue()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,4})*")


def language_pairs(rows: list[Row]) -> list[Row]:
    """Rows with two texts, a language a column ("de", "en-US"), or "source" and "target", as pairs; else unchanged."""
    first = rows[0] if rows else {}
    if "translation" in first:
        return rows
    codes = [
        k for k, v in first.items() if isinstance(k, str) and isinstance(v, str) and _LANGUAGE.fullmatch(k)
    ]
    codes = [k for k in codes if k.lower() != "id"] if len(codes) > 2 else codes
    pairs = [("source", "target"), ("src", "tgt")]
    found = next((p for p in pairs if set(p) <= first.keys()), tuple(codes) if len(codes) == 2 else None)
    if found is None:
        return rows
    for number, row in enumerate(rows, start=1):
        if not set(found) <= row.keys():
            raise FewShotError(f"Row {number} has not the columns {found[0]} and {found[1]}, as row 1 has.")
    names = [code.lower() if len(code) < 4 else code for code in found] if found not in pairs else pairs[0]
    return [{"translation": {n: row[k] for n, k in zip(names, found, strict=True)}} for row in rows]
