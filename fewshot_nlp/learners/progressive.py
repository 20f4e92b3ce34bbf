"""Progressive networks: each task adds a column, with lateral connections from the frozen earlier columns.

Paper: Rusu et al. 2016, Progressive Neural Networks (equation 2: a new column's layer adds U relu(V [a_j h_j]), where
h_j are the earlier columns' features, a_j learned scalars, and V reduces their dimension). A column here is an
adapter's fast weights and a head. `grow` makes the next `adapt` append a column; earlier columns do not change,
so backward transfer is zero by construction: an earlier task's predictions stay bit-identical.
Deviations: lateral connections enter at the encoder's output, the head's input, instead of at every layer. U starts
at zero, so that a column starts as it would alone, and a_j at 1. The head starts at the prototypes. Steps are
AdamW's. It refuses translation: the head is the model's own there, and lateral connections would enter thousands of
tokens' scores; without them a column is `fine_tune`. Meta-training is first-order (as in FOMAML), for single columns.
Data needed: as for `fine_tune`, from about 8 examples a class. Choose it when tasks come one after the other, none
may get worse, and each may cost an adapter's bytes and one encoder pass for each earlier column.
"""

import re
from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.adamw import Descent, first_order, mini_batches
from fewshot_nlp.modules.heads import linear_scores
from fewshot_nlp.modules.inner_loop import need_adapter
from fewshot_nlp.modules.start import (
    differentiable_copy,
    examples_of,
    fast_parameters,
    prototype_start,
    scaled_normalize,
)
from fewshot_nlp.modules.state import State, fast_weights
from fewshot_nlp.settings import Count, GradientNorm, LearningRate, Scale, WeightDecay
from fewshot_nlp.slots import Features, Scores, SlotBatch

_COLUMN = re.compile(r"column\.(\d+)\.")


class ProgressiveConfig(LearnerConfig):
    """Settings of `Progressive`.

    Args:
        steps: AdamW's steps on a new column, from 1.
        lr: learning rate of the column's adapter.
        head_lr: learning rate of its head and lateral connections.
        lateral_size: dimension of the projected features of earlier columns; 0 leaves lateral connections out.
        batch_size: examples in a step.
        weight_decay: AdamW's.
        max_grad_norm: the adapter's gradients are scaled down to this norm.
        scale: features are L2-normalised and multiplied by this before head and lateral connections.
        task_id: the column that predicts, counted from 0; None for the newest.
    """

    steps: Count = 60
    lr: LearningRate = 1e-3
    head_lr: LearningRate = 1e-2
    lateral_size: Annotated[int, Field(ge=0, le=10**5)] = 32
    batch_size: Count = 32
    weight_decay: WeightDecay = 0.01
    max_grad_norm: GradientNorm = 1.0
    scale: Scale = 8.0
    task_id: Annotated[int, Field(ge=0, le=10**6)] | None = None


class Progressive(Learner[ProgressiveConfig], name="progressive"):
    """A chain of columns; only the newest is trained."""

    order_free = False  # mini-batches are drawn

    def __init__(self, encoder: Backbone, config: ProgressiveConfig | None = None) -> None:
        super().__init__(encoder, config)
        need_adapter(encoder, self.config.seed)
        self.chain: State = {}

    def check_state(self, state: State) -> None:
        """Refuses a chain with a missing column."""
        columns_of(state)

    def grow(self, state: State) -> None:
        """Makes the next `adapt` append a column to this state's chain; the other columns stay unchanged."""
        columns_of(state)
        self.chain = {key: value.detach().clone() for key, value in state.items()}

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The chain with a new column, trained on the support set."""
        earlier = columns_of(self.chain) if self.chain else []
        column = self._train(support, earlier, meta)
        return self.chain | {f"column.{len(earlier)}.{key}": value for key, value in column.items()}

    def query_scores(self, state: State, batch: SlotBatch) -> Scores:
        """Scores of a batch's slots by the chosen column."""
        column = self._chosen(state)[-1]
        return self.score(state, self.features(batch, fast_weights(column)), batch)

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """The chosen column's head and lateral connections; ``features`` are computed with its fast weights."""
        *earlier, column = self._chosen(state)
        return self._column_scores(column, features, self._lateral_input(batch, earlier))

    def _chosen(self, state: Mapping[str, Tensor]) -> list[State]:
        """The columns up to and including the one that predicts."""
        columns, chosen = columns_of(state), self.config.task_id
        if chosen is not None and chosen >= len(columns):
            raise FewShotError(
                f"task_id is {chosen}, but the chain has {len(columns)} columns: take 0 to {len(columns) - 1}."
            )
        return columns if chosen is None else columns[: chosen + 1]

    def _lateral_input(
        self, batch: SlotBatch, earlier: list[State]
    ) -> Float[Tensor, "n_earlier n_slots d"] | None:
        """Features of the frozen columns, each with its own fast weights."""
        if not earlier or not self.config.lateral_size:
            return None
        with torch.no_grad():
            each = [self.features(batch, fast_weights(column)) for column in earlier]
            return scaled_normalize(torch.stack(each), self.config.scale)

    def _column_scores(
        self,
        column: Mapping[str, Tensor],
        features: Features,
        lateral: Float[Tensor, "n_earlier n_slots d"] | None,
    ) -> Scores:
        """Equation 2 at the output: W h + b + U relu(V [a_1 h_1, ..., a_j h_j])."""
        scores = linear_scores(column, scaled_normalize(features, self.config.scale))
        if lateral is None or "lateral.out" not in column:
            return scores
        scaled = lateral * column["lateral.scale"][:, None, None]
        hidden = F.relu(F.linear(scaled.transpose(0, 1).flatten(1), column["lateral.in"]))
        return scores + F.linear(hidden, column["lateral.out"])

    def _train(self, support: SlotBatch, earlier: list[State], meta: bool) -> State:
        with torch.no_grad():
            head = prototype_start(self, support, self.config.scale)
        start = fast_parameters(self.encoder)
        weights = differentiable_copy(
            start | head | self._lateral_start(len(earlier), support.n_classes), meta=False
        )
        examples = examples_of(support)
        if examples.n_slots:
            self._descend(weights, examples, earlier)
        column = {name: value.detach() for name, value in weights.items()}
        return column | first_order({name: column[name] for name in start}, start) if meta else column

    @torch.enable_grad()
    def _descend(self, weights: State, examples: SlotBatch, earlier: list[State]) -> None:
        """Trains a column's weights in place."""
        descent = Descent(
            weights,
            lr=self.config.lr,
            head_lr=self.config.head_lr,
            steps=self.config.steps,
            weight_decay=self.config.weight_decay,
            max_grad_norm=self.config.max_grad_norm,
        )
        inputs: dict[int, Tensor | None] = {}  # a support set of one batch meets the frozen columns once
        order = mini_batches(examples, self.config.batch_size, self.config.seed)
        for _, batch in zip(range(self.config.steps), order, strict=False):
            if batch is not examples or id(batch) not in inputs:
                inputs = {id(batch): self._lateral_input(batch, earlier)}
            features = self.features(batch, fast_weights(weights))
            descent.step(batch.loss(self._column_scores(weights, features, inputs[id(batch)])))

    def _lateral_start(self, n_earlier: int, n_classes: int) -> State:
        """Initial lateral weights: V random, U zero, so that the column starts as it would alone."""
        size, d = self.config.lateral_size, self.encoder.dimension
        if not n_earlier or not size:
            return {}
        like = torch.zeros(0, device=self.encoder.device, dtype=self.encoder.feature_dtype)
        generator = torch.Generator().manual_seed(self.config.seed + n_earlier)
        into = torch.randn(size, n_earlier * d, generator=generator) / (n_earlier * d) ** 0.5
        return {
            "lateral.scale": like.new_ones(n_earlier),
            "lateral.in": into.to(like),
            "lateral.out": like.new_zeros(n_classes, size),
        }


def columns_of(state: Mapping[str, Tensor]) -> list[State]:
    """The columns of a chain, from the first one.

    Raises:
        FewShotError: naming a column that is missing, or that lacks a tensor which another one has.
    """
    columns: dict[int, State] = {}
    for key, value in state.items():
        found = _COLUMN.match(key)
        if found:
            columns.setdefault(int(found[1]), {})[key[found.end() :]] = value
    n_columns = max(columns, default=0) + 1
    for column in columns.values():  # a column says how many come before it
        if "lateral.scale" in column:
            n_columns = max(n_columns, len(column["lateral.scale"]) + 1)
    wanted = {key for column in columns.values() for key in column if not key.startswith("lateral.")}
    for number in range(n_columns):
        lacks = sorted(wanted - set(columns.get(number, {})))
        if number not in columns or lacks:
            what = f" lacks {lacks[0]}" if number in columns else " is missing"
            raise FewShotError(
                f"Column {number} of a progressive chain of {n_columns}{what}; the later columns read it, so take "
                "the whole folder that the last task was saved in."
            )
    return [columns[number] for number in range(n_columns)]
