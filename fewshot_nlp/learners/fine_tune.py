"""Fine-tuning on the support set: an adapter, the whole model, or only a head, by AdamW; a head also by L-BFGS.

Papers: Hu et al. 2021, LoRA (``scope="adapter"``); Chelba & Acero 2004, Adaptation of Maximum Entropy Capitalizer:
Little Data Can Help a Lot (``C``: a Gaussian prior whose mean is the head at the start); Kumar et al. 2022,
Fine-Tuning can Distort Pretrained Features (LP-FT: the head is first fitted on frozen features, then all weights are
trained); Prechelt 1998, Early Stopping. Off by default: Howard & Ruder 2018, Universal Language Model Fine-tuning
(``layer_decay``, ``unfreeze``); Xuhong, Grandvalet, Davoine 2018, Explicit Inductive Bias for Transfer Learning
(``l2_sp``); Wortsman et al. 2022 (``folds``).
Deviations: the initial head may come from any learner whose state has one (``head.weight``, ...);
``start="prototypes"`` includes label names. Layers unfreeze by shares of the steps, not by epochs. No dropout. Of
ULMFiT's three stages only the last, tuning the classifier, is here: the language model is not tuned on the task's
texts first. Its head reads the encoder's own pooling, not last, largest and mean states together, and rates fall to
0, not to a 32nd. A model with a head of its own (a translation model) keeps it; only the adapter or all weights are
trained. Data needed: from about 8 examples a class. Choose it when the features of the frozen encoder do not separate
the classes, and seconds to minutes of adapting are affordable.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.adamw import Descent, layer_depths, mini_batches
from fewshot_nlp.modules.heads import LearnedHead, linear_scores
from fewshot_nlp.modules.inner_loop import bfloat16, need_adapter
from fewshot_nlp.modules.start import examples_of, fast_parameters, prototype_start, scaled_normalize
from fewshot_nlp.modules.state import FAST, State, fast_weights
from fewshot_nlp.modules.weight_interpolation import between, weight_interpolation
from fewshot_nlp.settings import Count, GradientNorm, LearningRate, Scale, Share, WeightDecay
from fewshot_nlp.slots import Features, Scores, SlotBatch

WIDTH = 80
"""Slots of a window that are trained on where the task is to find some of them: what is far from them costs time."""


class FineTuneConfig(LearnerConfig):
    """Settings of `FineTune`.

    Args:
        scope: what is trained with the head: the "adapter", "all" weights of the encoder, or "head" (nothing else).
        steps: optimizer steps at most.
        epochs: passes over the examples at most; None for any number.
        lr: learning rate of adapter or encoder; None takes 1e-3 for an adapter and 1e-4 for all weights.
        head_lr: learning rate of the head.
        start: initial head: "prototypes" (class means, label names included), the name of a learner that fits a
            head, e.g. "linear_probe" or "context_probe", or "meta" (learned by meta-training, for tasks whose
            classes are always the same; such a model predicts before any example).
        start_config: settings of that learner.
        n_classes: with "meta", the number of classes: 2 for question answering.
        weight_decay: AdamW's, on everything.
        batch_size: examples in a step; at most the whole support set.
        early_stopping: share of the examples held out; the weights of the step with the least loss on them are kept.
            0 trains all steps on everything. It takes effect from 20 examples.
        scale: with "prototypes" and "meta", features are L2-normalised and multiplied by this before the head.
        max_grad_norm: gradients of adapter or encoder are scaled down to this norm.
        label_smoothing: share of the probability spread over all classes.
        layer_decay: the rate of each layer of the encoder is this times that of the layer above; the paper has 1 /
            2.6.
        unfreeze: share of the steps over which layers are unfrozen one by one, the head first, then from the top; 0
            trains all at once.
        l2_sp: weight of half the squared distance of adapter or encoder to their initial values; replaces their decay.
        folds: from 2, the result is an interpolation of initial and trained weights (Wortsman et al. 2022, Robust
            fine-tuning of zero-shot models). Its coefficient is chosen by cross-validation over so many folds, and is
            0 unless the held-out loss falls by more than a standard error. It doubles the time; 0 takes the trained
            weights.
        max_interpolation: the largest coefficient of the trained weights, in [0, 1]; a smaller one forgets less.
        C: with scope="head", inverse strength of a penalty on the squared distance of the head to its start. The head
            that minimises the sum of the losses and this penalty is found by L-BFGS; of the other settings only
            ``folds`` and ``max_interpolation`` count. None takes steps of AdamW.
        bfloat16: compute the encoder in bfloat16 while training, which some processors do twice as fast; None does so
            where the processor has instructions for it.
    """

    scope: Literal["adapter", "all", "head"] = "adapter"
    steps: Count = 60
    epochs: Count | None = None
    lr: LearningRate | None = None
    head_lr: LearningRate = 1e-3
    start: str = "prototypes"
    start_config: Mapping[str, Any] = field(default_factory=dict)
    n_classes: Count = 2
    weight_decay: WeightDecay = 0.01
    batch_size: Count = 32
    early_stopping: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    scale: Scale = 8.0
    max_grad_norm: GradientNorm = 1.0
    label_smoothing: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    layer_decay: Annotated[float, Field(ge=1e-3, le=1)] = 1.0
    unfreeze: Share = 0.0
    l2_sp: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    folds: Annotated[int, Field(ge=0, le=20)] = 0
    max_interpolation: Share = 1.0
    C: Annotated[float, Field(ge=1e-6, le=1e9)] | None = None
    bfloat16: bool | None = False

    @model_validator(mode="after")
    def _start_exists(self) -> Self:
        if self.start not in ("prototypes", "meta"):
            LEARNERS.get(self.start).config_class.from_dict(self.start_config, "start_config")
        return self


class FineTune(Learner[FineTuneConfig], name="fine_tune"):
    """AdamW on fast weights and a head."""

    head_use = "built_on"
    order_free = False  # mini-batches are drawn

    def __init__(self, encoder: Backbone, config: FineTuneConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter":
            need_adapter(encoder, self.config.seed)
        if self.config.scope == "head" and encoder.vocabulary is not None:
            raise FewShotError(
                "The head is the model's own and stays as it is; take scope='adapter' or 'all'."
            )
        self.start: Learner | None = None
        self.head: LearnedHead | None = None
        if self.config.start == "meta":
            self.head = LearnedHead(self.config.n_classes, encoder.dimension)
        elif self.config.start != "prototypes" and encoder.vocabulary is None:
            start_class = LEARNERS.get(self.config.start)
            self.start = start_class(encoder, start_class.config_class.from_dict(self.config.start_config))

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights and head after training; with ``meta``, the head before any step (see `meta_loss`)."""
        examples = examples_of(support)
        state = self._start(support)
        if meta or not examples.n_slots:
            return state
        if self.config.folds > 1:
            return weight_interpolation(
                state, examples, self._reached, self._training_scores, self.config.folds, self.config.seed
            )
        return self._reached(state, examples, 1.0)

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Scores of the head, computed as by the learner that gave the initial head."""
        if batch.decoder.prior is not None:
            return batch.decoder.prior  # the model's own head, which the fast weights have moved
        if self.start is not None:
            return self.start.score(state, features, batch)
        return linear_scores(state, scaled_normalize(features, self.config.scale))

    def initial_state(self) -> State | None:
        """With ``start="meta"`` the encoder's current weights and the meta-learned head."""
        if self.head is None:
            return super().initial_state()
        return {**fast_parameters(self.encoder, self.config.scope), **self.head.state()}

    def _start(self, support: SlotBatch) -> State:
        state: State = fast_parameters(self.encoder, self.config.scope)
        if self.encoder.vocabulary is not None:
            return state
        if self.head is not None:
            return state | self.head.state(support.n_classes)
        if self.start is not None:
            return state | self.start.fit(support)
        return state | prototype_start(self, support, self.config.scale)

    def _training_scores(self, state: State, batch: SlotBatch) -> Scores:
        """`query_scores`, with the encoder in bfloat16 where the settings say so."""
        with bfloat16(self.encoder.device, self.config.bfloat16):
            features = self.features(batch, fast_weights(state))
        return self.scores_of(state, features, batch)

    def _reached(self, start: State, examples: SlotBatch, share: float) -> State:
        """The state after a share of the steps, interpolated with the initial one by `max_interpolation`."""
        if self.config.scope == "head" and self.config.C is not None:
            end = self._solve(start, examples, self.config.C)
        else:
            end = self._train(start, examples, share)
        return between(start, end, self.config.max_interpolation)

    @torch.enable_grad()
    def _solve(self, start: State, examples: SlotBatch, C: float) -> State:
        """The head that minimises the sum of the losses + |head - start|^2 / 2C."""
        features = self.features(examples).detach()
        head = {n: w.detach().clone().requires_grad_() for n, w in start.items() if n.startswith("head.")}
        self._need_weights(head)
        whole = examples.normaliser == "positions"  # one softmax for all slots of an example
        n_losses = len(torch.unique(examples.groups)) * examples.n_classes if whole else examples.n_slots
        optimizer = torch.optim.LBFGS(
            list(head.values()), max_iter=100, history_size=10, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            loss = n_losses * examples.loss(self.scores_of(start | head, features, examples))
            distance = sum((w - start[n].detach()).square().sum() for n, w in head.items())
            total: Tensor = loss + distance / (2 * C)
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        return {n: head[n].detach() if n in head else w.detach().clone() for n, w in start.items()}

    def _need_weights(self, weights: State) -> None:
        if not weights:
            raise FewShotError(
                f"Nothing is trained: scope is 'head', but the start {self.config.start} has no head; take "
                "scope='adapter', or start='prototypes'."
            )

    @torch.enable_grad()
    def _train(self, start: State, examples: SlotBatch, share: float = 1.0) -> State:
        """The state after training; ``share`` of the steps."""
        state = {name: value.detach().clone() for name, value in start.items()}
        weights = {n: w.requires_grad_() for n, w in state.items() if n.startswith((FAST, "head."))}
        self._need_weights(weights)
        train, held_out = self._split(examples.crop_to_targets())
        steps = max(1, round(share * self.config.steps))
        if self.config.epochs is not None:
            batches = -(-len(torch.unique(train.groups)) // self.config.batch_size)
            steps = min(steps, self.config.epochs * batches)
        descent = Descent(
            weights,
            lr=self.config.lr or (1e-4 if self.config.scope == "all" else 1e-3),
            head_lr=self.config.head_lr,
            steps=steps,
            weight_decay=self.config.weight_decay,
            max_grad_norm=self.config.max_grad_norm,
            depths=layer_depths(self.encoder),
            layer_decay=self.config.layer_decay,
            unfreeze=self.config.unfreeze,
            l2_sp=self.config.l2_sp,
        )
        best, best_loss = state, float("inf")
        order = mini_batches(train, self.config.batch_size, self.config.seed)
        for step, batch in zip(range(steps), order, strict=False):
            batch = batch.crop_to_targets(WIDTH, self.config.seed + step)  # another stretch in every pass
            descent.step(batch.loss(self._training_scores(state, batch), self.config.label_smoothing))
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
