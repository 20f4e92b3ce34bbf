"""Rows with the same input and different targets."""

from collections.abc import Sequence
from typing import Literal, get_args

from fewshot_nlp.errors import FewShotError, logger, quoted

Conflicts = Literal["refuse", "first", "drop"]
"""What becomes of examples with the same input and different targets: "refuse" raises an error, "first" keeps the first
target of an input, "drop" leaves out all its examples."""


def without_conflicts(inputs: Sequence[str], targets: Sequence[str], conflicts: Conflicts) -> list[int]:
    """Indices of the rows that are kept; the log tells how many are not.

    Raises:
        FewShotError: two rows that conflict, with their numbers, or another word for ``conflicts``.
    """
    if conflicts not in get_args(Conflicts):
        raise FewShotError(
            f"conflicts is {quoted(conflicts)}, but must be one of: {', '.join(get_args(Conflicts))}."
        )
    first: dict[str, int] = {}
    for number, key in enumerate(inputs):
        first.setdefault(key, number)
    other = [i for i, key in enumerate(inputs) if targets[i] != targets[first[key]]]
    if not other:
        return list(range(len(inputs)))
    begin = first[inputs[other[0]]]
    if conflicts == "refuse":
        raise FewShotError(
            f"Rows {begin + 1} and {other[0] + 1} have the same input but different targets, "
            f"{targets[begin][:80]} and {targets[other[0]][:80]}; keep one of them, or pass conflicts='first' or "
            f"conflicts='drop' for all {len(other)} such. The input begins: {inputs[begin][:60]}."
        )
    clashing = {inputs[i] for i in other}
    gone = set(other if conflicts == "first" else [i for i, key in enumerate(inputs) if key in clashing])
    told = "%d of %d rows left out (%s): %d inputs have different targets; the first is row %d."
    logger.warning(told, len(gone), len(inputs), conflicts, len(clashing), begin + 1)
    return [i for i in range(len(inputs)) if i not in gone]
