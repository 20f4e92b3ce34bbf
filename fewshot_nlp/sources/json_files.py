"""JSON lines, and JSON files that hold a list of rows."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sources.bioc import is_bioc

Row = dict[str, Any]


def parse_lines(text: str, path: Path) -> list[Row]:
    """Rows of JSON lines; lines end in LF or CRLF and in nothing else, and blank ones are skipped."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(" \t\r"):
            rows.append(_row(_loads(line, path, number), f"{path}, line {number}", "each line"))
    return rows


def parse_list(text: str, path: Path) -> list[Any]:
    """Items of a JSON file: a list of objects, or of an object with its articles in "data", as SQuAD's."""
    if not text.strip():
        return []
    if re.match(r"\s*\{[^\n]*\}[ \t\r]*\n\s*\{", text):  # JSON lines of this name
        return parse_lines(text, path)
    value = _loads(text, path, 1)
    if isinstance(value, dict) and isinstance(value.get("columns"), list):  # pandas, orient="split"
        value = [dict(zip(value["columns"], row, strict=False)) for row in value.get("data", [])]
    if isinstance(value, dict) and isinstance(value.get("data"), list) and value["data"]:
        value = value["data"]
    if isinstance(value, dict):  # BioC's "documents", under other names elsewhere
        value = next((v for v in value.values() if isinstance(v, list) and v and is_bioc(v[0])), value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return value  # pairs of a text and its annotations
    if not isinstance(value, list):
        keys = f" with the keys {', '.join(map(str, value))}" if isinstance(value, dict) else ""
        raise FewShotError(
            f"{path} holds a {type(value).__name__}{keys}, but must hold a list of rows; or name it "
            ".jsonl and put one row on each line."
        )
    return [_row(item, f"{path}, item {i}", "each item") for i, item in enumerate(value, start=1)]


def render_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One row a line. Numpy values become lists and numbers."""
    return "".join(to_json(row, number) + "\n" for number, row in enumerate(rows, start=1))


def to_json(value: Any, number: int) -> str:
    """A value of row ``number`` as JSON on one line, which is always valid UTF-8.

    Raises:
        FewShotError: for what JSON does not have (NaN, sets, objects).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise FewShotError(f"Row {number} cannot be written as JSON: {error}.") from error
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 does not have but JSON's \u escapes do
        return json.dumps(value, allow_nan=False, default=_plain)
    return text


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value is of the type {type(value).__name__}")


def _loads(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = error.lineno + line - 1
        near = text.split("\n")[error.lineno - 1].strip()[:60]
        raise FewShotError(
            f"{path}, line {at}: not JSON ({error.msg}, column {error.colno}): {near!r}."
        ) from error


def _row(value: Any, where: str, what: str) -> Row:
    if not isinstance(value, dict):
        raise FewShotError(
            f'{where}: a {type(value).__name__}, but {what} must be an object such as {{"text": "..."}}.'
        )
    return value
