"""Records that are appended to a file as they come, by runs that may be stopped at any moment."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import atomic_write, disk_failure, user_path


class JsonLines:
    """A file of JSON objects, one a line, each on the disk when `append` returns.

    Lines that a crash has cut short, and zero bytes, which a file system may leave where data was not written, are
    passed over; the next `append` mends the file.

    Args:
        path: the file; it may be missing.
        advice: how the message of a full disk ends.
    """

    def __init__(self, path: str | Path, advice: str = "make room, or name another file") -> None:
        self.path, self._advice = user_path(path), advice
        if self.path.is_dir():
            raise FewShotError(f"{self.path} is a folder; name a file.")
        self.records, self.damaged = _read(self.path) if self.path.exists() else ([], 0)
        if self.damaged:
            logger.warning("%s: %d damaged lines are left out.", self.path, self.damaged)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record.

        Raises:
            FewShotError: the disk is full or may not be written; the records before stay.
        """
        if self.damaged:
            self.replace([*self.records, record])
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.damaged += 1  # a line may be there in part
            raise FewShotError(
                f"{self.path} cannot be written: {disk_failure(error)}. What was there is as it was; {self._advice}."
            ) from error
        self.records.append(dict(record))

    def replace(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes the file anew, whole or not at all; errors as of `append`."""
        self.records = [dict(record) for record in records]
        with atomic_write(self.path, self._advice) as part:
            part.write_bytes(b"".join(map(_line, self.records)))
        self.damaged = 0


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a file, and how many damaged lines were passed over."""
    *lines, last = (line.strip(b"\0 \t\r") for line in path.read_bytes().split(b"\n"))
    records, damaged = [], int(bool(last))
    for line in lines:
        try:
            record = json.loads(line) if line else None
        except ValueError:
            record = ...
        if isinstance(record, dict):
            records.append(record)
        damaged += record is not None and not isinstance(record, dict)
    return records, damaged
