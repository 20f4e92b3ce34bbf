"""Fair timing: the alternatives take turns in one process, after a warm-up; medians, with the spread beside them.

What is timed is the processor time of this process and of its finished children, all on one thread: other work on
the machine disturbs it less than wall-clock time.
"""

import resource
import statistics
from collections.abc import Callable, Mapping


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, list[float]]:
    """Seconds of each call, ``repeats`` times in turn."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = _cpu_seconds()
            call()
            seconds[name].append(_cpu_seconds() - start)
    return seconds


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def line(name: str, values: list[float]) -> str:
    """A table row: median, least and greatest, in milliseconds."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"| {name} | {middle * 1e3:.1f} | {low * 1e3:.1f} to {high * 1e3:.1f} |"


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the paired ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


HEAD = "| | median ms | range |\n|---|---|---|"
