"""Results as JSON lines: a record is appended as soon as it is there, so that a run can be stopped and gone on with.

Where a record keeps its ``blocks``, intervals hold both spreads: that of the support sets and that of the test rows.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot_nlp.comparison.statistics import estimate

N_BLOCKS = 50
"""Stretches of consecutive test rows: rows of one document mostly stand in one."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def earlier_records(path: Path) -> list[dict[str, Any]]:
    """Those that an earlier run left; none where there was none."""
    return read_records(path) if path.exists() else []


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def block_sums(parts: Sequence[tuple[float, float]]) -> list[list[float]]:
    """Sums over `N_BLOCKS` stretches of rows.

    Args:
        parts: a numerator and a denominator a row, such that the score is the ratio of their sums.
    """
    cuts = np.array_split(np.asarray(parts, float), N_BLOCKS)
    return [[round(float(x), 4) for x in cut.sum(axis=0)] for cut in cuts]


def without_each(record: dict[str, Any]) -> NDArray[np.float64]:
    """The record's score without each of its blocks, shape (blocks,); empty where it kept none."""
    blocks = np.asarray(record.get("blocks", []), float).reshape(-1, 2)
    rest = blocks.sum(axis=0) - blocks
    return np.asarray(rest[:, 0] / np.maximum(rest[:, 1], 1e-12))


def interval(
    records: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]] | None = None
) -> tuple[float, float | None]:
    """Mean score over support sets, and half of its 95 % interval.

    Support sets and, where every record kept its blocks, test rows: see `fewshot_nlp.comparison.statistics.estimate`.

    Args:
        records: one for each support set, all scored on the same rows.
        base: where given, records of the same support sets whose scores are subtracted pair by pair.
    """
    values = np.array([r["score"] for r in records])
    left_out = [without_each(r) for r in records]
    if base is not None:
        values = values - [r["score"] for r in base]
        left_out = [a - b for a, b in zip(left_out, map(without_each, base), strict=True)]
    found = estimate(values, left_out)
    return found.mean, found.half
