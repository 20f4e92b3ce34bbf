"""Files as they should not be, of every format: one line tells the file, or the rows that are there are read."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from test_formats import ALL, TEXTS, expected, lines, marks, studio, whole

from fewshot_nlp import FewShotError
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks import TASKS

OBJECTS = {"DatasetDict", "DataFrame", "Dataset", "tuples", "columns", "spaCy", "spaCy's Doc"}
FOLDERS = {"a folder of datasets", "a folder a class", "brat", "parallel files"}
WITHOUT_LINES = {"TSV, UTF-16", "Excel", "Parquet", "spaCy's DocBin"}
OTHERS = OBJECTS | FOLDERS | {"Label Studio (JSON-MIN)"}  # which is read with a mapping of columns
FILES = [(task, name) for task, made in ALL.items() for name in made if name not in OTHERS]


def file_of(task: str, name: str, folder: Path) -> Path:
    path = ALL[task][name](folder)
    assert path.is_file()
    return path


def refused(path: Path, task: str) -> str:
    with pytest.raises(FewShotError) as caught:
        read_rows(path, task)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("task", "name"), FILES)
def test_an_empty_file(task: str, name: str, tmp_path: Path) -> None:
    path = file_of(task, name, tmp_path)
    path.write_bytes(b"")
    refused(path, task)


@pytest.mark.parametrize(("task", "name"), FILES)
def test_a_cut_file_is_told_or_its_whole_rows_are_read(task: str, name: str, tmp_path: Path) -> None:
    path = file_of(task, name, tmp_path)
    whole_rows, data = read_rows(path, task), path.read_bytes()
    for part in (3, 2, 1):
        path.write_bytes(data[: len(data) * part // 4])
        told: list[str] = []
        try:
            assert len(read_rows(path, task)) <= len(whole_rows)
        except FewShotError as error:
            told = str(error).splitlines()
        assert len(told) < 2


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, name in FILES if name not in WITHOUT_LINES]
)
def test_line_ends_of_any_system_beside_one_another(task: str, name: str, tmp_path: Path) -> None:
    path = file_of(task, name, tmp_path)
    rows = read_rows(path, task)
    found = path.read_bytes().split(b"\n")
    path.write_bytes(b"".join(line + (b"\r\n" if i % 2 else b"\n") for i, line in enumerate(found)))
    of = list if task == "translation" else TASKS.get(task)().examples  # which side is read is told elsewhere
    assert of(read_rows(path, task)) == of(rows)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            whole("a.json", studio(marks, "labels", [("short", [(0, 99, "DRUG")])])),
            "Row 1: the span 0 to 99 of DRUG",
        ),
        (
            lines("a.jsonl", [{"text": "short", "label": [[0, 99, "DRUG"]]}]),
            "Row 1: the span 0 to 99 of DRUG",
        ),
        (
            lines("a.jsonl", [{"text": "no", "spans": [{"start": 1, "end": 9, "label": "X"}]}]),
            "Row 1: the span 1 to 9",
        ),
    ],
    ids=["Label Studio", "doccano", "rows"],
)
def test_spans_beyond_the_text(make: Callable[[Path], Path], told: str, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=f"{told}.* is outside the text of"):
        TASKS.get("ner")().examples(read_rows(make(tmp_path), "ner"))


def test_repeated_ids_and_newer_keys_are_passed_over_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [
        {**task, "id": 1, "reviews": []} for task in studio(lambda x: [{"choices": [x]}], "choices", TEXTS)
    ]
    with caplog.at_level(logging.INFO, logger="fewshot_nlp"):
        rows = read_rows(whole("a.json", tasks)(tmp_path), "classification")
    found = TASKS.get("classification")().examples(rows)
    assert sorted((e.inputs["text"], e.target) for e in found) == expected("classification", "Label Studio")
    assert caplog.text.count("keys that are not known are passed over: reviews") == 1
