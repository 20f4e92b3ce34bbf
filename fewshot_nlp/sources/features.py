"""Rows of a `datasets.Dataset`, with label numbers turned into the names that its features hold."""

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_nlp.errors import FewShotError


def named_rows(table: Any, names: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
    """All rows as dictionaries; numbers of a `ClassLabel`, however deep in a column, become names.

    Args:
        table: a `datasets.Dataset`, or an iterable one that ends.
        names: for some columns, names by number that go before those of the features.

    Raises:
        FewShotError: when a number has no name.
    """
    known = {
        column: found for column, feature in (table.features or {}).items() if (found := _names(feature))
    }
    known.update(names or {})
    rows: list[dict[str, Any]] = (
        table.to_list() if hasattr(table, "to_list") else [dict(row) for row in table]
    )
    for number, row in enumerate(rows, start=1):
        for column, by_id in known.items():
            try:
                row[column] = _named(row[column], by_id)
            except _UnnamedError as error:
                raise FewShotError(f"Row {number}: the column {column!r} holds {error}") from None
    return rows


class _UnnamedError(FewShotError):
    """A number without a name."""


def _names(feature: Any) -> Any:
    """The names of a feature's `ClassLabel`: a sequence of them, or a dictionary where it lies deeper; else None."""
    if hasattr(feature, "str2int"):
        return feature.names
    if isinstance(feature, Mapping):
        return {key: found for key, inner in feature.items() if (found := _names(inner))} or None
    if isinstance(feature, list):
        return _names(feature[0]) if feature else None
    return _names(feature.feature) if hasattr(feature, "feature") else None


def _named(value: Any, names: Any) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(names, Mapping):
        if not isinstance(value, Mapping):
            return value
        return {key: _named(item, names[key]) if key in names else item for key, item in value.items()}
    if not isinstance(value, int):
        return value
    if not 0 <= value < len(names):
        raise _UnnamedError(
            f"{value}, but its {len(names)} names have the numbers 0 to {len(names) - 1}. A row without a label "
            "(-1) must be left out."
        )
    return names[value]
