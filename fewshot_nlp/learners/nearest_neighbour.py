"""Nearest neighbours: a memory of support slots, looked up by nearness.

Papers: NNShot and StructShot, Yang & Katiyar 2020, Simple and Effective Few-Shot Named Entity Recognition
(section 4); soft votes as in kNN-LM, Khandelwal et al. 2020 (equation 2).
``vote="per_class"`` with k=1 is NNShot; with the NER task's ``transitions="support"`` it is StructShot.
Deviations: features are L2-normalised for the cosine metric; k > 1 takes the mean of the k nearest distances of
a class. Data needed: one example a class. Choose it where a class has several unlike meanings, or where
single examples must be added and removed at any time.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import Learner, LearnerConfig, State, check, check_choice
from fewshot_nlp.memory import Memory
from fewshot_nlp.slots import SlotBatch

FLOOR = 1e-4
"""Probability left to classes that none of the neighbours has."""


@dataclass(frozen=True, kw_only=True)
class NearestNeighbourConfig(LearnerConfig):
    """Settings of `NearestNeighbour`.

    Args:
        k: number of neighbours, from 1.
        vote: "per_class" scores each class by its own k nearest slots; "top_k" lets the k nearest of all vote.
        metric: "euclidean" (squared distance) or "cosine".
        temperature: scores are minus the distance over this.
    """

    k: int = 1
    vote: Literal["per_class", "top_k"] = "per_class"
    metric: Literal["euclidean", "cosine"] = "cosine"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "k", 1, 10**6)
        if not isinstance(self.k, int):
            raise FewShotError(f"k is {self.k!r}, but must be a whole number.")
        check(self, "temperature", 1e-6, 1e6)
        check_choice(self, "vote", "per_class", "top_k")
        check_choice(self, "metric", "euclidean", "cosine")


@LEARNERS.register("nearest_neighbour")
class NearestNeighbour(Learner):
    """k nearest support slots."""

    name = "nearest_neighbour"
    config_class = NearestNeighbourConfig
    config: NearestNeighbourConfig

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The support slots themselves: keys are features, values 0/1 rows over the classes.

        For classes that do not exclude each other the values have a second half: "not this class".
        """
        features = self.features(support)
        values = support.target_matrix.to(features)
        if support.normaliser != "classes":
            values = torch.cat([values, 1 - values], dim=1)
        if self.config.label_names == 0 and support.anchors is not None:
            seen = values[~support.anchors].sum(dim=0) > 0
            keep = ~support.anchors.to(features.device) | (values[:, ~seen].sum(dim=1) > 0)
            features, values = features[keep], values[keep]
        halves = torch.tensor(1 if support.normaliser == "classes" else 2)
        return {"keys": features, "values": values, "halves": halves}

    def score(
        self, state: State, features: Float[Tensor, "n_slots d"], batch: SlotBatch
    ) -> Float[Tensor, "n_slots n_classes"]:
        """Log-votes of the neighbours."""
        memory = Memory(state["keys"], state["values"], self.config.metric)
        if self.config.vote == "per_class":
            scores = (
                -memory.nearest_of_each_class(features, self.config.k).clamp_max(1e4)
                / self.config.temperature
            )
        else:
            distance, index = memory.search(features, self.config.k)
            weight = F.softmax(-distance / self.config.temperature, dim=1)
            votes = (weight[:, :, None] * state["values"][index]).sum(dim=1)
            scores = (votes + FLOOR).log()
        if int(state["halves"]) == 2:
            yes, no = scores.chunk(2, dim=1)
            scores = yes - no
        return scores
