"""Exact nearest-neighbour search over slot features, as one matrix product a chunk of queries."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def distances(queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], metric: str) -> Float[Tensor, "n m"]:
    """Squared Euclidean or cosine distances of all pairs."""
    if metric == "cosine":
        return 1 - F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).T
    squares = queries.square().sum(dim=1, keepdim=True) + keys.square().sum(dim=1)
    return (squares - 2 * queries @ keys.T).clamp_min(0)


def search(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    k: int,
    metric: str = "euclidean",
    chunk: int = 4096,
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest keys of each query, nearest first.

    Args:
        queries: what to look for.
        keys: what to look in; when there are fewer than k, all of them are returned.
        k: how many; at least 1.
        metric: "euclidean" (squared distances) or "cosine".
        chunk: queries at once, which bounds memory to chunk x m numbers.

    Returns:
        Distances and key numbers.
    """
    found = [
        distances(part, keys, metric).topk(min(k, len(keys)), dim=1, largest=False)
        for part in torch.split(queries, chunk)
    ]
    if not found:
        return queries.new_zeros(0, k), torch.zeros(0, k, dtype=torch.long)
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Keys (slot features) and values (0/1 rows over the classes).

    Args:
        keys: shape [n, d].
        values: shape [n, n_classes].
        metric: "euclidean" or "cosine".
    """

    keys: Float[Tensor, "n d"]
    values: Float[Tensor, "n n_classes"]
    metric: str = "euclidean"

    def add(self, keys: Float[Tensor, "m d"], values: Float[Tensor, "m n_classes"]) -> "Memory":
        """A memory with more entries."""
        return Memory(torch.cat([self.keys, keys]), torch.cat([self.values, values]), self.metric)

    def search(
        self, queries: Float[Tensor, "q d"], k: int
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The k nearest entries of each query: distances and entry numbers."""
        return search(queries, self.keys, k, self.metric)

    def nearest_of_each_class(self, queries: Float[Tensor, "q d"], k: int) -> Float[Tensor, "q n_classes"]:
        """Mean distance to the k nearest entries of each class; infinite for classes without entries."""
        columns = []
        for value in self.values.T:
            keys = self.keys[value > 0]
            if len(keys) == 0:
                columns.append(
                    torch.full((len(queries),), torch.inf, dtype=queries.dtype, device=queries.device)
                )
            else:
                columns.append(search(queries, keys, k, self.metric)[0].mean(dim=1))
        return torch.stack(columns, dim=1)
