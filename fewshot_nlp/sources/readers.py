"""Rows from what users have: lists, `datasets.Dataset`, files of JSON, CSV or CoNLL; and back to files."""

import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, did_you_mean, listed, quoted
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.rows import likely_column, records
from fewshot_nlp.sources.cards import card_names, task_of
from fewshot_nlp.sources.conll import parse_conll, render_conll
from fewshot_nlp.sources.features import named_rows
from fewshot_nlp.sources.json_files import parse_lines, parse_list, render_lines
from fewshot_nlp.sources.tables import JSON_MARK, parse_table, render_table

Row = dict[str, Any]

PARSERS: Mapping[str, Callable[[str, Path], list[Row]]] = {
    ".jsonl": parse_lines,
    ".jsonl.gz": parse_lines,
    ".json": parse_list,
    ".csv": partial(parse_table, delimiter=","),
    ".tsv": partial(parse_table, delimiter="\t"),
    ".conll": parse_conll,
    ".iob": parse_conll,
    ".bio": parse_conll,
    ".txt": parse_conll,
}
"""What reads a file, by the end of its name."""
RENDERERS: Mapping[str, Callable[[list[Mapping[str, Any]]], str]] = {
    ".jsonl": render_lines,
    ".csv": partial(render_table, delimiter=","),
    ".tsv": partial(render_table, delimiter="\t"),
    ".conll": render_conll,
}
"""What writes a file, by the end of its name."""


def read_rows(
    source: Any, task_name: str | None = None, column_mapping: Mapping[str, str] | None = None
) -> list[Row]:
    """Rows of any source as a list of dictionaries, with the task's names for the columns.

    Files are UTF-8, with or without a byte order mark. CoNLL files (.conll, .iob, .bio, .txt) have the word
    in the first column, its tag in the last, and a blank line between sentences. CSV and TSV files begin with
    a header; columns named ``...:json`` hold JSON. Rows themselves are checked by the task, later.

    Args:
        source: rows; a `datasets.Dataset`, whose label numbers become names; a table of pandas, polars or
            pyarrow; or the path of a file.
        task_name: the task that the rows are for; then its input columns must be there.
        column_mapping: your column's name to the task's name for it.

    Raises:
        FewShotError: naming the file, the line and what is wrong there.

    Example:
        >>> read_rows([{"utterance": "Hi", "label": "greet"}], "classification", {"utterance": "text"})
        [{'text': 'Hi', 'label': 'greet'}]
    """
    if isinstance(source, str | os.PathLike):
        path = user_path(source)
        rows, where = _read_file(path, str(source)), str(path)
        if not rows:
            raise FewShotError(f"{path} is empty: it has no rows.")
    else:
        rows, where = _rows_of(source), "The rows"
    if not rows:
        return rows
    rows = _renamed(rows, column_mapping, where) if column_mapping else rows
    if task_name is not None:
        _need_inputs(rows[0], task_name, where)
    return rows


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows to .jsonl, .csv, .tsv or .conll, by the end of the name; `read_rows` gives them back.

    The file appears whole or not at all. In CSV and TSV a column with a value that is not a text is written
    as JSON and marked so in the header (``answers:json``).

    Args:
        path: the file; folders on the way are made.
        rows: at least one dictionary.

    Raises:
        FewShotError: for another extension, and for rows that the format cannot hold.
    """
    path = user_path(path)
    render = RENDERERS.get(path.suffix.lower())
    if render is None:
        raise FewShotError(
            f"{path} ends in {path.suffix or 'nothing'!r}; rows are written to: {', '.join(RENDERERS)}."
        )
    rows = list(rows)
    if not rows:
        raise FewShotError(f"There are no rows to write to {path}.")
    text = render(rows)
    if text.startswith("\ufeff"):  # else the reader would take the first character for a byte order mark
        text = "\ufeff" + text
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FewShotError(
            f"{path}: a text has half a surrogate pair, which UTF-8 cannot hold; write .jsonl."
        ) from error
    with atomic_write(path) as part:
        part.write_bytes(data)


def _read_file(path: Path, given: str) -> list[Row]:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if _kind(p))
        raise FewShotError(
            f"{path} is a folder; name one file in it: {', '.join(inside[:8]) or 'it has none to read'}."
        )
    if not path.is_file():
        hint = ""
        if given in card_names():
            hint = f" It is the name of a data set card: pass load_rows({given!r}, 'train')."
        elif path.parent.is_dir():
            near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
            hint = f" Did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise FewShotError(f"There is no file {given!r} (looked for {path.absolute()}).{hint}")
    kind = _kind(path)
    if kind is None:
        raise FewShotError(
            f"{path} ends in {path.suffix or 'nothing'!r}; files are read that end in: {', '.join(PARSERS)}. "
            "For others pass a datasets.Dataset or a list of dictionaries."
        )
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if kind.endswith(".gz") else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FewShotError(f"{path} is not a whole gzip file ({error}); copy it again.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FewShotError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8."
        ) from error
    return PARSERS[kind](text, path)


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((end for end in PARSERS if name.endswith(end)), None)


def _rows_of(source: Any) -> list[Row]:
    library = sys.modules.get("datasets")
    if library is not None and isinstance(source, library.Dataset | library.IterableDataset):
        return named_rows(source)
    if isinstance(source, Mapping):
        keys = ", ".join(map(str, source))
        if library is not None and isinstance(source, library.DatasetDict | library.IterableDatasetDict):
            raise FewShotError(
                f"A DatasetDict has several splits ({keys}); pass one of them, as dataset['train']."
            )
        raise FewShotError(
            f"The rows are one dictionary with the keys {keys}; pass a list of dictionaries, one a row."
        )
    source = records(source)
    if not isinstance(source, Iterable) or isinstance(source, bytes):
        raise FewShotError(
            f"The rows are a {type(source).__name__}, but must be a list of dictionaries, a datasets.Dataset, "
            "a table of pandas or pyarrow, or the path of a file."
        )
    rows = []
    for number, row in enumerate(source, start=1):
        if not isinstance(row, Mapping):
            raise FewShotError(f"Row {number} is a {type(row).__name__}, but every row must be a dictionary.")
        rows.append(dict(row))
    return rows


def _renamed(rows: list[Row], mapping: Mapping[str, str], where: str) -> list[Row]:
    result = []
    for number, row in enumerate(rows, start=1):
        for name, new in mapping.items():
            if name not in row:
                raise FewShotError(
                    f"{where}: column_mapping names the column {name!r}, but row {number} has: "
                    f"{listed(map(str, row))}.{did_you_mean(name, row)}"
                )
            if new in row and new not in mapping:
                raise FewShotError(
                    f"{where}: column_mapping renames {name!r} to {new!r}, which row {number} has already."
                )
        result.append({mapping.get(key, key): value for key, value in row.items()})
    return result


def _need_inputs(row: Row, task_name: str, where: str) -> None:
    """The first row must have the input columns; the task checks everything else."""
    task = task_of(task_name)
    wanted = [[name for name in columns if name not in task.target_columns] for columns in task.columns]
    if any(all(column in row for column in columns) for columns in wanted):
        return
    missing = next(column for column in wanted[0] if column not in row)
    there = [str(name).removesuffix(JSON_MARK) for name in row]
    header = " If the file has no header, give it one." if where.lower().endswith((".csv", ".tsv")) else ""
    example = next((json.dumps(shown[missing]) for shown in task.usage.rows if missing in shown), '"text"')
    found = likely_column(missing, row, example)
    hint = (
        f"Rename {quoted(found)}, or pass column_mapping={{{quoted(found)}: {missing!r}}}."
        if found
        else "Add it."
    )
    raise FewShotError(
        f"{where}: there is no column {missing!r}, which {task_name} needs; there are: "
        f"{listed(map(repr, there))}.{header} {hint}"
    )
