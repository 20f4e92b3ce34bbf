"""Full-context embeddings: vectors of support slots and queries that depend on the whole support set.

Paper: Vinyals et al. 2016, Matching Networks for One Shot Learning, section 2.1.2 and appendix A: the support slot's
vector plus the hidden states of an LSTM in both directions; the query's vector plus the hidden state of an LSTM that
takes K steps over it, with attention to the support set in each. Here the hidden states have a size of their own
and are added through projections that are zero before meta-training.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ContextEmbedding(nn.Module):
    """The paper's g (`support`) and f (`query`).

    Args:
        dimension: length of a slot's vector; vectors have norm 1.
        hidden: units of the LSTMs.
        steps: of the query's LSTM, from 1.
        sharpness: factor of the dot products in its attention; initial value, learned in meta-training.
    """

    def __init__(self, dimension: int, hidden: int, steps: int, sharpness: float) -> None:
        super().__init__()
        self.reader = nn.LSTM(dimension, hidden, bidirectional=True)
        self.cell = nn.LSTMCell(2 * dimension, hidden)
        self.read, self.processed = (nn.Linear(hidden, dimension, bias=False) for _ in range(2))
        self.log_sharpness = nn.Parameter(torch.tensor(float(sharpness)).log())
        self.steps, self.hidden = steps, hidden
        self.input_scale = float(dimension) ** 0.5  # so that the LSTMs' inputs are about 1 in size
        for layer in (self.read, self.processed):
            nn.init.zeros_(layer.weight)

    def support(self, slots: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """g: each slot plus the hidden states of both directions, in the given order."""
        states = self.reader(slots * self.input_scale)[0].view(len(slots), 2, self.hidden).sum(dim=1)
        result: Tensor = slots + self.read(states)
        return result

    def query(self, slots: Float[Tensor, "n d"], support: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        """f: each query slot after K steps; query slots do not depend on each other.

        Args:
            slots: of the query.
            support: what `support` returned.
        """
        state: tuple[Tensor, Tensor] | None = None
        now = slots
        for _ in range(self.steps):
            attention = (now @ support.T * self.log_sharpness.exp()).softmax(dim=-1)
            inputs = torch.cat([slots, attention @ support], dim=1) * self.input_scale
            state = self.cell(inputs, state)
            now = slots + self.processed(state[0])
        return now
