"""A head made of label names: scores of slots from the names of their classes, before any example.

Papers: Ma et al. 2022, Label Semantics for Few Shot Named Entity Recognition (a class is scored by the product of the
slot's vector with a vector of its name); Zaratiana et al. 2024, GLiNER (types as words, many sources).
Deviations: words instead of spans. Names are encoded once, by the encoder without its adapter, so that prediction with
100 types costs no more than with 5. BIO classes of a type share its name and differ in their projection.
Combined with a learner: log p = (1 - w) log p_learner + w log p_head. w falls with the number of labels, since the
head is less accurate for many names. It is 0 for slots whose tokens the support set labels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_nlp.backbone.head import PREFIX, Head, State
from fewshot_nlp.slots import Scores, SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.backbone.base import Backbone


class LabelNameHead(nn.Module, Head):
    """Scores of slots by the names of their classes.

    A class without a name ("O" of entities) has a learned vector. Of the classes of one coarser
    class, the first (B-X) and the others (I-X) have a projection of the name each. Without coarser classes, the
    probability of a class is the sum over both projections.

    Args:
        hidden_size: dimension of a layer's output.
        layer: encoder layer whose output is the head's input, from 1.
        width: dimension of the vectors that are compared.
        seed: for the initial values.
    """

    def __init__(self, hidden_size: int, *, layer: int, width: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.layer, self.width = layer, width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slot = nn.Linear(hidden_size, width)
            self.first = nn.Linear(hidden_size, width)
            self.inner = nn.Linear(hidden_size, width)
            self.rest = nn.Parameter(torch.randn(width) / width**0.5)
        self.rest_bias = nn.Parameter(torch.zeros(()))

    @property
    def settings(self) -> dict[str, int]:
        """Layer and width, as JSON."""
        return {"layer": self.layer, "width": self.width}

    def linear_head(
        self,
        names: Float[Tensor, "n_classes hidden"],
        named: Sequence[bool],
        coarse: Sequence[int] | None = None,
    ) -> State:
        """A linear head: ``weight`` and ``bias``, one or two rows a class, and ``row_class``, each row's class.

        Args:
            names: mean of each class's name vectors; ignored for classes without a name.
            named: which classes have a name.
            coarse: index of each class's coarser class, as in `Hints`.
        """
        unit = F.normalize(names, dim=1) * names.shape[1] ** 0.5
        first, inner = self.first(unit), self.inner(unit)
        rows: list[Tensor] = []
        classes: list[int] = []
        for number, has_name in enumerate(named):
            if not has_name:
                ways: list[Tensor] = [self.rest]
            elif coarse is None:
                ways = [first[number], inner[number]]
            else:
                ways = [(inner if coarse[number] in coarse[:number] else first)[number]]
            rows += ways
            classes += [number] * len(ways)
        vectors = torch.stack(rows) / self.width**0.5
        nameless = torch.tensor([not named[c] for c in classes], device=vectors.device)
        return {
            "weight": vectors @ self.slot.weight,
            "bias": vectors @ self.slot.bias + self.rest_bias * nameless,
            "row_class": torch.tensor(classes, device=vectors.device),
        }

    def named_head(self, vectors: Float[Tensor, "n_slots hidden"], names: SlotBatch) -> State:
        """`linear_head` from a batch of label names.

        Args:
            vectors: of the batch's slots.
            names: slots with targets; a class without a slot has no name.
        """
        targets = names.target_matrix.to(vectors)
        count = targets.sum(dim=0)
        means = (targets.T @ vectors) / count.clamp_min(1)[:, None]
        return self.linear_head(means, (count > 0).tolist(), names.hints.coarse)

    @staticmethod
    def linear_scores(state: State, features: Float[Tensor, "n_slots hidden"]) -> Scores:
        """Scores (unnormalised log-probabilities) of slots.

        Args:
            state: result of `linear_head`.
            features: output of the head's layer.
        """
        rows = F.linear(F.layer_norm(features, [int(features.shape[1])]), state["weight"], state["bias"])
        return _by_class(rows, state["row_class"])

    def fit(self, backbone: "Backbone", names: SlotBatch, support: SlotBatch) -> State:
        """The linear head of the names, and the token hashes of the slots that the support set labels."""
        state = self.named_head(backbone.name_vectors(names), names)
        named = torch.zeros(names.n_classes, dtype=torch.bool)
        named[names.target_matrix.sum(dim=0) > 0] = True
        labelled = named[support.target_matrix.argmax(dim=1)] & ~support.label_slot_mask
        keys = torch.from_numpy(np.unique(support.token_keys[labelled.numpy()]))
        return {PREFIX + key: value for key, value in state.items()} | {PREFIX + "labelled": keys}

    def scores(
        self,
        state: State,
        view: Float[Tensor, "n_slots hidden"],
        fast_weights: Mapping[str, Tensor] | None = None,
    ) -> Scores | None:
        """`linear_scores` of the fitted head; fast weights are ignored, since the view is computed without them."""
        own = {key.removeprefix(PREFIX): value for key, value in state.items()}
        return self.linear_scores(own, view) if own else None

    def join(
        self,
        prior: Scores,
        score: Callable[[SlotBatch], Scores],
        batch: SlotBatch,
        state: State,
        weight: float,
    ) -> Scores:
        """Weighted mean of log-probabilities; the head's weight is ``weight`` / sqrt(number of labels)."""
        scores = score(batch)
        n_labels = len(state[PREFIX + "bias"]) // 2  # a label has two rows
        share = (weight / n_labels**0.5) * (~self.labelled(batch, state)).to(scores)[:, None]
        mixed: Tensor = (1 - share) * F.log_softmax(scores, dim=1) + share * F.log_softmax(
            prior.to(scores), dim=1
        )
        return mixed

    @staticmethod
    def labelled(batch: SlotBatch, state: State) -> Bool[Tensor, " n_slots"]:
        """Which slots have the tokens of a slot that the support set labels."""
        return torch.isin(torch.from_numpy(batch.token_keys), state[PREFIX + "labelled"].cpu())


def _by_class(rows: Float[Tensor, "n r"], row_class: Int[Tensor, " r"]) -> Float[Tensor, "n c"]:
    """Log-sum-exp over the rows of each class."""
    n_classes = int(row_class.max()) + 1
    if n_classes == rows.shape[1]:
        return rows
    top = rows.detach().amax(dim=1, keepdim=True)
    empty = torch.zeros(len(rows), n_classes, dtype=rows.dtype, device=rows.device)
    mass = empty.index_add(1, row_class, (rows - top).exp())
    return mass.clamp_min(1e-30).log() + top
