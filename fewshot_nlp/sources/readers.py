"""Rows from what users have: lists, tables, `datasets.Dataset`, files of many kinds, folders; and back to files."""

import gzip
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, did_you_mean, listed, logger, quoted
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.rows import as_list, likely_column, records
from fewshot_nlp.sources.annotations import converted, language_pairs
from fewshot_nlp.sources.cards import card_names, task_of
from fewshot_nlp.sources.conll import parse_conll, render_conll
from fewshot_nlp.sources.features import named_rows
from fewshot_nlp.sources.json_files import parse_lines, parse_list, render_lines
from fewshot_nlp.sources.other_files import (
    FASTTEXT,
    WEBANNO,
    is_document,
    of_document,
    parse_fasttext,
    parse_tmx,
    parse_webanno,
    read_docbin,
    read_excel,
    read_folder,
    read_parquet,
)
from fewshot_nlp.sources.tables import JSON_MARK, parse_table, render_table

Row = dict[str, Any]


def _parse_text(text: str, path: Path) -> list[Row]:
    """A .txt file: fastText lines, or CoNLL."""
    return (parse_fasttext if FASTTEXT.match(text.lstrip()) else parse_conll)(text, path)


def _parse_tsv(text: str, path: Path) -> list[Row]:
    """A .tsv file: WebAnno's, CoNLL (its first line ends in a tag), or a table."""
    if text.startswith(WEBANNO):
        return parse_webanno(text, path)
    tagged = re.match(r"(-DOCSTART-.*\s+)?\S+\t(.*\t)?(O|[BIESLU]-\S+)\r?\n", text)
    return parse_table(text, path, "\t") if tagged is None else parse_conll(text, path)


PARSERS: Mapping[str, Callable[[str, Path], list[Row]]] = {
    ".jsonl": parse_lines,
    ".jsonl.gz": parse_lines,
    ".ndjson": parse_lines,
    ".json": parse_list,
    ".csv": parse_table,
    ".tsv": _parse_tsv,
    ".conll": parse_conll,
    ".conllu": parse_conll,
    ".iob": parse_conll,
    ".bio": parse_conll,
    ".txt": _parse_text,
    ".tmx": parse_tmx,
}
"""What reads the text of a file, by the end of its name."""
BINARY: Mapping[str, Callable[[Path], list[Row]]] = {
    ".parquet": read_parquet,
    ".xlsx": read_excel,
    ".xls": read_excel,
    ".spacy": read_docbin,
}
"""What reads a file that is no text."""
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

    Raises:
        FewShotError: naming the file, the line and what is wrong there.

    Examples:
        >>> read_rows([{"utterance": "Hi", "label": "greet"}], "classification", {"utterance": "text"})
        [{'text': 'Hi', 'label': 'greet'}]
    """
    if isinstance(source, str | os.PathLike):
        path = user_path(source)
        items, where = _read_file(path, str(source)), str(path)
        if not items:
            raise FewShotError(f"{path} is empty: it has no rows.")
    elif (
        isinstance(source, tuple)
        and len(source) == 2
        and all(isinstance(p, str | os.PathLike) for p in source)
    ):
        items, where = _parallel(*map(user_path, source)), f"{source[0]} and {source[1]}"
    else:
        items, where = _items_of(source), "The rows"
    rows = _dictionaries(converted(items, where), task_name)
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


def _read_file(path: Path, given: str) -> list[Row]:
    if path.is_dir():
        found = read_folder(path)
        if found is not None:
            return found
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
    if path.suffix.lower() in BINARY:
        return BINARY[path.suffix.lower()](path)
    kind = _kind(path)
    if kind is None:
        raise FewShotError(
            f"{path} ends in {path.suffix or 'nothing'!r}; files are read that end in: "
            f"{', '.join([*PARSERS, *BINARY])}. "
            "For others pass a datasets.Dataset or a list of dictionaries."
        )
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if kind.endswith(".gz") else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FewShotError(f"{path} is not a whole gzip file ({error}); copy it again.") from error
    return PARSERS[kind](_decoded(data, path), path)


def _decoded(data: bytes, path: Path) -> str:
    """UTF-8, UTF-16 where its mark says so, or the likeliest encoding, which is logged."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    said = re.match(rb"""\s*<\?xml[^>]*encoding=["']([\w-]+)""", data)
    try:
        return data.decode("utf-8-sig" if said is None else said.group(1).decode())
    except LookupError:
        raise FewShotError(f"{path} names an unknown encoding; save it as UTF-8.") from None
    except UnicodeDecodeError as error:
        from charset_normalizer import from_bytes

        guess = from_bytes(data).best()
        line = data.count(b"\n", 0, error.start) + 1
        if guess is None:
            raise FewShotError(
                f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8."
            ) from error
        logger.warning(
            "%s, line %d: not UTF-8 (byte 0x%02x); read as %s, which is a guess.",
            path,
            line,
            data[error.start],
            guess.encoding,
        )
        return str(guess)


def _parallel(first: Path, second: Path) -> list[Row]:
    """Two files of parallel lines, whose endings name the languages."""
    sides = []
    for path in (first, second):
        if not path.is_file():
            raise FewShotError(f"There is no file {str(path)!r} of parallel lines.")
        sides.append(_decoded(path.read_bytes(), path).replace("\r\n", "\n").rstrip("\n").split("\n"))
    if len(sides[0]) != len(sides[1]):
        raise FewShotError(
            f"{first} has {len(sides[0])} lines, but {second} has {len(sides[1])}; each needs its pair."
        )
    names = [path.suffix[1:] or path.name for path in (first, second)]
    return [{"translation": dict(zip(names, pair, strict=True))} for pair in zip(*sides, strict=True)]


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((end for end in PARSERS if name.endswith(end)), None)


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
