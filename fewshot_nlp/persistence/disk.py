"""Files that are written whole or not at all, and what the disk said where they could not be."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gives it: ``~`` is the home folder.

    Raises:
        FewShotError: the home folder of nobody (``~nobody/x``).
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FewShotError(f"{path}: there is no such home folder; give the whole path.") from error


def read_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a file of JSON lines that was appended to when a process or a machine stopped.

    A line cut short is passed over, and so are zero bytes, which a file system may leave where data was not written.

    Returns:
        The objects, and how many damaged lines were passed over.
    """
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


@contextmanager
def atomic_write(path: Path, advice: str = "make room, or name another file") -> Iterator[Path]:
    """A file beside ``path`` for the block to write; it then takes that name, or goes where the block fails.

    Args:
        path: the file; its folder is made.
        advice: how an error's message ends.

    Raises:
        FewShotError: the disk is full or may not be written; what was there is as it was.
    """
    path = user_path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except FewShotError:
        raise
    except Exception as error:
        reason = disk_failure(error)
        if reason is None:
            raise
        raise FewShotError(
            f"{path} cannot be written: {reason}. What was there is as it was; {advice}."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def disk_failure(error: Exception) -> str | None:
    """What the disk said, in a word; None where it was not the disk. The Rust libraries raise no OSError."""
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    found = re.search(r"([^:]+) \(os error \d+\)", str(error))
    return found[1].strip() if found else None


def first_line(error: BaseException) -> str:
    """An error's first line, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")
