"""The log of a run: JSON lines, one an outer step and one a meta-validation."""

import json
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import atomic_write, disk_failure, read_records

ADVICE = "checkpoints stay; make room and start the run again"


class Journal:
    """Appends records to a file; a resumed run first drops what came after its checkpoint.

    Args:
        path: the file.
        step: outer steps done; records of later steps, and damaged lines, are dropped. 0 drops all: the run
            begins anew.
        writes: whether this process writes; the others only keep the records.

    Raises:
        FewShotError: the disk is full or may not be written; so does `add`.
    """

    def __init__(self, path: Path, step: int, *, writes: bool) -> None:
        self._path, self._writes = path, writes
        self.records: list[dict[str, Any]] = []
        if step and path.exists():
            found, damaged = read_records(path)
            self.records = [r for r in found if isinstance(r.get("step"), int) and r["step"] <= step]
            if damaged:
                logger.warning("%s: %d damaged lines are left out.", path, damaged)
        if writes:
            with atomic_write(path, ADVICE) as part:
                part.write_text("".join(json.dumps(r) + "\n" for r in self.records), encoding="utf-8")

    def add(self, record: dict[str, Any]) -> None:
        """Appends a record, which must have a ``step``."""
        self.records.append(record)
        if not self._writes:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise FewShotError(
                f"{self._path} cannot be written: {disk_failure(error)}. {ADVICE.capitalize()}."
            ) from error
