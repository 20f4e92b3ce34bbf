"""The log of a run: JSON lines, one an outer step and one a meta-validation."""

from pathlib import Path
from typing import Any

from fewshot_nlp.persistence.json_lines import JsonLines

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
        self._file, self._writes = JsonLines(path, ADVICE), writes
        found = self._file.records if step else []
        self._file.records = [r for r in found if isinstance(r.get("step"), int) and r["step"] <= step]
        if writes:
            self._file.replace(self.records)

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records, in order."""
        return self._file.records

    def add(self, record: dict[str, Any]) -> None:
        """Appends a record, which must have a ``step``."""
        if self._writes:
            self._file.append(record)
        else:
            self.records.append(record)
