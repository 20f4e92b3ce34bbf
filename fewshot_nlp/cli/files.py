"""Texts in and predictions out: text files, JSON lines, CSV, CoNLL, standard input and output."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from fewshot_nlp.episode import Query
    from fewshot_nlp.tasks import Task

Row = dict[str, Any]
STANDARD = "-"
CONLL = ".conll"


def read_inputs(source: str, task: str, mapping: Mapping[str, str]) -> list[Row]:
    """Rows to predict on.

    Args:
        source: a file; .txt has one text a line, other endings are as for `read_rows`. Or "-" for standard
            input: JSON lines if it begins with "{", else one text a line. Blank lines are skipped.
        task: name of the task.
        mapping: your column's name to the task's.

    Raises:
        FewShotError: naming the file, the line, and what is wrong there.
    """
    from fewshot_nlp.sources import read_rows
    from fewshot_nlp.sources.json_files import parse_lines

    if source != STANDARD and not (source.lower().endswith(".txt") and Path(source).is_file()):
        return read_rows(source, task, mapping)
    name = Path("standard input" if source == STANDARD else source)
    data = sys.stdin.buffer.read() if source == STANDARD else name.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FewShotError(f"{name}, line {line}: not UTF-8; save it as UTF-8.") from error
    if source == STANDARD and text.lstrip().startswith("{"):
        return read_rows(parse_lines(text, name), task, mapping)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    rows: list[Row] = [{"text": line} for line in lines if line.strip()]
    if not rows:
        raise FewShotError(f"{name} is empty: it has no text.")
    return rows


def queries(task: "Task", rows: Sequence[Row]) -> "list[Query]":
    """The rows as the task sees them.

    Raises:
        FewShotError: naming the row.
    """
    result = []
    for number, row in enumerate(rows, start=1):
        try:
            result.append(task.query(row))
        except FewShotError as error:
            raise FewShotError(f"Row {number}: {error}") from None
    return result


def check_output(out: str, task: str) -> None:
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
    if ending == CONLL and task != "ner":
        raise FewShotError(
            f"{out}: CoNLL holds words and tags, which {task} does not give; write .jsonl or .csv."
        )


def output_rows(
    out: str,
    task: str,
    labels: Sequence[str],
    rows: Sequence[Row],
    inputs: "Sequence[Query]",
    predictions: Sequence[Row],
) -> list[Row]:
    """The rows, each with its prediction in further columns; for CoNLL words and predicted tags alone."""
    if out.lower().endswith(CONLL):
        return [
            {"tokens": query.inputs["tokens"], "ner_tags": p["target"]}
            for query, p in zip(inputs, predictions, strict=True)
        ]
    return [row | _columns(task, labels, row, p) for row, p in zip(rows, predictions, strict=True)]


def _columns(task: str, labels: Sequence[str], row: Row, prediction: Row) -> Row:
    if task == "classification":
        named = {label: float(p) for label, p in zip(labels, prediction["probabilities"], strict=True)}
        target = prediction["target"]
        if isinstance(target, list):
            return {"predicted": target, "scores": {label: named[label] for label in target}}
        return {"predicted": target, "score": named[target]}
    if task == "ner":
        tags = {"predicted_tags": prediction["target"]} if "tokens" in row else {}
        return {**tags, "entities": prediction["entities"]}
    if task == "question_answering":
        return {key: prediction[key] for key in ("answer", "score", "start", "end")}
    return {"predicted": prediction["target"]} if task == "translation" else prediction


def write_output(out: str, rows: Sequence[Row]) -> None:
    """Writes rows to a file, or as JSON lines to standard output."""
    from fewshot_nlp.sources import write_rows
    from fewshot_nlp.sources.json_files import render_lines

    if out == STANDARD:
        typer.echo(render_lines(rows), nl=False)
    else:
        write_rows(out, rows)
