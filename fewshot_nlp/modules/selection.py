"""A bounded sample of slots that keeps all classes."""

import torch
from jaxtyping import Int
from torch import Tensor


def balanced(kinds: Int[Tensor, " n"], most: int, seed: int = 0) -> Int[Tensor, " m"]:
    """Indices of the sampled slots, ascending: the same quota for every kind, drawn at random within a kind.

    Kinds with fewer slots than the quota are kept whole, and the rest of their quota goes to the others. Renaming
    kinds changes nothing.

    Args:
        kinds: kind of every slot, e.g. its class.
        most: number of slots to keep; each kind keeps at least one, even if there are more kinds than that.
        seed: for the draw.
    """
    n = len(kinds)
    if n <= most:
        return torch.arange(n)
    kinds = kinds.cpu()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    _, place, counts = torch.unique(kinds[order], return_inverse=True, return_counts=True)
    by_kind = torch.argsort(place, stable=True)
    first = counts.cumsum(0) - counts
    rank = torch.empty(n, dtype=torch.long)
    rank[by_kind] = torch.arange(n) - first[place[by_kind]]  # of each slot among its kind, in the drawn order
    turn = torch.argsort(rank, stable=True)  # the first of every kind, then the second of every kind, ...
    return order[turn[: max(most, len(counts))]].sort().values
