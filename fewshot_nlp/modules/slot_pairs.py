"""Batches of support slots for contrastive tuning: balanced, and independent of the support set's order.

Two slots are a positive pair if they share a class, and a negative pair if they do not and at least one has a class.
Two slots without any class (context tokens outside of answers) form no pair.
"""

from collections import deque
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fewshot_nlp.slots import Scores, SlotBatch


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """The slots of a step, encoded once, and the pairs formed among them.

    Args:
        slots: their indices in the batch, ascending.
        alike: symmetric matrix of positive pairs; label names, if added, come after the slots.
        different: symmetric matrix of negative pairs.
    """

    slots: Int[Tensor, " n_slots"]
    alike: Bool[Tensor, "n n"]
    different: Bool[Tensor, "n n"]

    @property
    def n_pairs(self) -> int:
        """Number of pairs, each counted once."""
        return int((self.alike | self.different).sum()) // 2


def draws(examples: SlotBatch, steps: int, size: int, seed: int) -> list[Draw]:
    """One batch for each step, with all pairs among its slots; empty if there are no negative pairs.

    Each kind of slot (a set of classes, or none) has the same number of slots in a batch, as far as it has them, so
    that words of class O do not dominate; slots of a small kind repeat sooner.

    Args:
        examples: slots with targets.
        steps: number of draws.
        size: slots in a batch; from 4.
        seed: of the order of slots.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = _kinds(examples)
    if len(kinds) < 2:
        return []
    queues = [deque(kind[i] for i in torch.randperm(len(kind), generator=generator)) for kind in kinds]
    width = min(len(kinds), size // 2)
    result: list[Draw] = []
    turn = deque(torch.randperm(len(kinds), generator=generator).tolist())
    for _ in range(steps):
        chosen: list[int] = []
        for _ in range(width):
            queue = queues[turn[0]]
            turn.rotate(-1)
            chosen += [queue[i] for i in range(min(len(queue), size // width))]
            queue.rotate(-(size // width))
        result.append(_draw(examples.target_matrix, torch.tensor(chosen).sort().values))
    return result


def _kinds(examples: SlotBatch) -> list[list[int]]:
    """Slots by their set of classes, in an order independent of label names and of the order of rows."""
    rows: dict[int, list[int]] = {}
    for slot, window, left, right in examples.spans.tolist():
        rows.setdefault(slot, [*examples.windows[window], -1, left, right])
    targets = [tuple(row) for row in examples.target_matrix.tolist()]
    kinds: dict[tuple[float, ...], list[int]] = {}
    for slot in sorted(rows, key=lambda slot: rows[slot]):
        kinds.setdefault(targets[slot], []).append(slot)
    return list(kinds.values())


def _draw(targets: Scores, slots: Int[Tensor, " n"]) -> Draw:
    rows = targets[slots]
    alike = rows @ rows.T > 0
    some = rows.sum(dim=1) > 0
    different = ~alike & (some[:, None] | some)
    return Draw(slots=slots, alike=alike.fill_diagonal_(False), different=different.fill_diagonal_(False))
