"""Memory-augmented networks: an outer memory is filled with the support slots and read by learned addressing.

``kind="neural_turing"``: a controller is shown the support slots one after the other, each with the label of the one
before (x_t, y_{t-1}), and writes to the least recently used rows of a memory that it reads by content. Papers: Santoro
et al. 2016, Meta-Learning with Memory-Augmented Neural Networks (equations 2 to 8); Graves et al. 2014, Neural Turing
Machines (equations 5 and 6). ``kind="key_value"``: Miller et al. 2016, Key-Value Memory Networks (section 3.1).
Deviations: a row keeps the label as a value beside its key, so what is read are shares of the labels, whatever their
number (the papers read a vector, and classify it by a layer as wide as the labels are many); which label goes with
which slot is therefore wired, not learned. The controller is told labels by random orthogonal codes, given in the
order in which labels come, so renaming them changes nothing. Rows never written are not read; one read head. Keys are
the slots' own features, centred on the support set, plus what is learned, at first nothing: untrained it is a soft
nearest neighbour. Shares can be divided by how often memory holds a label. Slots of the query never write.
Translation is refused: a row for each token of each pair would be thousands of steps long for the one, and a value
for each word of the vocabulary for both; the memory for it is kNN-MT, which is `nearest_neighbour`.
Data needed: meta-training on many tasks. Choose it where tasks repeat and how to compare examples must be learned;
the order of the support set matters to "neural_turing" (a seeded shuffle), not to "key_value", which is also faster.
"""

from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import UNSEEN
from fewshot_nlp.modules.key_value import KeyValueReader
from fewshot_nlp.modules.selection import balanced
from fewshot_nlp.modules.start import seeded
from fewshot_nlp.modules.state import State, slot_weights
from fewshot_nlp.modules.turing import TuringMemory
from fewshot_nlp.settings import Count, Scale, Share
from fewshot_nlp.slots import Features, Scores, SlotBatch

FLOOR = 1e-30


class MemoryAugmentedConfig(LearnerConfig):
    """Settings of `MemoryAugmented`.

    Args:
        kind: "neural_turing" or "key_value".
        max_slots: support slots that are stored; of more, as many of each class as of any other where there are enough,
            drawn at random (one of each class at least). Bounds time: "neural_turing" takes a step for each.
        rows: of the memory of "neural_turing"; with fewer than slots, the least recently used are overwritten.
        controller: of "neural_turing": "lstm" or "feed_forward".
        hidden: units of the controller.
        code: dimension of the codes by which it is told labels; up to as many labels have orthogonal ones.
        usage_decay: of a row's usage in one step (the paper's gamma), in [0, 1].
        hops: of "key_value": how often the memory is read, from 1.
        sharpness: cosine similarities are multiplied by this before the softmax; its start value, then learned.
        balance: share of a class's frequency in the memory that its score is freed of, in [0, 1]: 0 as in the papers,
            where a class with twice the slots counts twice; 1 the mean instead of the sum.
    """

    kind: Literal["neural_turing", "key_value"] = "neural_turing"
    max_slots: Count = 256
    rows: Annotated[int, Field(ge=1, le=10**5)] = 256
    controller: Literal["lstm", "feed_forward"] = "lstm"
    hidden: Annotated[int, Field(ge=1, le=4096)] = 64
    code: Annotated[int, Field(ge=1, le=4096)] = 16
    usage_decay: Share = 0.95
    hops: Annotated[int, Field(ge=1, le=20)] = 2
    sharpness: Scale = 20.0
    balance: Share = 0.5


class MemoryAugmented(Learner[MemoryAugmentedConfig], name="memory_augmented"):
    """A memory with learned addressing."""

    order_free = False

    def __init__(self, encoder: Backbone, config: MemoryAugmentedConfig | None = None) -> None:
        super().__init__(encoder, config)
        c = self.config
        self.memory: TuringMemory | KeyValueReader
        with seeded(c.seed):
            if c.kind == "key_value":
                self.memory = KeyValueReader(encoder.dimension, c.hops, c.sharpness)
            else:
                self.memory = TuringMemory(
                    encoder.dimension, c.code, c.hidden, c.controller, c.sharpness, c.usage_decay
                )
        self.balance = nn.Parameter(torch.tensor(float(c.balance)))
        self.to(device=encoder.device, dtype=encoder.feature_dtype)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The memory after the support slots: keys [n, d], values [n, n_classes], and the controller's state.

        For classes that do not exclude each other the values have a second half: "not this class".
        """
        weight = slot_weights(support, self.config.label_names, torch.zeros(0))
        _, kinds = torch.unique(support.target_matrix, dim=0, return_inverse=True)
        kept = (weight > 0).nonzero()[:, 0]
        kept = kept[balanced(kinds[kept], self.config.max_slots, self.config.seed)]
        keep = torch.zeros(support.n_slots, dtype=torch.bool)
        keep[kept] = True
        support = support.select(keep)
        features = self.features(support)
        centre = features.mean(dim=0)
        slots = F.normalize(features - centre, dim=-1)
        targets = support.target_matrix.to(features)
        values = targets if support.normaliser == "classes" else torch.cat([targets, 1 - targets], dim=1)
        values = values * weight[kept].to(features)[:, None]
        if isinstance(self.memory, KeyValueReader):
            return {"centre": centre, "memory.keys": self.memory.keys(slots), "memory.values": values}
        generator = torch.Generator().manual_seed(self.config.seed)
        order = torch.randperm(len(slots), generator=generator).to(features.device)
        codes = label_codes(targets[order], self.config.code, self.config.seed)
        n_rows = min(self.config.rows, len(slots))
        state, _ = self.memory.run(slots[order], values[order], codes, n_rows)
        return {"centre": centre} | {f"memory.{name}": value for name, value in state.items()}

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Logarithm of each class's share of what is read; yes against no where classes do not exclude each other."""
        slots = F.normalize(features - state["centre"], dim=-1)
        memory = {n.removeprefix("memory."): v for n, v in state.items() if n.startswith("memory.")}
        if isinstance(self.memory, KeyValueReader):
            weights: Tensor = self.memory(slots, memory["keys"])
        else:
            weights = self.memory.read(memory, slots)[0]
        held = memory["values"].sum(dim=0)
        shares = (weights @ memory["values"]).clamp_min(FLOOR).log()
        shares = shares - self.balance * held.clamp_min(FLOOR).log().clamp_min(-10)
        if batch.normaliser == "classes":
            return shares.masked_fill(held <= 0, UNSEEN)
        yes, no = shares[:, : batch.n_classes], shares[:, batch.n_classes :]
        return (yes - no).masked_fill(held[: batch.n_classes] <= 0, UNSEEN)


def label_codes(
    targets: Float[Tensor, "n n_classes"], dimension: int, seed: int
) -> Float[Tensor, "n dimension"]:
    """Code of each slot's label, or the sum of its labels' codes: random, orthogonal in blocks of ``dimension``.

    The class that comes first has the first code, and so on; which class that is does not depend on its number.

    Args:
        targets: 0/1 rows, in the order of presentation.
        dimension: of a code.
        seed: for the codes.
    """
    columns = targets.detach().T.cpu().numpy() > 0
    order = sorted(range(len(columns)), key=lambda c: columns[c].tobytes(), reverse=True)
    generator = np.random.default_rng(seed)
    blocks = [
        np.linalg.qr(generator.standard_normal((dimension, dimension)))[0]
        for _ in range(-(-len(order) // dimension))
    ]
    codes = torch.zeros(len(order), dimension, dtype=targets.dtype)
    codes[order] = torch.from_numpy(np.concatenate(blocks)[: len(order)]).to(codes)
    return targets @ codes.to(targets.device)
