"""Files and folders that are written whole or not at all, and what the disk said where they could not be.

What is written stands in a scratch folder beside its place until it is complete and flushed; then it takes its name in
one step. A scratch folder is locked as long as its process lives, so the next writer removes what a killed one left. A
reader locks the folder that it reads (`opened`), and whoever replaces that folder waits before removing the old one.
"""

import ctypes
import errno
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows: folders cannot be locked there; what was left is removed when it is old
    fcntl = None  # type: ignore[assignment]

SCRATCH = ".fewshot-part"
"""How the names of scratch folders end."""
STALE = 24 * 3600.0
"""Seconds after which a scratch folder that cannot be locked counts as left behind."""
PATIENCE = 10.0
"""Seconds to wait for the readers of a folder that was replaced; later writers remove it then."""
NEW, OLD = "new", "old"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXCHANGE = 2
_HERE = -100


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gives it: ``~`` is the home folder.

    Raises:
        FewShotError: the home folder of nobody (``~nobody/x``).
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FewShotError(f"{path}: there is no such home folder; give the whole path.") from error


def own_folder(inside: str, checkout: str) -> Path:
    """A folder that comes with the package: inside it where it is installed, else in the repository.

    Raises:
        FewShotError: there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / inside, package.parent / checkout)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise FewShotError(f"There is neither {places[0]} nor {places[1]}; reinstall fewshot-nlp.")
    return found


def write_tensors(tensors: "dict[str, Tensor]", path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes safetensors with the permissions of any new file; by itself the library lets only the owner read it."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)


@contextmanager
def atomic_write(path: Path, advice: str = "make room, or name another file") -> Iterator[Path]:
    """A new file for the block to write; it then takes the name ``path``, or goes where the block fails.

    Args:
        path: the file; its folder is made.
        advice: how an error's message ends.

    Raises:
        FewShotError: the disk is full or may not be written; what was there is as it was.
    """
    path = user_path(path)
    with _told(path, advice), _scratch(path) as scratch:
        part = scratch / NEW
        yield part
        _flush(part)
        part.replace(path)
        _flush_names(path.parent)


@contextmanager
def atomic_folder(
    path: Path, advice: str = "make room, or name another folder", own: Collection[str] | None = None
) -> Iterator[Path]:
    """A new folder for the block to fill; it then takes the name ``path``, or goes where the block fails.

    An earlier folder of that name is exchanged with the new one in one step where the system can (Linux). Elsewhere
    there is a moment without either; if the process is killed in it, the next writer puts the earlier folder back.

    Args:
        path: the folder; it may be there. The folders above are made.
        advice: how an error's message ends.
        own: what the writer replaces in an earlier folder; whatever else is there stays. None for all.

    Raises:
        FewShotError: the disk is full or may not be written; what was there is as it was.
    """
    with _told(path, advice), _scratch(path) as scratch:
        part = scratch / NEW
        part.mkdir()
        yield part
        _flush(part)
        if own is not None and path.is_dir():
            _carry_over(path, part, own)
        _take_name(part, path)
        _flush_names(path.parent)


@contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """The folder as it is now, by a path that leads to it even when another takes its name.

    Where the system has no such path it is the folder's own.
    """
    while True:
        descriptor = _open(folder)
        if descriptor is None:  # what is wrong with it is told by whoever reads
            yield folder
            return
        try:
            _lock(descriptor, shared=True)
            if os.fstat(descriptor).st_nlink:  # else it was replaced and removed before it was locked
                fixed = Path(f"/proc/self/fd/{descriptor}")
                yield fixed if fixed.is_dir() else folder
                return
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes scratch folders of processes that are no more; an earlier folder without successor gets its name back."""
    for scratch in folder.glob(f".*{SCRATCH}"):
        _remove_unused(scratch)


@contextmanager
def _told(path: Path, advice: str) -> Iterator[None]:
    """A failure of the disk in one line."""
    try:
        yield
    except FewShotError:
        raise
    except Exception as error:
        reason = disk_failure(error)
        if reason is None:
            raise
        raise FewShotError(
            f"{path} cannot be written: {reason}. What was there is as it was; {advice}."
        ) from error


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A locked folder beside ``path``, on the same file system; removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    while True:
        scratch = path.with_name(f".{path.name}.{token_hex(4)}{SCRATCH}")
        scratch.mkdir()
        descriptor = _open(scratch)
        if descriptor is None:
            break
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # swept before it was locked
    try:
        yield scratch
    finally:
        if descriptor is not None:
            os.close(descriptor)
        patience = time.monotonic() + PATIENCE
        while not _remove_unused(scratch, own=True) and time.monotonic() < patience:
            time.sleep(0.02)


def _remove_unused(scratch: Path, own: bool = False) -> bool:
    """Removes a scratch folder, unless a writer or a reader holds it; whether nobody does.

    An earlier folder in it whose successor never came is put back.

    Args:
        scratch: the folder.
        own: whether it is this writer's, and may go where nothing can be locked.
    """
    held = [d for d in map(_open, (scratch, scratch / NEW, scratch / OLD)) if d is not None]
    try:
        locked = [_lock(descriptor, wait=False) for descriptor in held]
        if False in locked:
            return False
        if own or True in locked or time.time() - scratch.stat().st_mtime > STALE:
            path = scratch.with_name(scratch.name[1:].removesuffix(SCRATCH)[:-9])
            if (scratch / OLD).exists() and not path.exists():
                (scratch / OLD).rename(path)
            shutil.rmtree(scratch)
    except OSError:  # somebody else has removed it, or may
        return True
    finally:
        for descriptor in held:
            os.close(descriptor)
    return True


def _take_name(part: Path, path: Path) -> None:
    """Gives a folder its name; the one that had it is then in the scratch folder."""
    old = part.with_name(OLD)
    for tries in range(100):
        try:
            if not path.exists():
                part.rename(path)
            elif not _exchange(part, path):
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
                part.rename(path)
            return
        except OSError as error:  # another writer took or gave the name in between
            if tries == 99 or error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
                raise


def _exchange(one: Path, two: Path) -> bool:
    """Exchanges two folders in one step; False where the system or the file system cannot."""
    function = _renameat2()
    if function is None:
        return False
    if function(_HERE, os.fsencode(one), _HERE, os.fsencode(two), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(two))


@cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux
        return None


def _carry_over(old: Path, new: Path, own: Collection[str]) -> None:
    """Takes into a new folder what of the old one is not the writer's, as links where they can be made."""
    for path in old.iterdir():
        if path.name in own or (new / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=_link_or_copy)
        else:
            _link_or_copy(str(path), str(new / path.name))


def _link_or_copy(old: str, new: str) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)


def _flush(path: Path) -> None:
    """Sees to it that a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _flush(entry)
        _flush_names(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    descriptor = _open(folder)
    if descriptor is not None:
        with suppress(OSError):  # a file system that cannot
            os.fsync(descriptor)
        os.close(descriptor)


def _open(folder: Path) -> int | None:
    """A descriptor of a folder; None where there is no such folder, or the system gives none."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, AttributeError):
        return None


def _lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> bool | None:
    """Whether a folder is now locked, until its descriptor is closed; None where nothing can be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def disk_failure(error: Exception) -> str | None:
    """What the disk said, in a word; None where it was not the disk. The Rust libraries raise no OSError."""
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    found = re.search(r"([^:]+) \(os error \d+\)", str(error))
    return found[1].strip() if found else None


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that the disk is full; databases say so in words."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or "disk is full" in str(error):
            return True
        error = error.__cause__
    return False


def first_line(error: BaseException) -> str:
    """An error's first line, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")
