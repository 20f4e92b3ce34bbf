"""What a memory knows of its keys, and which of them it gives up first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Eviction = Literal["oldest", "least_used", "balanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a store knows of a key.

    Args:
        label: the label or target of the slot, as text; empty where it has none.
        example: id of the example that it came from; empty where it came from a label's name.
        text: what the slot stands for, a word or a whole text.
        place: number of the slot in its example, from 0.
        start: first character of the slot in the example's text; 0 with `end` 0 where that is not known.
        end: character after the last.
        task: name of the task, or of the learning problem, to tell the entries of several tasks apart.
        number: running number of the entry in its store: a later one was remembered later. Given by the store.
        uses: how often a search with ``count_uses`` returned it.
    """

    label: str
    example: str = ""
    text: str = ""
    place: int = 0
    start: int = 0
    end: int = 0
    task: str = ""
    number: int = -1
    uses: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry that a search found, and how far it is."""

    entry: Entry
    distance: float


def evicted(entries: Sequence[Entry], count: int, rule: Eviction) -> set[int]:
    """Places of the entries that go.

    Args:
        entries: in the order in which they were remembered.
        count: how many go.
        rule: "oldest", "least_used" (of those the oldest), or "balanced": the oldest of the label that has most.
    """
    rank: list[tuple[int, ...]] = [(e.number,) for e in entries]
    if rule == "least_used":
        rank = [(e.uses, e.number) for e in entries]
    elif rule == "balanced":  # the n-th newest of every label stays longer than the n+1-th newest of any
        seen: Counter[str] = Counter()
        for place in reversed(range(len(entries))):
            rank[place] = (-seen[entries[place].label], entries[place].number)
            seen[entries[place].label] += 1
    return set(sorted(range(len(entries)), key=rank.__getitem__)[:count])
