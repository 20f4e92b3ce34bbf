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

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import LearnedHead
from fewshot_nlp.modules.inner_loop import Weights, need_adapter, sgd_path
from fewshot_nlp.modules.rates import LearnedRates, start_rates
from fewshot_nlp.modules.start import (
    HeadRate,
    InnerRate,
    InnerSteps,
    differentiable_copy,
    examples_of,
    fast_parameters,
    head_scores,
    inner_rate,
    prototype_start,
    support_loss,
)
from fewshot_nlp.modules.state import FAST, State
from fewshot_nlp.settings import Count, Scale, Share
from fewshot_nlp.slots import Features, Scores, SlotBatch

LEAST = 0.03
"""The weight of earlier steps in the multi-step loss falls to this share of its initial value, then to 0."""


class MAMLConfig(LearnerConfig):
    """Settings of `MAML`.

    Args:
        inner_steps: gradient steps on the support set, from 1.
        inner_lr: their learning rate for the adapter; None takes 0.1, or 0.01 where
            the model has a head of its own.
        head_lr: their learning rate for the head.
        first_order: no second derivatives (FOMAML): less time and memory.
        scope: what the inner loop trains: "adapter" (and head), or "head" alone (ANIL).
        head: initial head: "zeros", "prototypes" (Proto-MAML), or "meta": learned by meta-training as in
            the paper, for tasks whose classes are always the same; such a model predicts before any example.
        n_classes: with "meta", the number of classes: 2 for question answering.
        scale: features are L2-normalised and multiplied by this before the head.
        multi_step_until: first share of meta-training, in which the meta-loss is a weighted sum of the query losses
            after every step, with falling weights of the earlier ones; MAML++ has about 0.1. 0: always the last
            step's loss.
        first_order_until: first share of meta-training, without second derivatives; MAML++ has a third.
        learned_rates: meta-learn a rate for each weight matrix or vector and each step, from the rates above.
    """

    inner_steps: InnerSteps = 5
    inner_lr: InnerRate | None = None
    head_lr: HeadRate = 1.0
    first_order: bool = False
    scope: Literal["adapter", "head"] = "adapter"
    head: Literal["zeros", "prototypes", "meta"] = "prototypes"
    n_classes: Count = 2
    scale: Scale = 4.0
    multi_step_until: Share = 0.0
    first_order_until: Share = 0.0
    learned_rates: bool = False


class MAML(Learner[MAMLConfig], name="maml"):
    """Gradient steps on fast weights; the meta-gradient runs through the steps."""

    head_use = "built_on"

    def __init__(self, encoder: Backbone, config: MAMLConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter":
            need_adapter(encoder, self.config.seed)
        elif encoder.vocabulary is not None:
            raise FewShotError("The head is the model's own and stays as it is; take scope='adapter'.")
        self.head: LearnedHead | None = None
        if self.config.head == "meta":
            self.head = LearnedHead(self.config.n_classes, encoder.dimension)
        self.rates: LearnedRates | None = None
        if self.config.learned_rates:
            start = start_rates(encoder, self.config.inner_lr, self.config.head_lr, self.config.scope)
            self.rates = LearnedRates(start, dict.fromkeys(start, (self.config.inner_steps,)))
            self.rates.to(encoder.device)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights of adapter and head after the inner steps."""
        with torch.enable_grad():
            for weights in self._path(support, meta):
                last = weights
        return last

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Query loss after the last step; early in meta-training MAML++'s multi-step loss."""
        importance = step_importance(
            self.config.inner_steps, support.meta.progress, self.config.multi_step_until
        )
        if importance[-1] == 1.0:
            return super().query_loss(support, query)
        first, *others = self._path(support, meta=True)
        if not others:  # label names alone: no step is taken
            return query.loss(self.query_scores(first, query))
        losses = [query.loss(self.query_scores(weights, query)) for weights in others]
        return torch.stack([w * loss for w, loss in zip(importance, losses, strict=True)]).sum()

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """A linear head on the features, or the model's own head where it has one."""
        return head_scores(state, features, batch, self.config.scale)

    def initial_state(self) -> State | None:
        """With ``head="meta"`` the current adapter and the meta-learned head."""
        if self.head is None:
            return super().initial_state()
        return {**fast_parameters(self.encoder, self.config.scope), **self.head.state()}

    def _path(self, support: SlotBatch, meta: bool) -> Iterator[Weights]:
        """The weights at the start and after each step; a generator, to be consumed with gradients enabled."""
        second_order = (
            meta and not self.config.first_order and support.meta.progress >= self.config.first_order_until
        )
        start = fast_parameters(self.encoder, self.config.scope) | self._head(support, second_order)
        weights = differentiable_copy(start, meta=meta)
        yield weights
        examples = examples_of(support)
        if examples.n_slots:
            yield from sgd_path(
                weights,
                support_loss(self, examples, weights, double_backward=second_order),
                steps=self.config.inner_steps,
                rate=lambda name, step: self._rate(name, step, meta),
                second_order=second_order,
            )

    def _rate(self, name: str, step: int, meta: bool) -> float | Tensor:
        if self.rates is None:
            moves = name.startswith(FAST)
            return inner_rate(self.encoder, self.config.inner_lr) if moves else self.config.head_lr
        rate: Tensor = self.rates(name, step)
        return rate if meta else rate.detach()

    def _head(self, support: SlotBatch, second_order: bool) -> Weights:
        encoder = self.encoder
        if encoder.vocabulary is not None:
            return {}
        if self.head is not None:
            return self.head.state(support.n_classes)
        if self.config.head == "prototypes":
            return prototype_start(self, support, self.config.scale, double_backward=second_order)
        bias = torch.zeros(support.n_classes, device=encoder.device, dtype=encoder.feature_dtype)
        return {"head.weight": bias.new_zeros(support.n_classes, encoder.dimension), "head.bias": bias}


def step_importance(steps: int, progress: float, until: float) -> list[float]:
    """Weight of the query loss after each inner step: equal at first, in the end 1 for the last step.

    The schedule of MAML++'s authors: linear, with a least weight of the earlier steps, which is 0 from ``until`` on.

    Args:
        steps: inner steps, from 1.
        progress: share of meta-training that is over.
        until: share of meta-training that the schedule takes.

    Example:
        >>> step_importance(2, 0.0, 0.1), step_importance(2, 0.05, 0.1), step_importance(2, 0.1, 0.1)
        ([0.5, 0.5], [0.25, 0.75], [0.0, 1.0])
    """
    earlier = max(1 - progress / until, LEAST) / steps if progress < until else 0.0
    return [earlier] * (steps - 1) + [1 - (steps - 1) * earlier]
