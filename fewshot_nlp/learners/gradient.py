"""What learners share that take gradient steps on fast weights: an adapter's, and a head's.

The head is scored on L2-normalised features; a model with a head of its own (a translation model) keeps it.
"""

from collections.abc import Iterator
from typing import Annotated, TypeVar

import torch
from pydantic import Field

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import linear_scores
from fewshot_nlp.modules.inner_loop import Weights, need_adapter, sgd_path
from fewshot_nlp.modules.rates import LearnedRates
from fewshot_nlp.modules.start import (
    differentiable_copy,
    examples_of,
    fast_parameters,
    inner_rate,
    prototype_start,
    scaled_normalize,
    support_loss,
)
from fewshot_nlp.modules.state import FAST, State
from fewshot_nlp.settings import Scale
from fewshot_nlp.slots import Features, Scores, SlotBatch

InnerSteps = Annotated[int, Field(ge=1, le=1000)]
"""Gradient steps on a support set."""
HeadRate = Annotated[float, Field(ge=1e-8, le=100)]
"""Learning rate of the head in them."""


class GradientConfig(LearnerConfig):
    """Settings of a learner that takes gradient steps.

    Args:
        inner_steps: steps on the support set.
        inner_lr: learning rate of the adapter in them, at the start where rates are learned; None takes 0.1, or 0.01
            where the model has a head of its own.
        head_lr: the same of the head.
        scale: features are L2-normalised and multiplied by this before the head.
    """

    inner_steps: Annotated[int, Field(ge=0, le=1000)] = 5
    inner_lr: Annotated[float, Field(ge=1e-8, le=10)] | None = None
    head_lr: HeadRate = 1.0
    scale: Scale = 4.0


Config = TypeVar("Config", bound=GradientConfig, covariant=True)


class GradientLearner(Learner[Config]):
    """Plain gradient descent from the adapter as it is and a head at the prototypes, differentiated through.

    A subclass changes where the head starts (`head_start`), what a step is (`rate`, `path`), or how far derivatives go
    (`second_order`).

    Attributes:
        rates: rates that are meta-learned; None where they are fixed.
    """

    head_use = "built_on"
    rates: LearnedRates | None

    def __init__(self, encoder: Backbone, config: Config | None = None) -> None:
        super().__init__(encoder, config)
        if self.scope == "adapter":
            need_adapter(encoder, self.config.seed)
        elif encoder.vocabulary is not None:
            raise FewShotError("The head is the model's own and stays as it is; take scope='adapter'.")
        self.rates = None

    @property
    def scope(self) -> str:
        """What moves beside the head: "adapter", or "head" for nothing."""
        return "adapter"

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights of adapter and head after the steps."""
        with torch.enable_grad():
            for weights in self.path(support, meta):
                last = weights
        return last

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """A linear head on `scaled_normalize` features, or the model's own head where it has one."""
        if batch.decoder.prior is not None:
            return batch.decoder.prior
        return linear_scores(state, scaled_normalize(features, self.config.scale))

    def path(self, support: SlotBatch, meta: bool) -> Iterator[Weights]:
        """The weights at the start and after each step; to be run through with gradients enabled."""
        second_order = meta and self.second_order(support)
        start = self.start(support, second_order)
        weights = differentiable_copy(start, meta=meta)
        yield weights
        examples = examples_of(support)
        if examples.n_slots:
            yield from sgd_path(
                weights,
                support_loss(self, examples, weights, double_backward=second_order),
                steps=self.config.inner_steps,
                rate=lambda name, step: self.rate(name, step, meta),
                second_order=second_order,
            )

    def second_order(self, support: SlotBatch) -> bool:
        """Whether meta-training keeps the gradients' own graph."""
        return not getattr(self.config, "first_order", False)

    def start(self, support: SlotBatch, double_backward: bool = False) -> Weights:
        """The weights before the first step."""
        head = {} if self.encoder.vocabulary is not None else self.head_start(support, double_backward)
        return fast_parameters(self.encoder, self.scope) | head

    def head_start(self, support: SlotBatch, double_backward: bool) -> Weights:
        """The head before the first step: the prototypes."""
        return prototype_start(self, support, self.config.scale, double_backward=double_backward)

    def rate(self, name: str, step: int, meta: bool) -> float | torch.Tensor:
        """The learning rate of a weight at a step."""
        if self.rates is None:
            moves = name.startswith(FAST)
            return inner_rate(self.encoder, self.config.inner_lr) if moves else self.config.head_lr
        rate: torch.Tensor = self.rates(name, step)
        return rate if meta else rate.detach()

    def start_rates(self) -> dict[str, float]:
        """The rate of each weight before meta-training."""
        rates = dict.fromkeys(
            fast_parameters(self.encoder, self.scope), inner_rate(self.encoder, self.config.inner_lr)
        )
        head = () if self.encoder.vocabulary is not None else ("head.weight", "head.bias")
        return rates | dict.fromkeys(head, self.config.head_lr)
