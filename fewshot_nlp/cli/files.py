"""Texts in and predictions out: text files, JSON lines, CSV, CoNLL, standard input and output; and label names."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from fewshot_nlp.rows import Label
    from fewshot_nlp.tasks import Task

Row = dict[str, Any]
STANDARD = "-"
CONLL = ".conll"
NOTHING: dict[str, Any] = {}
"""Default of options that are mappings."""


def read_labels(given: str) -> "list[Label] | dict[Label, str]":
    """Labels, or labels with descriptions.

    Args:
        given: YAML or JSON, a list of names or a mapping of names to descriptions (null for none); or a file of it.

    Raises:
        FewShotError: no such file, not YAML, or neither of these forms.
    """
    import yaml

    from fewshot_nlp.rows import as_label

    try:
        value = yaml.safe_load(Path(given).read_text(encoding="utf-8") if Path(given).is_file() else given)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FewShotError(f"The labels {given} are neither YAML nor JSON: {error}") from error
    if isinstance(value, list | dict) and value:
        labels = [as_label(label, f"A label of {given}") for label in value]
        texts = [text or "" for text in value.values()] if isinstance(value, dict) else []
        if all(isinstance(text, str) for text in texts):
            return dict(zip(labels, texts, strict=True)) if texts else labels
    raise FewShotError(
        f"The labels {given} are no list of names, no mapping of names to descriptions, and no file of either."
    )


def read_inputs(source: str, task: "Task", mapping: Mapping[str, str]) -> list[Row]:
    """Rows to predict on.

    Args:
        source: a file; .txt has one text a line, other endings are as for `read_rows`. Or "-" for standard
            input: JSON lines if it begins with "{", else one text a line. A blank line is an empty text, so that
            line N of the predictions is of line N of the input.
        task: what to predict.
        mapping: your column's name to the task's.

    Raises:
        FewShotError: naming the file, the line, and what is wrong there.
    """
    from fewshot_nlp.sources import read_rows
    from fewshot_nlp.sources.json_files import parse_lines

    if source != STANDARD and not (source.lower().endswith(".txt") and Path(source).is_file()):
        return read_rows(source, task.name, mapping, labelled=False)
    name = Path("standard input" if source == STANDARD else source)
    data = sys.stdin.buffer.read() if source == STANDARD else name.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FewShotError(f"{name}, line {line}: not UTF-8; save it as UTF-8.") from error
    if source == STANDARD and text.lstrip().startswith("{"):
        return read_rows(parse_lines(text, name), task.name, mapping, labelled=False)
    if not text.strip():
        raise FewShotError(f"{name} is empty: it has no text.")
    return [{"text": line.removesuffix("\r")} for line in text.removesuffix("\n").split("\n")]


def check_output(out: str, task: "Task") -> None:
    """Refuses, before any work, a file that could not be written.

    Raises:
        FewShotError: for an unknown ending, or CoNLL for a task without tags.
    """
    from fewshot_nlp.sources.readers import RENDERERS

    ending = Path(out).suffix.lower()
    if out == STANDARD:
        return
    if ending not in RENDERERS:
        raise FewShotError(
            f"{out} ends in {ending or 'nothing'!r}; predictions are written to: {', '.join(RENDERERS)}."
        )
    if ending == CONLL and not task.word_tags:
        raise FewShotError(
            f"{out}: CoNLL holds words and tags, which {task.name} does not give; write .jsonl or .csv."
        )


def output_rows(
    out: str, task: "Task", labels: Sequence[Any], rows: Sequence[Row], predictions: Sequence[Row]
) -> list[Row]:
    """The rows, each with its prediction in further columns; for CoNLL words and predicted tags alone."""
    pairs = zip(rows, predictions, strict=True)
    if out.lower().endswith(CONLL):
        filled = ((row, p["target"]) for row, p in pairs if p["target"])
        return [{"tokens": task.query(row).inputs["tokens"], "ner_tags": tags} for row, tags in filled]
    return [row | task.output(p, labels, row) for row, p in pairs]


def write_annotated(
    out: str,
    task: "Task",
    rows: Sequence[Row],
    predictions: Sequence[Row],
    format: str,
    options: Mapping[str, str],
) -> None:
    """Writes predictions as an annotation tool reads them, to a file or standard output, but those of empty texts."""
    from fewshot_nlp.sources.annotated import render_annotations, write_annotations

    pairs = zip(task.queries(rows), predictions, strict=True)
    found = [task.annotation(query, prediction) for query, prediction in pairs if query is not None]
    if out == STANDARD:
        sys.stdout.write(render_annotations(found, format, options))
    else:
        write_annotations(out, found, format, options)


def write_output(out: str, rows: Sequence[Row]) -> None:
    """Writes rows to a file, or as JSON lines to standard output."""
    from fewshot_nlp.sources import write_rows
    from fewshot_nlp.sources.json_files import render_lines

    if out == STANDARD:
        sys.stdout.write(render_lines(rows))
    else:
        write_rows(out, rows)
