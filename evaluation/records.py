"""Results as JSON lines: a record is appended as soon as it is there, so that a run can be stopped and gone on with."""

import json
from pathlib import Path
from typing import Any


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def earlier_records(path: Path) -> list[dict[str, Any]]:
    """Those that an earlier run left; none where there was none."""
    return read_records(path) if path.exists() else []


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
