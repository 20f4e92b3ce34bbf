"""A key-value memory that is read by attention, in one or more hops.

Paper: Miller et al. 2016, Key-Value Memory Networks for Directly Reading Documents (section 3.1). The query of a hop
is that of the hop before plus a learned map of the read vector. The maps are zero before training, so that all hops
are equal.
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
        hops: number of reads, from 1.
        sharpness: of the attention; initial value.
    """

    def __init__(self, dimension: int, hops: int, sharpness: float = 20.0) -> None:
        super().__init__()
        self.metric = Correction(dimension, dimension, bias=False)
        self.hops = nn.ModuleList(Correction(dimension, dimension, bias=False) for _ in range(hops - 1))
        self.log_sharpness = nn.Parameter(torch.tensor(float(sharpness)).log())

    def keys(self, slots: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Keys, or queries, of slots: vectors under a learned metric, with norm 1."""
        return F.normalize(slots + self.metric(slots), dim=-1)

    def forward(self, queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Attention weights of the keys in the last hop."""
        queries = self.keys(queries)
        weights = self._attention(queries, keys)
        for hop in self.hops:
            queries = F.normalize(queries + hop(weights @ keys), dim=-1)
            weights = self._attention(queries, keys)
        return weights

    def _attention(self, queries: Tensor, keys: Tensor) -> Tensor:
        return (queries @ keys.T * self.log_sharpness.exp()).softmax(dim=-1)
