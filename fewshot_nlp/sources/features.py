"""Rows of a `datasets.Dataset`, with label numbers turned into the names that its features hold."""

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_nlp.errors import FewShotError


def named_rows(table: Any, names: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
    """All rows as dictionaries; numbers of `ClassLabel` columns, or of lists of them, become names.

    Args:
        table: a `datasets.Dataset`, or an iterable one that ends.
        names: for some columns, names by number that go before those of the features.

    Raises:
        FewShotError: when a number has no name.
    """
    known: dict[str, Sequence[str]] = {}
    for column, feature in (table.features or {}).items():
        inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
        if hasattr(inner, "str2int"):
            known[column] = inner.names
    known.update(names or {})
    rows: list[dict[str, Any]] = (
        table.to_list() if hasattr(table, "to_list") else [dict(row) for row in table]
    )
    for number, row in enumerate(rows, start=1):
        for column, by_id in known.items():
            row[column] = _named(row[column], by_id, column, number)
    return rows


def _named(value: Any, names: Sequence[str], column: str, number: int) -> Any:
    if isinstance(value, list):
        return [_named(item, names, column, number) for item in value]
    if not isinstance(value, int):
        return value
    if not 0 <= value < len(names):
        raise FewShotError(
            f"Row {number}: the column {column!r} holds {value}, but its {len(names)} names have the numbers "
            f"0 to {len(names) - 1}. A row without a label (-1) must be left out."
        )
    return names[value]
