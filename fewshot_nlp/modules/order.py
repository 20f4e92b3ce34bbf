"""An order of support slots that depends neither on the support set's order nor on label names."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fewshot_nlp.slots import SlotBatch


def canonical_order(support: SlotBatch) -> Int[Tensor, " n_slots"]:
    """Indices of the slots, sorted by the token ids of their windows, then by position; slots of a text stay together.

    Random draws and recurrent networks that follow this order give the same result for every order of the support set.
    """
    slots, first = np.unique(support.spans[:, 0], return_index=True)
    place = dict(zip(slots.tolist(), support.spans[first, 1:].tolist(), strict=True))
    sources = support.decoder.sources if support.decoder.sources is not None else [()] * len(support.windows)
    texts = [(tuple(window), tuple(source)) for window, source in zip(support.windows, sources, strict=True)]
    rank = {text: number for number, text in enumerate(sorted(set(texts)))}

    def key(slot: int) -> tuple[int, ...]:
        if slot not in place:
            return (-1,)
        window, begin, end = place[slot]
        return (rank[texts[window]], begin, end)

    return torch.tensor(sorted(range(support.n_slots), key=key), dtype=torch.long)
