"""Memory-augmented networks: an external memory holds the support slots and is read by learned addressing.

``kind="neural_turing"``: a controller reads the support slots one after the other, each with the label of the one
before (x_t, y_{t-1}), and writes to the least recently used rows of a memory that it reads by content. Papers: Santoro
et al. 2016, Meta-Learning with Memory-Augmented Neural Networks (equations 2 to 8); Graves et al. 2014, Neural Turing
Machines (equations 5 and 6). ``kind="key_value"``: Miller et al. 2016, Key-Value Memory Networks (section 3.1).
Deviations: a row stores the label as a value beside its key, so a read gives shares of the labels, for any number of
them (the papers read a vector and classify it by a layer of fixed width). Which label belongs to
which slot is therefore given, not learned: a step writes the key of the slot before, to which the arriving label
belongs, not that of its own slot; the gate of its write is computed with that key. The controller, and the hops of
"key_value", get labels as random orthogonal codes, assigned in the order in which labels appear (for "key_value" in the
order of the slots' token ids), so renaming them changes nothing. Unwritten rows are not
read; there is one read head; of several least used rows the first is written. The meta-loss is at every step of the
support set, as in the paper, whose kind of label an earlier step has shown (before, no row can hold it), and at the
query slots, each of which is the next step after the support set; for positions of an answer at the query slots alone.
Keys are the slots' features, centred on the support set, plus a learned term that is zero before training: untrained
it is a soft nearest neighbour. Shares can be corrected for the frequency of a label in memory. Query slots never
write. Translation is refused: "neural_turing" would take thousands of steps, one for each target token, and both
kinds a value for each token of the vocabulary. kNN-MT (`nearest_neighbour`) is the memory for translation.
Data needed: meta-training on many tasks. Choose it where many related source tasks exist and the comparison must be
learned. The order of the slots matters to "neural_turing" (a seeded shuffle), not to "key_value", which is faster.
"""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import share_scores
from fewshot_nlp.modules.key_value import KeyValueReader
from fewshot_nlp.modules.order import canonical_order
from fewshot_nlp.modules.selection import balanced
from fewshot_nlp.modules.start import seeded
from fewshot_nlp.modules.state import State, slot_weights, target_kinds
from fewshot_nlp.modules.turing import TuringMemory
from fewshot_nlp.settings import Count, Scale, Share
from fewshot_nlp.slots import Features, Scores, SlotBatch


class MemoryAugmentedConfig(LearnerConfig):
    """Settings of `MemoryAugmented`.

    Args:
        kind: "neural_turing" or "key_value".
        max_slots: support slots that are stored; above it a random sample, balanced over classes, with at least one of
            each class. It bounds time: "neural_turing" takes a step for each slot.
        rows: rows of the memory of "neural_turing"; with fewer rows than slots, the least recently used are
            overwritten.
        controller: of "neural_turing": "lstm" or "feed_forward".
        hidden: units of the controller.
        code: dimension of the label codes; so many labels have orthogonal codes.
        usage_decay: factor of a row's usage in each step (the paper's gamma), in [0, 1].
        hops: reads of the memory, from 1; with "key_value".
        sharpness: factor of the cosines before the softmax; initial value, learned in meta-training.
        balance: a class's share is divided by its frequency in memory to this power, in [0, 1]: 0 as in the papers,
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
                self.memory = KeyValueReader(encoder.dimension, c.code, c.hops, c.sharpness)
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
        return self._fit(support)[0]

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Mean loss of the query slots and, for "neural_turing", of the support slots before their labels come."""
        state, steps = self._fit(support)
        loss = query.loss(self.query_scores(state, query))
        if steps is None or steps[0].n_slots == 0:
            return loss
        known, scores = steps
        return (known.loss(scores) * known.n_slots + loss * query.n_slots) / (known.n_slots + query.n_slots)

    def _fit(self, support: SlotBatch) -> tuple[State, tuple[SlotBatch, Scores] | None]:
        """`fit`; and the steps whose label can be known, with their scores, where the memory has steps."""
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
        values = torch.cat(target_kinds(support, features), dim=1) * weight[kept].to(features)[:, None]
        if isinstance(self.memory, KeyValueReader):
            order = canonical_order(support).to(features.device)
            codes = label_codes(targets[order], self.config.code, self.config.seed)[order.argsort()]
            memory = {"keys": self.memory.keys(slots), "values": values, "codes": codes}
            return {"centre": centre} | {f"memory.{name}": value for name, value in memory.items()}, None
        generator = torch.Generator().manual_seed(self.config.seed)
        order = torch.randperm(len(slots), generator=generator).to(features.device)
        codes = label_codes(targets[order], self.config.code, self.config.seed)
        n_rows = min(self.config.rows, len(slots))
        state, found = self.memory.run(slots[order], values[order], codes, n_rows)
        steps = (
            None if support.normaliser == "positions" else self._steps(support, order, values[order], found)
        )
        return {"centre": centre} | {f"memory.{name}": value for name, value in state.items()}, steps

    def _steps(
        self, support: SlotBatch, order: Tensor, values: Tensor, found: Tensor
    ) -> tuple[SlotBatch, Scores]:
        """The steps all of whose kinds of labels were written before, and the scores read there.

        Args:
            support: the slots; only their targets are used.
            order: of the steps.
            values: the steps' labels as the memory stores them.
            found: values that were read before each label came.
        """
        held = values.cumsum(dim=0) - values
        known = ((values > 0) <= (held > 0)).all(dim=1)
        chosen = order[known].cpu()
        batch = replace(support, groups=torch.arange(len(chosen)), targets=support.gold[chosen])
        return batch, share_scores(found[known], held[known], self.balance, batch)

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Logarithm of each class's share of the read values; log-odds where classes do not exclude each other."""
        slots = F.normalize(features - state["centre"], dim=-1)
        memory = {n.removeprefix("memory."): v for n, v in state.items() if n.startswith("memory.")}
        if isinstance(self.memory, KeyValueReader):
            weights: Tensor = self.memory(slots, memory["keys"], memory["codes"])
        else:
            weights = self.memory.read(memory, slots)[0]
        held = memory["values"].sum(dim=0)
        return share_scores(weights @ memory["values"], held, self.balance, batch)


def label_codes(
    targets: Float[Tensor, "n n_classes"], dimension: int, seed: int
) -> Float[Tensor, "n dimension"]:
    """Code of each slot's label (the sum for several labels): random, orthogonal in blocks of ``dimension``.

    Codes are assigned in the order in which classes appear, whatever their numbers.

    Args:
        targets: 0/1 rows, in the order of presentation.
        dimension: length of a code.
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
