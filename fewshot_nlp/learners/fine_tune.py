"""Fine-tuning on the support set: an adapter, the whole model, or only a head, by AdamW.

Papers: Hu et al. 2021, LoRA (``scope="adapter"``); Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features
(the head starts from what is known before the features move); Prechelt 1998, Early Stopping.
Deviations: the head starts from the classes' prototypes, label names included, so that no step is lost on
finding it; no dropout. Data needed: from about 8 examples a class. Choose it when the features of the frozen
encoder do not separate the classes, and seconds to minutes of adapting are affordable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import FAST, Learner, LearnerConfig, State, check, check_choice, fast_weights
from fewshot_nlp.learners.heads import linear_scores, prototype_head
from fewshot_nlp.learners.inner_loop import Weights, gradients, need_adapter
from fewshot_nlp.slots import SlotBatch


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(LearnerConfig):
    """Settings of `FineTune`.

    Args:
        scope: what moves beside the head: "adapter", "all" weights of the encoder, or "head" (nothing else).
        steps: optimiser steps at most.
        lr: learning rate of adapter or encoder; None takes 1e-3 for an adapter and 5e-5 for all weights.
        head_lr: learning rate of the head.
        weight_decay: AdamW's, on everything.
        batch_size: examples in a step; the whole support set when it has no more.
        early_stopping: share of the examples held out; training goes back to the step with the least loss on
            them. 0 trains all steps on everything. It takes effect from 20 examples.
        scale: features are L2-normalised and multiplied by this before the head.
        label_smoothing: share of the probability spread over all classes.
    """

    scope: Literal["adapter", "all", "head"] = "adapter"
    steps: int = 60
    lr: float | None = None
    head_lr: float = 1e-2
    weight_decay: float = 0.01
    batch_size: int = 32
    early_stopping: float = 0.0
    scale: float = 8.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "scope", "adapter", "all", "head")
        check(self, "steps", 1, 10**6)
        if self.lr is not None:
            check(self, "lr", 1e-9, 10)
        check(self, "head_lr", 1e-9, 10)
        check(self, "weight_decay", 0, 10)
        check(self, "batch_size", 1, 10**6)
        check(self, "early_stopping", 0, 0.5)
        check(self, "scale", 1e-3, 1e3)
        check(self, "label_smoothing", 0, 0.9)


@LEARNERS.register("fine_tune")
class FineTune(Learner):
    """AdamW on fast weights and a head."""

    name = "fine_tune"
    config_class = FineTuneConfig
    config: FineTuneConfig

    def __init__(self, encoder: Encoder, config: FineTuneConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter":
            need_adapter(encoder, self.config.seed)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights and head after training; with ``meta``, the head before any step (see `meta_loss`)."""
        start = self._start(support)
        examples = support.select(~support.anchor_mask)
        if meta or not examples.n_slots:
            return start
        with torch.enable_grad():
            return self._train(start, examples)

    def score(self, state: State, features: Float[Tensor, "n_slots d"]) -> Float[Tensor, "n_slots n_classes"]:
        """A linear head on the features."""
        return linear_scores(state, self._scaled(features))

    def _scaled(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) * self.config.scale

    def _start(self, support: SlotBatch) -> Weights:
        moving = {
            "adapter": self.encoder.adapter,
            "all": self.encoder.parameters(),
            "head": dict[str, nn.Parameter](),
        }[self.config.scope]
        weights: Weights = {FAST + name: parameter for name, parameter in moving.items()}
        features = self._scaled(self.features(support))
        weights["head.weight"], weights["head.bias"] = prototype_head(features, support, self.config.label_names)
        return weights

    def _train(self, start: Weights, examples: SlotBatch) -> Weights:
        weights = {name: w.detach().clone().requires_grad_() for name, w in start.items()}
        rate = self.config.lr or (5e-5 if self.config.scope == "all" else 1e-3)
        fast = [w for n, w in weights.items() if n.startswith(FAST)]
        head = [w for n, w in weights.items() if not n.startswith(FAST)]
        groups = [{"params": fast, "lr": rate}] * bool(fast) + [{"params": head, "lr": self.config.head_lr}]
        optimiser = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
        steps = self.config.steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / (0.1 * steps + 1), 1 - step / steps)
        )
        train, held_out = self._split(examples)
        best, best_loss = weights, float("inf")
        for step, batch in zip(range(steps), self._batches(train), strict=False):
            loss = batch.loss(self._scores(weights, batch), self.config.label_smoothing)
            for name, grad in gradients(loss, weights).items():
                weights[name].grad = grad
            optimiser.step()
            schedule.step()
            if held_out is not None and (step % 5 == 4 or step == steps - 1):
                with torch.no_grad():
                    value = float(held_out.loss(self._scores(weights, held_out)))
                if value < best_loss:
                    best, best_loss = {n: w.detach().clone() for n, w in weights.items()}, value
        return best

    def _scores(self, weights: Weights, batch: SlotBatch) -> Tensor:
        return linear_scores(weights, self._scaled(self.features(batch, fast_weights(weights))))

    def _split(self, examples: SlotBatch) -> tuple[SlotBatch, SlotBatch | None]:
        groups = examples.groups.unique()
        held = int(len(groups) * self.config.early_stopping)
        if held == 0 or len(groups) < 20:
            return examples, None
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(self.config.seed))
        out = torch.isin(examples.groups, groups[order[:held]])
        return examples.select(~out), examples.select(out)

    def _batches(self, examples: SlotBatch) -> Iterator[SlotBatch]:
        groups = examples.groups.unique()
        generator = torch.Generator().manual_seed(self.config.seed)
        if len(groups) <= self.config.batch_size:
            while True:
                yield examples
        while True:
            for part in groups[torch.randperm(len(groups), generator=generator)].split(self.config.batch_size):
                yield examples.select(torch.isin(examples.groups, part))
