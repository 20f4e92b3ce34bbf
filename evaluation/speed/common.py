"""Fair timing: the alternatives take turns in one process, after a warm-up; medians, with the spread beside them."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, list[float]]:
    """Seconds of each call, ``repeats`` times in turn."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def line(name: str, values: list[float]) -> str:
    """A table row: median, least and greatest, in milliseconds."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"| {name} | {middle * 1e3:.1f} | {low * 1e3:.1f} to {high * 1e3:.1f} |"


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the paired ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


HEAD = "| | median ms | range |\n|---|---|---|"
