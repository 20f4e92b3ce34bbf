"""Files that are written whole or not at all, and what the disk said where they could not be."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fewshot_nlp.errors import FewShotError


@contextmanager
def atomic_write(path: Path, advice: str = "make room, or name another file") -> Iterator[Path]:
    """A file beside ``path`` for the block to write; it then takes that name, or goes where the block fails.

    Args:
        path: the file; its folder is made.
        advice: how an error's message ends.

    Raises:
        FewShotError: the disk is full or may not be written; what was there is as it was.
    """
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
