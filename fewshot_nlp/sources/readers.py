"""Rows from what users have: lists, tables, `datasets.Dataset`, files of many kinds, folders; and back to files."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, did_you_mean, listed, logger, quoted
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.rows import as_list, likely_column, records
from fewshot_nlp.sources.annotations import converted
from fewshot_nlp.sources.cards import task_of
from fewshot_nlp.sources.conll import render_conll
from fewshot_nlp.sources.features import named_rows
from fewshot_nlp.sources.files import parallel_lines, read_file
from fewshot_nlp.sources.json_files import render_lines
from fewshot_nlp.sources.other_files import is_document, of_document
from fewshot_nlp.sources.tables import JSON_MARK, language_pairs, render_table

Row = dict[str, Any]


RENDERERS: Mapping[str, Callable[[list[Mapping[str, Any]]], str]] = {
    ".jsonl": render_lines,
    ".csv": partial(render_table, delimiter=","),
    ".tsv": partial(render_table, delimiter="\t"),
    ".conll": render_conll,
}
"""What writes a file, by the end of its name."""


def read_rows(
    source: Any,
    task_name: str | None = None,
    column_mapping: Mapping[str, str] | None = None,
    *,
    labelled: bool = True,
) -> list[Row]:
    """Rows of any source as a list of dictionaries, with the task's names for the columns.

    Files are UTF-8, UTF-16 with a byte order mark, or of an encoding that is guessed, which is logged. CoNLL files have
    the word in the first column, its tag in the last, and a blank line between sentences. Tables begin with a header;
    columns named ``...:json`` hold JSON. What annotation tools write is told by its keys (`annotations`). Rows are
    checked by the task, later.

    Args:
        source: rows; texts with their labels as pairs; a dictionary of columns; a `datasets.Dataset`, whose label
            numbers become names, or the train split of a `DatasetDict`; a table of pandas, polars or pyarrow; documents
            of spaCy; the path of a file or folder; or a tuple of two paths, ``("a.de", "a.en")``, of parallel lines.
        task_name: the task that the rows are for; then its input columns must be there.
        column_mapping: your column's name to the task's name for it.
        labelled: of annotation tools leave out what nobody has accepted; else its inputs are rows too.

    Raises:
        FewShotError: naming the file, the line and what is wrong there.

    Examples:
        >>> read_rows([{"utterance": "Hi", "label": "greet"}], "classification", {"utterance": "text"})
        [{'text': 'Hi', 'label': 'greet'}]
    """
    kind = ""
    if isinstance(source, str | os.PathLike):
        path = user_path(source)
        (items, kind), where = read_file(path, str(source)), str(path)
        if not items:
            raise FewShotError(f"{path} is empty: it has no rows.")
    elif (
        isinstance(source, tuple)
        and len(source) == 2
        and all(isinstance(p, str | os.PathLike) for p in source)
    ):
        items, where = parallel_lines(*map(user_path, source)), f"{source[0]} and {source[1]}"
        kind = "parallel lines"
    else:
        items, where = _items_of(source), "The rows"
    rows = _dictionaries(converted(items, where, labelled, kind), task_name)
    rows = _renamed(rows, column_mapping, where) if column_mapping else rows
    rows = language_pairs(rows) if task_name == "translation" else rows
    if rows and task_name is not None:
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


def _items_of(source: Any) -> list[Any]:
    """Items of what is in memory."""
    library = sys.modules.get("datasets")
    if library is not None and isinstance(source, library.DatasetDict | library.IterableDatasetDict):
        if "train" not in source:
            raise FewShotError(
                f"A DatasetDict has the splits {', '.join(source)}; pass one of them, as dataset[...]."
            )
        logger.info("Of a DatasetDict the split 'train' is read.")
        source = source["train"]
    if library is not None and isinstance(source, library.Dataset | library.IterableDataset):
        return named_rows(source)
    if isinstance(source, Mapping):
        return _of_columns(source)
    source = records(source)
    if not isinstance(source, Iterable) or isinstance(source, bytes):
        raise FewShotError(
            f"The rows are a {type(source).__name__}, but must be a list of dictionaries, a datasets.Dataset, "
            "a table of pandas or pyarrow, or the path of a file."
        )
    return list(source)


def _of_columns(source: Mapping[str, Any]) -> list[Row]:
    """Rows of a dictionary of columns."""
    columns = {str(name): as_list(values) for name, values in source.items()}
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if not source or len(lengths) < len(columns):
        raise FewShotError(
            f"The rows are one dictionary with the keys {', '.join(map(str, source))}; pass a list of dictionaries, "
            "one a row, or a dictionary of columns, which are lists."
        )
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise FewShotError(f"The columns have different lengths: {told}.")
    return [
        dict(zip(columns, cells, strict=True))
        for cells in zip(*(c or [] for c in columns.values()), strict=True)
    ]


def _dictionaries(items: list[Any], task_name: str | None) -> list[Row]:
    """Items as rows: dictionaries, documents of spaCy, or tuples in the order of the task's columns."""
    rows = []
    for number, item in enumerate(items, start=1):
        if is_document(item):
            item = of_document(item)
        cells = as_list(item)
        if cells is not None and task_name is not None:
            names = ("source", "target") if task_name == "translation" else task_of(task_name).columns[0]
            if len(cells) != len(names):
                raise FewShotError(
                    f"Row {number} is a {type(item).__name__} of {len(cells)}, but must have {len(names)}: "
                    f"{', '.join(names)}."
                )
            item = dict(zip(names, cells, strict=True))
        if not isinstance(item, Mapping):
            raise FewShotError(
                f"Row {number} is a {type(item).__name__}, but every row must be a dictionary."
            )
        rows.append(dict(item))
    return rows


def _renamed(rows: list[Row], mapping: Mapping[str, str], where: str) -> list[Row]:
    result = []
    for number, row in enumerate(rows, start=1):
        for name in mapping:
            if name not in row:
                raise FewShotError(
                    f"{where}: column_mapping names the column {name!r}, but row {number} has: "
                    f"{listed(map(str, row))}.{did_you_mean(name, row)}"
                )
        replaced = set(mapping.values()) - set(mapping)  # what is named stands in place of what bore the name
        result.append({mapping.get(key, key): value for key, value in row.items() if key not in replaced})
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
    sides = [name for name, value in row.items() if isinstance(value, str)][:2]
    if missing == "translation" and len(sides) == 2:
        hint = (
            f"Say which columns they are: column_mapping={{{sides[0]!r}: 'source', {sides[1]!r}: 'target'}}."
        )
    raise FewShotError(
        f"{where}: there is no column {missing!r}, which {task_name} needs; there are: "
        f"{listed(map(repr, there))}.{header} {hint}"
    )
