"""Fine-tuning on the support set: an adapter, the whole model, or only a head, by AdamW.

Papers: Hu et al. 2021, LoRA (``scope="adapter"``); Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features
(LP-FT: the head is first solved on frozen features, then everything moves); Prechelt 1998, Early Stopping.
Deviations: any learner whose state has a head (``head.weight``, ...) may give the start, ``start="prototypes"`` gives
label names their say; no dropout; a model with a head of its own (a translation model) keeps it, and only the
adapter or all weights move. Data needed: from about 8 examples a class. Choose it when the features of the
frozen encoder do not separate the classes, and seconds to minutes of adapting are affordable.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import (
    FAST,
    Learner,
    LearnerConfig,
    State,
    check,
    check_choice,
    fast_weights,
)
from fewshot_nlp.learners.heads import LearnedHead, linear_scores
from fewshot_nlp.learners.inner_loop import fast_bfloat16, gradients, need_adapter
from fewshot_nlp.learners.start import examples_of, moving, on_sphere, prototype_start
from fewshot_nlp.slots import SlotBatch

SHARES = (0.0, 0.5, 1.0)
"""Of the way from the start to the end of training."""
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
ENOUGH_HELD_OUT = 48
WIDTH = 80
"""Slots of a window that are trained on where the task is to find some of them: what is far from them costs time."""


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(LearnerConfig):
    """Settings of `FineTune`.

    Args:
        scope: what moves beside the head: "adapter", "all" weights of the encoder, or "head" (nothing else).
        steps: optimiser steps at most.
        epochs: passes over the examples at most; None for any number.
        lr: learning rate of adapter or encoder; None takes 1e-3 for an adapter and 1e-4 for all weights.
        head_lr: learning rate of the head.
        start: learner whose head is the start: "prototypes" (class means, label names among them), the name of
            a learner that solves a head, e.g. "linear_probe" or "context_probe", or "meta" (learned by meta-training,
            for tasks whose classes are always the same; such a model predicts before any example).
        start_config: that learner's settings.
        n_classes: with "meta", the number of classes: 2 for question answering.
        weight_decay: AdamW's, on everything.
        batch_size: examples in a step; the whole support set when it has no more.
        early_stopping: share of the examples held out; training goes back to the step with the least loss on
            them. 0 trains all steps on everything. It takes effect from 20 examples.
        scale: with "prototypes" and "meta", features are L2-normalised and multiplied by this before the head.
        max_grad_norm: gradients of adapter or encoder are scaled down to this norm.
        label_smoothing: share of the probability spread over all classes.
        folds: from 2 on, the weights go only part of the way from the start to where training led, perhaps none of
            it: as far as lowers the loss of held-out examples in so many folds surely (by a standard error; Wortsman
            et al. 2022, Robust fine-tuning of zero-shot models). It doubles the time; 0 goes all the way.
        bfloat16: compute the encoder in bfloat16 while training, which some processors do twice as fast; None does so
            where the processor has instructions for it.
    """

    scope: Literal["adapter", "all", "head"] = "adapter"
    steps: int = 60
    epochs: int | None = None
    lr: float | None = None
    head_lr: float = 1e-3
    start: str = "prototypes"
    start_config: Mapping[str, Any] = field(default_factory=dict)
    n_classes: int = 2
    weight_decay: float = 0.01
    batch_size: int = 32
    early_stopping: float = 0.0
    scale: float = 8.0
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    folds: int = 0
    bfloat16: bool | None = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "scope", "adapter", "all", "head")
        check(self, "steps", 1, 10**6)
        if self.epochs is not None:
            check(self, "epochs", 1, 10**6)
        if self.lr is not None:
            check(self, "lr", 1e-9, 10)
        check(self, "head_lr", 1e-9, 10)
        check(self, "n_classes", 1, 10**6)
        check(self, "weight_decay", 0, 10)
        check(self, "batch_size", 1, 10**6)
        check(self, "early_stopping", 0, 0.5)
        check(self, "scale", 1e-3, 1e3)
        check(self, "max_grad_norm", 1e-6, 1e6)
        check(self, "label_smoothing", 0, 0.9)
        check(self, "folds", 0, 20)


@LEARNERS.register("fine_tune")
class FineTune(Learner):
    """AdamW on fast weights and a head."""

    name = "fine_tune"
    config_class = FineTuneConfig
    uses_prior = True
    config: FineTuneConfig

    def __init__(self, encoder: Backbone, config: FineTuneConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter":
            need_adapter(encoder, self.config.seed)
        if self.config.scope == "head" and encoder.own_head:
            raise FewShotError(
                "The head is the model's own and stays as it is; take scope='adapter' or 'all'."
            )
        self.start: Learner | None = None
        self.head: LearnedHead | None = None
        if self.config.start == "meta":
            self.head = LearnedHead(self.config.n_classes, encoder.dimension)
        elif self.config.start != "prototypes" and not encoder.own_head:
            start_class = LEARNERS.get(self.config.start)
            self.start = start_class(encoder, start_class.config_class.from_dict(self.config.start_config))

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights and head after training; with ``meta``, the head before any step (see `meta_loss`)."""
        examples = examples_of(support)
        state = self._start(support)
        if meta or not examples.n_slots:
            return state
        if self.config.folds > 1:
            return self._part_of_the_way(state, examples)
        return self._train(state, examples)

    def score(
        self, state: State, features: Float[Tensor, "n_slots d"], batch: SlotBatch
    ) -> Float[Tensor, "n_slots n_classes"]:
        """Scores of the head, as the learner that gave the start computes them."""
        if batch.prior is not None:
            return batch.prior  # the model's own head, which the fast weights have moved
        if self.start is not None:
            return self.start.score(state, features, batch)
        return linear_scores(state, on_sphere(features, self.config.scale))

    def initial(self) -> State | None:
        """With ``start="meta"`` the encoder's weights as they are and the meta-learned head."""
        if self.head is None:
            return super().initial()
        return {**moving(self.encoder, self.config.scope), **self.head.state()}

    def _start(self, support: SlotBatch) -> State:
        state: State = moving(self.encoder, self.config.scope)
        if self.encoder.own_head:
            return state
        if self.head is not None:
            return state | self.head.state(support.n_classes)
        if self.start is not None:
            return state | self.start.fit(support)
        return state | prototype_start(self, support, self.config.scale)

    def _part_of_the_way(self, start: State, examples: SlotBatch) -> State:
        groups = torch.unique(examples.groups)
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(self.config.seed))
        folds = min(self.config.folds, len(groups))
        losses: list[Float[Tensor, "n_examples n_shares n_temperatures"]] = []
        for held in groups[order].chunk(folds) if folds > 1 else ():
            out = torch.isin(examples.groups, held)
            end = self._train(start, examples.select(~out), 1 - 1 / folds)
            losses.append(self._losses([_between(start, end, s) for s in SHARES], examples.select(out)))
            if sum(map(len, losses)) >= ENOUGH_HELD_OUT:
                break
        share = _surely_better(torch.cat(losses)) if losses else 0.0
        if share == 0.0:
            return {name: value.detach().clone() for name, value in start.items()}
        return _between(start, self._train(start, examples), share)

    @torch.no_grad()
    def _losses(
        self, states: Sequence[State], examples: SlotBatch
    ) -> Float[Tensor, "n_examples n_states n_temperatures"]:
        """The loss of each example under each state, with the scores divided by each temperature.

        It is about where in a text the targets are, not whether they are: that is for the task to calibrate.
        """
        examples = examples.around_targets(WIDTH, self.config.seed)
        scores = [self._training_scores(state, examples) for state in states]
        masks = [(examples.groups == g) & examples.has_place for g in torch.unique(examples.groups)]
        parts = [(examples.select(mask), mask.to(self.encoder.device)) for mask in masks]
        return torch.tensor(
            [[[float(part.loss(s[mask] / t)) for t in TEMPERATURES] for s in scores] for part, mask in parts],
            dtype=torch.float64,
        )

    def _training_scores(self, state: State, batch: SlotBatch) -> Float[Tensor, "n_slots n_classes"]:
        """As `query_scores`, the encoder in bfloat16 where that is asked for."""
        device, wanted = self.encoder.device, self.config.bfloat16
        enabled = fast_bfloat16(device) if wanted is None else wanted
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            features = self.features(batch, fast_weights(state))
        return self.scores_of(state, features, batch)

    @torch.enable_grad()
    def _train(self, start: State, examples: SlotBatch, share: float = 1.0) -> State:
        """The state after training; ``share`` of the steps."""
        state = {name: value.detach().clone() for name, value in start.items()}
        weights = {n: w.requires_grad_() for n, w in state.items() if n.startswith((FAST, "head."))}
        fast = {n: w for n, w in weights.items() if n.startswith(FAST)}
        head = {n: w for n, w in weights.items() if not n.startswith(FAST)}
        train, held_out = self._split(examples.around_targets(WIDTH, self.config.seed))
        steps = max(1, round(share * self.config.steps))
        if self.config.epochs is not None:
            batches = -(-len(torch.unique(train.groups)) // self.config.batch_size)
            steps = min(steps, self.config.epochs * batches)
        rate = self.config.lr or (1e-4 if self.config.scope == "all" else 1e-3)
        groups = [
            {"params": list(w.values()), "lr": r} for w, r in ((fast, rate), (head, self.config.head_lr)) if w
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / (0.1 * steps + 1), 1 - step / steps)
        )
        best, best_loss = state, float("inf")
        for step, batch in zip(range(steps), self._batches(train), strict=False):
            loss = batch.loss(self._training_scores(state, batch), self.config.label_smoothing)
            for name, grad in gradients(loss, weights).items():
                weights[name].grad = grad
            if fast:
                torch.nn.utils.clip_grad_norm_(fast.values(), self.config.max_grad_norm)
            optimiser.step()
            schedule.step()
            if held_out is not None and (step % 5 == 4 or step == steps - 1):
                with torch.no_grad():
                    value = float(held_out.loss(self.query_scores(state, held_out)))
                if value < best_loss:
                    best, best_loss = {n: w.detach().clone() for n, w in state.items()}, value
        return best

    def _split(self, examples: SlotBatch) -> tuple[SlotBatch, SlotBatch | None]:
        groups = torch.unique(examples.groups)
        held = int(len(groups) * self.config.early_stopping)
        if held == 0 or len(groups) < 20:
            return examples, None
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(self.config.seed))
        out = torch.isin(examples.groups, groups[order[:held]])
        return examples.select(~out), examples.select(out)

    def _batches(self, examples: SlotBatch) -> Iterator[SlotBatch]:
        groups = torch.unique(examples.groups)
        generator = torch.Generator().manual_seed(self.config.seed)
        if len(groups) <= self.config.batch_size:
            while True:
                yield examples
        while True:
            for part in groups[torch.randperm(len(groups), generator=generator)].split(
                self.config.batch_size
            ):
                yield examples.select(torch.isin(examples.groups, part))


def _between(start: State, end: State, share: float) -> State:
    """Each weight part of the way from a start to an end; what does not move is the start's."""
    return {
        name: torch.lerp(value.detach(), end[name], share) if value.is_floating_point() else value
        for name, value in start.items()
    }


def _surely_better(losses: Float[Tensor, "n_examples n_shares n_temperatures"]) -> float:
    """The share with the least mean loss, where it beats the first by a standard error of the difference; else 0.

    Each share has its best temperature, so that to be more or less sure of the same answers is no gain.
    """
    temperature = losses.mean(dim=0).argmin(dim=1)
    each = losses[:, torch.arange(len(SHARES)), temperature]
    best = int(each.mean(dim=0).argmin())
    gain = each[:, 0] - each[:, best]
    error = gain.std(correction=0) / max(1, len(gain) - 1) ** 0.5
    return SHARES[best] if float(gain.mean()) > float(error) else 0.0
