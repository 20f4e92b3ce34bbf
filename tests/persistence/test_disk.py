"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import atomic_write


def fail_half_way(path: Path, error: BaseException) -> None:
    with atomic_write(path, "try again") as part:
        part.write_text("half")
        raise error


def test_a_file_appears_when_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as part:
        part.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            r"a\.txt cannot be written: No space left on device\..*",
        ),
        (
            RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
            ".*: File too large\\..*",
        ),
    ],
)
def test_where_the_disk_fails_the_old_file_stays(tmp_path: Path, error: Exception, told: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FewShotError, match=told + "try again"):
        fail_half_way(path, error)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "error", [KeyError("of the caller"), FewShotError("A row is bad."), KeyboardInterrupt()]
)
def test_other_errors_pass_as_they_are(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        fail_half_way(tmp_path / "a.txt", error)
    assert caught.value is error
    assert not list(tmp_path.iterdir())
