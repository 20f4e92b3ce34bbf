"""Stacked probe: logistic regression, shrunk discriminant analysis and label names, weighted by cross-validation.

Papers: Wolpert 1992, Stacked Generalization (weights by out-of-fold log-loss, which calibrates as well); Friedman
1989, Regularized Discriminant Analysis. Features of the last and of other layers are L2-normalised one by one,
centred on the support set and scaled to unit mean square, the other layers with a smaller weight.
Deviations: label names are extra rows only where their similarity to texts predicts the labels better than chance.
The state tells the information in nats that out-of-fold scores give about a label, as a share of all (`INFORMATION`).
Data needed: from one example a class (then names have the largest weight). Choose it for classification: it is the
default there, see docs/learners.md for the measurement.
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fewshot_nlp.learners.base import Learner, LearnerConfig, NameWeight
from fewshot_nlp.learners.linear_probe import logistic_regression
from fewshot_nlp.modules.linear_models import (
    PreconditionedRegression,
    apply,
    log_softmax,
    shrunk_lda,
    stack_weights,
    stratified_folds,
    unit_rows,
)
from fewshot_nlp.modules.state import State
from fewshot_nlp.slots import Features, Scores, SlotBatch

PRIOR = {"regression": 1.0, "discriminant": 0.01, "names": 1.0}
"""Weights of the heads before any evidence; their scores differ in scale."""
STRENGTH = 0.5
FOLDS = 5
ENOUGH_HELD_OUT = 300
ONE_SHOT_SCALE = 2.0
"""Weight of the regression where every class has one row, so that nothing can be held out."""
ZERO_SHOT_SCALE = 10.0
"""Inverse temperature of the similarity to label names where there are no rows at all."""
INFORMATION = "information"
"""In a state, where rows could be held out: 1 - (their log-loss) / log(number of classes), at most 1."""


class StackedProbeConfig(LearnerConfig):
    """Settings of `StackedProbe`.

    Args:
        label_names: weight of a label name's row in the regression; 0 leaves names out altogether.
        C: inverse strength of the regression's penalty.
        shrinkage: of the discriminant analysis's covariance towards the identity, in (0, 1].
        other_layers: weight of all layers but the last.
        name_evidence: information in nats a row that the names' similarity must give about the labels for names to be
            used.
    """

    label_names: NameWeight = 4.0
    C: Annotated[float, Field(ge=1e-6, le=1e9)] = 10.0
    shrinkage: Annotated[float, Field(ge=1e-3, le=1)] = 0.8
    other_layers: Annotated[float, Field(ge=0, le=10)] = 0.6
    name_evidence: Annotated[float, Field(ge=-1e9, le=1e9)] = 0.1


class StackedProbe(Learner[StackedProbeConfig], name="stacked_probe"):
    """Weighted sum of three heads with a closed-form or convex solution."""

    meta_learns = False
    order_free = False

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Centre and scale of the features, one linear head, and the label names with their weight."""
        return self.solve(self.features(support), support)

    def solve(self, features: Features, support: SlotBatch) -> State:
        """`fit` with given features of the support set."""
        blocks = self._blocks(features)
        label_slots = support.label_slot_mask
        examples = blocks[~label_slots] if bool((~label_slots).any()) else blocks
        mean = examples.mean(dim=0)
        scale = (examples - mean).square().sum(dim=2).mean(dim=0).sqrt().clamp_min(1e-6)
        state: State = {"mean": mean, "scale": scale}
        targets = support.target_matrix.numpy()
        rows = self._rows(state, blocks[~label_slots])
        names, name_targets = self._names(state, blocks, support)
        if support.normaliser != "classes":
            x = np.concatenate([rows, names])
            weight = np.r_[np.ones(len(rows)), np.full(len(names), self.config.label_names)]
            head = logistic_regression(
                x, np.concatenate([targets[~label_slots.numpy()], name_targets]), weight, self.config.C, False
            )
            similarity, name_weight, information = np.zeros((0, rows.shape[1])), 0.0, None
        else:
            head, similarity, name_weight, information = self._fit_classes(
                rows,
                targets[~label_slots.numpy()].argmax(axis=1),
                names,
                name_targets.argmax(axis=1),
                support.n_classes,
            )
        state["head.weight"] = torch.from_numpy(head[:, :-1]).to(blocks)
        state["head.bias"] = torch.from_numpy(head[:, -1]).to(blocks)
        state["names"] = torch.from_numpy(similarity).to(blocks)
        state["name_weight"] = torch.tensor(float(name_weight)).to(blocks)
        if information is not None:
            state[INFORMATION] = torch.tensor(information).to(blocks)
        return state

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Weighted scores of the linear heads and of the similarity to the label names."""
        rows = self._scaled(state, self._blocks(features))
        scores = F.linear(rows, state["head.weight"], state["head.bias"])
        if len(state["names"]):
            scores = scores + state["name_weight"] * (
                F.normalize(self.last_layer(rows), dim=1) @ state["names"].T
            )
        return scores

    def _blocks(self, features: Tensor) -> Float[Tensor, "n layers hidden"]:
        """L2-normalised features, one row a layer."""
        n_layers = len(self.encoder.layers)
        return F.normalize(features.view(-1, n_layers, features.shape[1] // n_layers), dim=2)

    def _scaled(self, state: State, blocks: Tensor) -> Float[Tensor, "n d"]:
        weights = blocks.new_full((blocks.shape[1], 1), self.config.other_layers)
        weights[-1] = 1.0
        return ((blocks - state["mean"]) / state["scale"][:, None] * weights).flatten(1)

    def _rows(self, state: State, blocks: Tensor) -> Float[np.ndarray, "n d"]:
        return self._scaled(state, blocks).detach().cpu().float().numpy()

    def _names(
        self, state: State, blocks: Tensor, support: SlotBatch
    ) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m c"]]:
        """Label names as rows: shifted from the names' mean to the mean of the class means, last layer only."""
        label_slots = support.label_slot_mask
        targets = support.target_matrix.to(blocks)
        if self.config.label_names == 0 or not bool(label_slots.any()):
            shapes = ((0, blocks.shape[1] * blocks.shape[2]), (0, support.n_classes))
            return np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32)
        names = blocks[label_slots]
        centre = names.mean(dim=0)
        if bool((~label_slots).any()):
            of_class = targets[~label_slots]
            sums = torch.einsum("nc,nlh->clh", of_class, blocks[~label_slots])
            count = of_class.sum(dim=0)
            shown = count > 0
            means = sums[shown] / count[shown, None, None] if bool(shown.any()) else blocks[~label_slots]
            centre = centre - means.mean(dim=0)
        rows = self._rows(state, names - centre)
        rows[:, : rows.shape[1] - blocks.shape[2]] = 0.0
        return rows, targets[label_slots].cpu().numpy()

    def _fit_classes(
        self,
        x: Float[np.ndarray, "n d"],
        y: Int[np.ndarray, " n"],
        names: Float[np.ndarray, "m d"],
        name_classes: Int[np.ndarray, " m"],
        n_classes: int,
    ) -> tuple[Float[np.ndarray, "c d1"], Float[np.ndarray, "c hidden"], float, float | None]:
        """Head, unit label-name vectors (none when unused), their weight, and the information where it is known."""
        hidden = x.shape[1] // len(self.encoder.layers)
        no_names = np.zeros((0, hidden), np.float32)
        similarity = no_names
        if len(names):
            similarity = np.zeros((n_classes, hidden), np.float32)
            np.add.at(similarity, name_classes, names[:, -hidden:])
            similarity = unit_rows(similarity)
        if not len(x):
            return np.zeros((n_classes, names.shape[1] + 1), np.float32), similarity, ZERO_SHOT_SCALE, None
        count = np.bincount(y, minlength=n_classes)
        alike = (
            unit_rows(x[:, -hidden:]) @ similarity.T
            if len(names)
            else np.zeros((len(x), n_classes), np.float32)
        )
        if len(names) and count.min() > 0 and _evidence(alike, y) <= self.config.name_evidence:
            names, name_classes, similarity = names[:0], name_classes[:0], no_names
        everything = np.concatenate([x, names])
        regression = PreconditionedRegression(everything, n_classes, self.config.C)
        classes = np.concatenate([y, name_classes])
        weight = np.r_[np.ones(len(x)), np.full(len(names), self.config.label_names)]
        own = np.arange(len(x), len(everything))

        def fit(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = np.concatenate([train, own])
            lda = shrunk_lda(x[train], y[train], n_classes, self.config.shrinkage, names, name_classes)
            return regression.fit(rows, classes[rows], weight[rows]), lda

        if count.max() < 2:
            head = regression.fit(np.arange(len(everything)), classes, weight)
            return _mask_unknown(ONE_SHOT_SCALE * head, count, name_classes), no_names, 0.0, None
        held_scores, held_y = [], []
        fold = stratified_folds(y, max(2, min(FOLDS, int(count.max()))))
        for k in range(FOLDS):
            held = np.flatnonzero(fold == k)
            if len(held):
                heads = [apply(head, x[held]) for head in fit(np.flatnonzero(fold != k))]
                held_scores.append(np.stack([*heads, *([alike[held]] if len(names) else [])]))
                held_y.append(y[held])
            if sum(map(len, held_y)) >= ENOUGH_HELD_OUT:
                break
        prior = np.array(
            [PRIOR["regression"], PRIOR["discriminant"], *([PRIOR["names"]] if len(names) else [])]
        )
        out, classes_out = np.concatenate(held_scores, axis=1), np.concatenate(held_y)
        a = stack_weights(out, classes_out, prior, STRENGTH)
        log_p = log_softmax(np.tensordot(a, out, 1))[np.arange(len(classes_out)), classes_out]
        first, second = fit(np.arange(len(x)))
        head = _mask_unknown(a[0] * first + a[1] * second, count, name_classes)
        information = 1 + float(log_p.mean() / np.log(n_classes))
        return head, similarity, float(a[2]) if len(names) else 0.0, information


def _evidence(similarity: Float[np.ndarray, "n c"], y: Int[np.ndarray, " n"]) -> float:
    """Information of similarities about labels, in nats a row: log C minus the least log-loss over temperatures."""
    index = np.arange(len(y))
    scales = np.r_[0.0, np.geomspace(0.5, 64, 15)]
    best = max(float(log_softmax(t * similarity)[index, y].mean()) for t in scales)
    return float(np.log(similarity.shape[1])) + best


def _mask_unknown(head: np.ndarray, count: np.ndarray, name_classes: np.ndarray) -> np.ndarray:
    """Masks classes with neither a row nor a name, so that they are never predicted."""
    unknown = count == 0
    unknown[name_classes] = False
    head[unknown] = 0.0
    head[unknown, -1] = -1e2
    return head
