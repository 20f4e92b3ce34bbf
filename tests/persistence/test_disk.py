"""Files and folders that are written whole or not at all, beside other writers, readers and kills."""

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence import disk
from fewshot_nlp.persistence.disk import atomic_folder, atomic_write, opened, write_tensors


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


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_weights_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


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


def fill(path: Path, text: str) -> None:
    with atomic_folder(path, own=("a", "b")) as part:
        (part / "a").write_text(text)
        (part / "b").write_text(text)


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_whole_and_keeps_what_is_not_the_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(disk, "_renameat2", lambda: None)
    folder = tmp_path / "deep" / "folder"
    fill(folder, "one")
    (folder / "notes" / "deeper").mkdir(parents=True)
    (folder / "notes" / "deeper" / "x").write_text("mine")
    (folder / "link").symlink_to("a")
    fill(folder, "two")
    assert {p.name: p.read_text() for p in folder.iterdir() if p.is_file()} == dict.fromkeys(
        ("a", "b", "link"), "two"
    )
    assert (folder / "notes" / "deeper" / "x").read_text() == "mine"
    assert (folder / "link").is_symlink()
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


def test_what_a_dead_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    dead = tmp_path / f".x.0123abcd{disk.SCRATCH}"
    (dead / "new").mkdir(parents=True)
    foreign = tmp_path / ".download.part"
    foreign.write_text("")
    with atomic_folder(tmp_path / "y") as part:
        assert not dead.exists()
        with atomic_write(tmp_path / "z") as other:
            other.write_text("z")
        assert part.is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {"y", "z", foreign.name}


def test_an_earlier_folder_without_successor_gets_its_name_back(tmp_path: Path) -> None:
    """As after a kill between the two renames of a system without an exchange."""
    left = tmp_path / f".model.0123abcd{disk.SCRATCH}"
    (left / "old").mkdir(parents=True)
    (left / "old" / "a").write_text("kept")
    (left / "new").mkdir()
    disk.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "a").read_text() == "kept"


def test_a_reader_keeps_the_folder_that_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PATIENCE", 0.0)
    folder = tmp_path / "folder"
    fill(folder, "one")
    with opened(folder) as place:
        fill(folder, "two")
        assert (place / "a").read_text() == (place / "b").read_text() == "one"
        assert (folder / "a").read_text() == "two"
    fill(folder, "three")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


WRITER = """
import sys
from pathlib import Path
from fewshot_nlp.persistence.disk import atomic_folder
number = 0
while True:
    number += 1
    with atomic_folder(Path(sys.argv[1]), own=("a", "b")) as part:
        for name in "ab":
            (part / name).write_text(f"{sys.argv[2]} {number} " + "x" * 5000)
    print(number, flush=True)
"""


def start_writer(folder: Path, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(folder), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_reader_beside_two_writers_never_fails(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    writers = [start_writer(folder, name) for name in ("one", "two")]
    seen: set[str] = set()
    try:
        while len(seen) < 12 or len({name.split()[0] for name in seen}) < 2:
            with opened(folder) as place:
                first = (place / "a").read_text()
                assert first == (place / "b").read_text()
                assert len(first) > 5000
            seen.add(first.split(" x")[0])
            assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def test_kills_leave_a_whole_folder_and_the_next_writer_sweeps(tmp_path: Path) -> None:
    folder, moments = tmp_path / "folder", random.Random(0)
    for number in range(20):
        writer = start_writer(folder, str(number))
        time.sleep(0.03 * moments.random())
        writer.kill()
        writer.wait()
        assert (folder / "a").read_text() == (folder / "b").read_text()
        assert len(list(tmp_path.iterdir())) <= 2
    fill(folder, "end")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
