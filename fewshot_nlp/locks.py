"""Locks that a fork waits for, so that a forked process never starts in the middle of another thread's work.

After a fork the child has one thread only: a lock that another thread held would stay locked in it, weights that
another thread had put in for a pass would stay there, and torch's own threads would be missing, which hangs the next
matrix product. So the forking thread takes all locks first, and the child computes with one thread.
"""

import os
import sys
import threading
from typing import Any
from weakref import WeakSet

_locks: WeakSet[Any] = WeakSet()
_held: list[Any] = []


def shared_lock() -> Any:
    """A reentrant lock that a fork waits for."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def _take_all() -> None:
    _held[:] = list(_locks)
    for lock in _held:
        lock.acquire()


def _give_back() -> None:
    while _held:
        _held.pop().release()


def _begin_in_child() -> None:
    _give_back()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_take_all, after_in_parent=_give_back, after_in_child=_begin_in_child)
