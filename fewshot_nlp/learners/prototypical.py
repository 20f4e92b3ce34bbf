"""Prototypical networks: a class is the mean of its slots' features.

Paper: Snell, Swersky, Zemel 2017, Prototypical Networks for Few-shot Learning (equations 1 and 2).
Deviations: a learned temperature scales the distances (as in TADAM, Oreshkin et al. 2018); label names may
count as extra support rows; classes that do not exclude each other have a prototype for yes and one for no.
Data needed: one example a class, or a label's name. Choose it for many classes with very few examples each,
when adapting must cost nothing, or as the learner to meta-train with the least memory.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import (
    Learner,
    LearnerConfig,
    State,
    check,
    check_choice,
    class_sums,
    slot_weights,
)
from fewshot_nlp.slots import SlotBatch


@dataclass(frozen=True, kw_only=True)
class PrototypicalConfig(LearnerConfig):
    """Settings of `Prototypical`.

    Args:
        metric: "euclidean" (squared distance) or "cosine".
        temperature: scores are minus the distance over this; the start value when it is meta-learned. None
            takes 0.1 for cosine and the mean distance between slots and prototypes for Euclidean.
    """

    metric: Literal["euclidean", "cosine"] = "cosine"
    temperature: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "metric", "euclidean", "cosine")
        if self.temperature is not None:
            check(self, "temperature", 1e-6, 1e6)


@LEARNERS.register("prototypical")
class Prototypical(Learner):
    """Nearest class mean."""

    name = "prototypical"
    config_class = PrototypicalConfig
    config: PrototypicalConfig

    def __init__(self, encoder: Encoder, config: PrototypicalConfig | None = None) -> None:
        super().__init__(encoder, config)
        start = self.config.temperature
        if start is None:
            start = 0.1 if self.config.metric == "cosine" else float(encoder.dimension) ** 0.5
        self.log_temperature = nn.Parameter(torch.tensor(float(start)).log())

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Means of the classes' features, shape [1 or 2, n_classes, d]; the second are "not this class"."""
        features = self._space(self.features(support))
        weight = slot_weights(support, self.config.label_names, features)[:, None]
        targets = support.target_matrix.to(features)
        kinds = [targets] if support.normaliser == "classes" else [targets, 1 - targets]
        means = []
        for kind in kinds:
            total, mass = class_sums(features, kind * weight)
            means.append(total / mass.clamp_min(1e-12)[:, None])
        seen = (targets * weight).sum(dim=0) > 0
        return {"prototypes": torch.stack(means), "seen": seen, "log_temperature": self.log_temperature}

    def score(
        self, state: State, features: Float[Tensor, "n_slots d"], batch: SlotBatch
    ) -> Float[Tensor, "n_slots n_classes"]:
        """Minus the distance to each prototype over the temperature (Snell et al., equation 2)."""
        features = self._space(features)
        scores = -self._distance(features, state["prototypes"][0])
        if len(state["prototypes"]) == 2:
            scores = scores + self._distance(features, state["prototypes"][1])
        return scores.masked_fill(~state["seen"], -1e4) / state["log_temperature"].exp()

    def _space(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) if self.config.metric == "cosine" else features

    def _distance(self, features: Tensor, prototypes: Tensor) -> Tensor:
        if self.config.metric == "cosine":
            return 1 - features @ F.normalize(prototypes, dim=-1).T
        squares = features.square().sum(dim=1, keepdim=True) + prototypes.square().sum(dim=1)
        return (squares - 2 * features @ prototypes.T).clamp_min(0)
