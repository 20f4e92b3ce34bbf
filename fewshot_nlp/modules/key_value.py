"""A key-value memory that is read by attention, in one or more hops.

Paper: Miller et al. 2016, Key-Value Memory Networks for Directly Reading Documents (section 3.1): a hop reads the
values, and the next query is a learned map R_j of the query plus what was read. Values are codes of labels under a
learned map. Deviations: queries and keys have norm 1. The map of the values and R_j minus the identity are zero before
training, so that all hops are equal then. The answer is the share of each label in the last read, not a match of the
last query with each candidate.
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
        code: dimension of the values' codes.
        hops: number of reads, from 1.
        sharpness: of the attention; initial value.
    """

    def __init__(self, dimension: int, code: int, hops: int, sharpness: float = 20.0) -> None:
        super().__init__()
        self.metric = Correction(dimension, dimension, bias=False)
        self.value = Correction(code, dimension, bias=False) if hops > 1 else None
        self.hops = nn.ModuleList(Correction(dimension, dimension, bias=False) for _ in range(hops - 1))
        self.log_sharpness = nn.Parameter(torch.tensor(float(sharpness)).log())

    def keys(self, slots: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Keys, or queries, of slots: vectors under a learned metric, with norm 1."""
        return F.normalize(slots + self.metric(slots), dim=-1)

    def forward(
        self, queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], codes: Float[Tensor, "m c"]
    ) -> Float[Tensor, "n m"]:
        """Attention weights of the keys in the last hop; ``codes`` are those of the values."""
        queries = self.keys(queries)
        weights = self._attention(queries, keys)
        if self.value is None:
            return weights
        for hop in self.hops:
            queries = queries + self.value(weights @ codes)
            queries = F.normalize(queries + hop(queries), dim=-1)
            weights = self._attention(queries, keys)
        return weights

    def _attention(self, queries: Tensor, keys: Tensor) -> Tensor:
        return (queries @ keys.T * self.log_sharpness.exp()).softmax(dim=-1)
