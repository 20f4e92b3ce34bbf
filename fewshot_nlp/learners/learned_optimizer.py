"""A learned optimizer: an LSTM turns gradients on the support set into updates of adapter and head.

Papers: Andrychowicz et al. 2016, Learning to learn by gradient descent by gradient descent (``form="residual"``);
Ravi, Larochelle 2017, Optimization as a Model for Few-Shot Learning (``form="gates"``); the formulas are in
`lstm_optimizer`. The meta-loss is the mean of the query losses after each step (Andrychowicz et al., equation 3 with
equal weights; the mean, so that its size does not depend on the number of steps). It is differentiated through the
optimizer, ``truncation`` steps back, but not through the gradients that are its input. It is computed on the query
set, as in Ravi and Larochelle; Andrychowicz et al. use one loss for training and meta-training. One network serves all
coordinates of the adapter, a second one those of the head.
Deviations: a PEFT adapter and a head are trained; the head starts at the prototypes, so that number and order of
classes are free. Before meta-training it is plain gradient descent. The adapter's initial values are meta-learned
with the optimizer (``train: learner`` trains the optimizer alone). A model with a head of its own (a translation
model) keeps it. Data needed: meta-training; a step stores some hundred numbers for each weight of the
adapter. Choose it for a fixed number of steps, where tuning the rates no longer helps.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.gradient import GradientConfig, GradientLearner, HeadRate, InnerSteps
from fewshot_nlp.modules.inner_loop import Weights
from fewshot_nlp.modules.lstm_optimizer import LSTMOptimizer, learned_path
from fewshot_nlp.modules.start import differentiable_copy, examples_of, inner_rate, seeded, support_loss
from fewshot_nlp.modules.state import FAST, State
from fewshot_nlp.slots import SlotBatch


class LearnedOptimizerConfig(GradientConfig):
    """Settings of `LearnedOptimizer`.

    Args:
        inner_steps: steps on the support set, from 1; take as many as in meta-training.
        truncation: steps through which the meta-loss is differentiated.
        form: "residual": the network's output is added to a gradient step; "gates": it says how much of the weights
            to keep and of the gradient to admit.
        hidden: hidden size of each LSTM layer.
        inner_lr: rate of the initial gradient descent, for the adapter; None takes 0.1, or 0.01 where
            the model has a head of its own.
    """

    inner_steps: InnerSteps = 5
    truncation: Annotated[int, Field(ge=1, le=1000)] = 20
    form: Literal["residual", "gates"] = "residual"
    hidden: Annotated[int, Field(ge=1, le=1000)] = 20
    head_lr: HeadRate = 0.2


class LearnedOptimizer(GradientLearner[LearnedOptimizerConfig], name="learned_optimizer"):
    """Updates of fast weights by a meta-learned LSTM."""

    def __init__(self, encoder: Backbone, config: LearnedOptimizerConfig | None = None) -> None:
        super().__init__(encoder, config)
        rates = {"adapter": inner_rate(encoder, self.config.inner_lr)}
        if encoder.vocabulary is None:
            rates["head"] = self.config.head_lr
        with seeded(self.config.seed):
            self.optimizers = nn.ModuleDict(
                {
                    part: LSTMOptimizer(rate, self.config.form, self.config.hidden)
                    for part, rate in rates.items()
                }
            ).to(encoder.device)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights of adapter and head after the steps."""
        with torch.set_grad_enabled(meta):
            for weights in self.path(support, meta):
                last = weights
        return last

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Mean of the query losses after each step; at the start for a support set of label names only."""
        start, *others = self.path(support, meta=True)
        losses = [query.loss(self.query_scores(weights, query)) for weights in others or [start]]
        return torch.stack(losses).mean()

    def path(self, support: SlotBatch, meta: bool) -> Iterator[Weights]:
        """The weights at the start and after each step."""
        weights = differentiable_copy(self.start(support), meta=meta)
        yield weights
        examples = examples_of(support)
        if examples.n_slots:
            yield from learned_path(
                weights,
                support_loss(self, examples, weights),
                self._optimizer,
                steps=self.config.inner_steps,
                truncation=self.config.truncation,
            )

    def _optimizer(self, name: str) -> LSTMOptimizer:
        found: LSTMOptimizer = self.optimizers["adapter" if name.startswith(FAST) else "head"]  # type: ignore[assignment]
        return found
