"""An order of support slots that neither the support set's own order nor the labels' names decide."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fewshot_nlp.slots import SlotBatch


def canonical_order(support: SlotBatch) -> Int[Tensor, " n_slots"]:
    """Numbers of the slots by the token ids of their windows, then by their place; slots of one text stay together.

    What is drawn at random or read in sequence along this order is the same for every order of the support set.
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
