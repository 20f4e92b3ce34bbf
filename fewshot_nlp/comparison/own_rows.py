"""A user's rows as data to compare on: repeated ones are told of, and never stand on both sides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import regex

from fewshot_nlp.episode import TaskDataset, canonical_json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.tasks import Task


def own_rows(
    task: Task, rows: Sequence[Mapping[str, Any]], group_column: str | None
) -> tuple[TaskDataset, list[str]]:
    """The distinct rows, and a note on each kind of repetition.

    Rows that differ by case, marks and spaces alone get one group.

    Args:
        task: reads the rows.
        rows: with all columns.
        group_column: the column of the group; None for the task's own.

    Raises:
        FewShotError: there is no row, or one lacks the group.
    """
    if not rows:
        raise FewShotError("There are no rows to compare learners on.")
    if group_column is not None and any(group_column not in row for row in rows):
        raise FewShotError(f"Not every row has the column {group_column!r}, which was named as the group.")
    dataset = task.dataset(rows, "rows", group_column=group_column or task.document_column)
    notes = []
    if len(dataset) < len(rows):
        notes.append(
            f"{len(rows) - len(dataset)} of {len(rows)} rows repeat the input of an earlier one and are left out."
        )
    groups, near = _joined_groups(dataset, [plain(task.asked(e).inputs) for e in dataset.examples])
    if near:
        notes.append(
            f"{near} rows differ from another by case, marks or spaces alone; they stay on one side."
        )
        dataset = replace(dataset, groups=groups)
    return dataset, notes


def plain(inputs: Mapping[str, Any]) -> str:
    """An input's letters and digits, without case; as it is where it has none."""
    words = [regex.findall(r"[\p{L}\p{M}\p{N}]+", str(value).casefold()) for value in inputs.values()]
    return canonical_json(words if any(words) else dict(inputs))


def _joined_groups(dataset: TaskDataset, texts: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Groups in which rows of an equal text stand together, and how many rows repeat the text of an earlier one."""
    groups = list(dataset.groups) or [str(i) for i in range(len(dataset))]
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for text, group in zip(texts, groups, strict=True):
        parent[root(group)] = root(first.setdefault(text, group))
    return tuple(map(root, groups)), len(texts) - len(first)
