"""SIGTERM and SIGINT: finish the episode, give up the unfinished outer step, save, and only then exit."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

LAUNCHED = "ACCELERATE_MIXED_PRECISION"
"""A variable that every kind of `accelerate launch` sets."""


class Stopped(Exception):  # noqa: N818 - no error: it is raised in every process when any was asked to stop
    """The work in hand was given up because of a signal; the state is that before it."""


class Interruption:
    """While the block runs, the first signal is noted; a second one acts as it always did.

    Outside of the main thread, where Python sets no handlers, signals act as they always did. With one process,
    ``accelerate launch`` dies of a signal without passing it on; that it is gone counts as a signal.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._launcher = os.getppid() if LAUNCHED in os.environ else None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def should_stop(self) -> bool:
        """Whether a signal came, or the launcher is gone."""
        return self.signal is not None or self._launcher not in (None, os.getppid())

    def leave(self) -> None:
        """Ends the process as the signal would have: `KeyboardInterrupt`, or exit code 143."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal or signal.SIGTERM))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
