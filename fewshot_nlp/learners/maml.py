"""MAML: meta-learned initial weights, adapted by a few gradient steps on the support set.

Papers: Finn, Abbeel, Levine 2017, Model-Agnostic Meta-Learning (equation 1 and algorithm 2; ``first_order=True``
is its first-order variant, FOMAML); Raghu et al. 2020, Rapid Learning or Feature Reuse (``scope="head"`` is ANIL);
Triantafillou et al. 2020, Meta-Dataset, section 3 (``head="prototypes"`` is Proto-MAML);
Antoniou, Edwards, Storkey 2019, How to Train Your MAML (MAML++): ``multi_step_until``, ``first_order_until`` and
``learned_rates`` are its multi-step loss, derivative-order annealing and learned rates of every layer and step. Of the
paper's other three points, a cosine schedule is a setting of the outer loop, and two concern batch normalisation.
Deviations: the inner loop trains a PEFT adapter, not the whole model. The head starts at zero or at the
prototypes, so that number and order of classes are free (except with ``head="meta"``). A model with a
head of its own (a translation model) keeps it. MAML++'s schedules count outer steps instead of epochs.
Data needed: meta-training; without it this is few-step fine-tuning. Choose it when many source tasks resemble
the target and a new head on frozen features is not enough.
"""

from typing import Literal

import torch
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.gradient import GradientConfig, GradientLearner, InnerSteps
from fewshot_nlp.modules.heads import LearnedHead
from fewshot_nlp.modules.inner_loop import Weights
from fewshot_nlp.modules.rates import LearnedRates
from fewshot_nlp.modules.start import fast_parameters
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Count, Share
from fewshot_nlp.slots import SlotBatch

LEAST = 0.03
"""The weight of earlier steps in the multi-step loss falls to this share of its initial value, then to 0."""


class MAMLConfig(GradientConfig):
    """Settings of `MAML`.

    Args:
        first_order: no second derivatives (FOMAML): less time and memory.
        scope: what the inner loop trains: "adapter" (and head), or "head" alone (ANIL).
        head: initial head: "zeros", "prototypes" (Proto-MAML), or "meta": learned by meta-training as in
            the paper, for tasks whose classes are always the same; such a model predicts before any example.
        n_classes: with "meta", the number of classes: 2 for question answering.
        multi_step_until: first share of meta-training, in which the meta-loss is a weighted sum of the query losses
            after every step, with falling weights of the earlier ones; MAML++ has about 0.1. 0: always the last
            step's loss.
        first_order_until: first share of meta-training, without second derivatives; MAML++ has a third.
        learned_rates: meta-learn a rate for each weight matrix or vector and each step, from the rates above.
    """

    inner_steps: InnerSteps = 5
    first_order: bool = False
    scope: Literal["adapter", "head"] = "adapter"
    head: Literal["zeros", "prototypes", "meta"] = "prototypes"
    n_classes: Count = 2
    multi_step_until: Share = 0.0
    first_order_until: Share = 0.0
    learned_rates: bool = False


class MAML(GradientLearner[MAMLConfig], name="maml"):
    """Gradient steps on fast weights; the meta-gradient runs through the steps."""

    def __init__(self, encoder: Backbone, config: MAMLConfig | None = None) -> None:
        super().__init__(encoder, config)
        self.head: LearnedHead | None = None
        if self.config.head == "meta":
            self.head = LearnedHead(self.config.n_classes, encoder.dimension)
        if self.config.learned_rates:
            self.rates = LearnedRates(self.start_rates(), steps=self.config.inner_steps).to(encoder.device)

    @property
    def scope(self) -> str:
        """What moves beside the head."""
        return self.config.scope

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Query loss after the last step; early in meta-training MAML++'s multi-step loss."""
        importance = step_importance(
            self.config.inner_steps, support.meta.progress, self.config.multi_step_until
        )
        if importance[-1] == 1.0:
            return super().query_loss(support, query)
        first, *others = self.path(support, meta=True)
        if not others:  # label names alone: no step is taken
            return query.loss(self.query_scores(first, query))
        losses = [query.loss(self.query_scores(weights, query)) for weights in others]
        return torch.stack([w * loss for w, loss in zip(importance, losses, strict=True)]).sum()

    def initial_state(self) -> State | None:
        """With ``head="meta"`` the current adapter and the meta-learned head."""
        if self.head is None:
            return super().initial_state()
        return {**fast_parameters(self.encoder, self.scope), **self.head.state()}

    def second_order(self, support: SlotBatch) -> bool:
        """Unless that is off, or it is too early in meta-training."""
        return super().second_order(support) and support.meta.progress >= self.config.first_order_until

    def head_start(self, support: SlotBatch, double_backward: bool) -> Weights:
        """The head before the first step: zeros, the prototypes, or what was meta-learned."""
        if self.head is not None:
            return self.head.state(support.n_classes)
        if self.config.head == "prototypes":
            return super().head_start(support, double_backward)
        bias = torch.zeros(support.n_classes, device=self.encoder.device, dtype=self.encoder.feature_dtype)
        return {"head.weight": bias.new_zeros(support.n_classes, self.encoder.dimension), "head.bias": bias}


def step_importance(steps: int, progress: float, until: float) -> list[float]:
    """Weight of the query loss after each inner step: equal at first, in the end 1 for the last step.

    The schedule of MAML++'s authors: linear, with a least weight of the earlier steps, which is 0 from ``until`` on.

    Args:
        steps: inner steps, from 1.
        progress: share of meta-training that is over.
        until: share of meta-training that the schedule takes.

    Examples:
        >>> step_importance(2, 0.0, 0.1), step_importance(2, 0.05, 0.1), step_importance(2, 0.1, 0.1)
        ([0.5, 0.5], [0.25, 0.75], [0.0, 1.0])
    """
    earlier = max(1 - progress / until, LEAST) / steps if progress < until else 0.0
    return [earlier] * (steps - 1) + [1 - (steps - 1) * earlier]
