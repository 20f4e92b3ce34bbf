"""A key-value memory that is read by attention, several times over.

Paper: Miller et al. 2016, Key-Value Memory Networks for Directly Reading Documents (section 3.1). The query of a hop is
the one before plus a learned map of what was read; the maps are zero before training, and all hops then read the same.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.modules.correction import Correction


class KeyValueReader(nn.Module):
    """Attention over keys.

    Args:
        dimension: of keys and queries.
        hops: how often the memory is read, from 1.
        sharpness: of the attention, at the start.
    """

    def __init__(self, dimension: int, hops: int, sharpness: float = 20.0) -> None:
        super().__init__()
        self.metric = Correction(dimension, dimension, bias=False)
        self.hops = nn.ModuleList(Correction(dimension, dimension, bias=False) for _ in range(hops - 1))
        self.log_sharpness = nn.Parameter(torch.tensor(float(sharpness)).log())

    def keys(self, slots: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Keys, or queries, of slots: their vectors under a learned metric, of length 1."""
        return F.normalize(slots + self.metric(slots), dim=-1)

    def forward(self, queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Weights of the keys at the last hop."""
        queries = self.keys(queries)
        weights = self._attention(queries, keys)
        for hop in self.hops:
            queries = F.normalize(queries + hop(weights @ keys), dim=-1)
            weights = self._attention(queries, keys)
        return weights

    def _attention(self, queries: Tensor, keys: Tensor) -> Tensor:
        return (queries @ keys.T * self.log_sharpness.exp()).softmax(dim=-1)
