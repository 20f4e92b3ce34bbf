"""Context probe: logistic regression on a slot, its neighbours and its word shape, for coarse and fine classes.

Papers: features of several layers as in Tenney, Das, Pavlick 2019, BERT Rediscovers the Classical NLP Pipeline;
solved as `linear_probe`. Features are standardised on the support set. The features of the neighbouring slots and
the word shape (capitals, digits, ..., `Hints.word_shape`) are appended with smaller weights. Where classes have
coarser ones (BIO tags and their entity types), one regression is fitted to the fine and one to the coarse classes,
and the probability of a coarse class is the geometric mean of both estimates.
Deviations: no paper combines these parts; they were chosen by measurement, see docs/learners.md.
Data needed: a few sentences that hold each class. Choose it for NER: it is the default there.
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewshot_nlp.learners.base import Learner, LearnerConfig, NameWeight
from fewshot_nlp.learners.linear_probe import logistic_regression
from fewshot_nlp.modules.linear_models import PreconditionedRegression
from fewshot_nlp.modules.state import State, balanced_weights, slot_weights
from fewshot_nlp.settings import Share
from fewshot_nlp.slots import Features, Scores, SlotBatch

SMALL = 10**7
"""Rows x columns x classes up to which the regression is solved in float64 and to convergence: well under a second."""


class ContextProbeConfig(LearnerConfig):
    """Settings of `ContextProbe`.

    Args:
        label_names: weight of the labels' names as extra rows; 0 uses them for labels without examples only.
        C: inverse strength of the regression's penalty.
        neighbours: weight of the features of the slots before and after in the same example.
        word_shape: weight of the word shape; that of the neighbours' word shape is a third of it.
        balance: a slot's weight in the loss is its class's number of slots to minus this power, in [0, 1]: with 0 all
            slots have equal weight, with 1 all classes. Only where classes exclude each other.
    """

    label_names: NameWeight = 0.0
    C: Annotated[float, Field(ge=1e-6, le=1e9)] = 100.0
    neighbours: Annotated[float, Field(ge=0, le=10)] = 0.3
    word_shape: Annotated[float, Field(ge=0, le=10)] = 0.3
    balance: Share = 0.0


class ContextProbe(Learner[ContextProbeConfig], name="context_probe"):
    """Logistic regression on slots with their neighbours."""

    meta_learns = False
    order_free = False  # a large regression stops before rounding has no effect

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Mean and standard deviation of the features, and one linear head, or two where classes have coarser ones."""
        return self.solve(self.features(support), support)

    def solve(self, features: Features, support: SlotBatch) -> State:
        """`fit` with given features of the support set."""
        examples = features if bool(support.label_slot_mask.all()) else features[~support.label_slot_mask]
        state: State = {"mean": examples.mean(dim=0), "scale": examples.std(dim=0, correction=0) + 1e-3}
        weight = slot_weights(support, self.config.label_names, features)
        keep = weight > 0
        x = self._design(state, features, support)[keep].detach().cpu().float().numpy()
        targets, weights = support.target_matrix[keep.cpu()].numpy(), weight[keep].cpu().numpy()
        exclusive = support.normaliser == "classes"
        if exclusive:
            weights = weights * (
                targets @ balanced_weights(torch.from_numpy(weights @ targets), self.config.balance).numpy()
            )
        small = x.size * support.n_classes <= SMALL
        dtype, tolerance = (np.float64, 1e-7) if small else (np.float32, 1e-5)
        solver = PreconditionedRegression(x, support.n_classes, self.config.C, dtype) if exclusive else None

        def head(wanted: np.ndarray) -> np.ndarray:
            if solver is None:
                return logistic_regression(x, wanted, weights, self.config.C, exclusive=False)
            return solver.fit(np.arange(len(x)), wanted.argmax(axis=1), weights, wanted.shape[1], tolerance)

        heads = {"head": targets}
        if support.hints.coarse is not None:
            heads["head.coarse"] = targets @ np.eye(max(support.hints.coarse) + 1)[list(support.hints.coarse)]
        for name, wanted in heads.items():
            coefficients = torch.from_numpy(head(wanted)).to(features)
            unseen = torch.from_numpy(wanted.sum(axis=0) == 0)
            state[f"{name}.weight"] = coefficients[:, :-1].masked_fill(unseen[:, None], 0.0)
            state[f"{name}.bias"] = coefficients[:, -1].masked_fill(unseen, -1e2)
        return state

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Scores of the fine head, shifted so that coarse classes get the mean of both heads' log-probabilities."""
        heads = ["head"] if batch.hints.coarse is None else ["head", "head.coarse"]
        fine, *rest = self._linear(state, heads, features, batch)
        if not rest:
            return fine
        coarse = F.log_softmax(rest[0], dim=1)
        fine = F.log_softmax(fine, dim=1)
        index = torch.tensor(batch.hints.coarse, device=features.device)
        mass = torch.zeros_like(coarse).index_add(1, index, fine.exp()).clamp_min(1e-9).log()
        return fine + (coarse - mass)[:, index] / 2

    def _design(self, state: State, features: Tensor, batch: SlotBatch) -> Float[Tensor, "n_slots wide"]:
        """Design matrix: features (norm about 1), then word shape, each followed by that of the neighbours."""
        parts = [((features - state["mean"]) / self._spread(state), 1.0, self.config.neighbours)]
        if batch.hints.word_shape is not None:
            parts.append(
                (batch.hints.word_shape.to(features), self.config.word_shape, self.config.word_shape / 3)
            )
        columns = []
        for part, own, aside in parts:
            columns += [part * own, neighbour(part, batch, -1) * aside, neighbour(part, batch, 1) * aside]
        return torch.cat(columns, dim=1)

    def _linear(
        self, state: State, heads: list[str], features: Tensor, batch: SlotBatch
    ) -> list[Float[Tensor, "n_slots classes"]]:
        """Scores of the heads on `_design`, without building the matrix.

        One product with the features as they are: standardising is folded into the weights, and neighbours are
        shifted after it, when they are a few classes wide.
        """
        weight = torch.cat([state[f"{head}.weight"] for head in heads])
        width = features.shape[1]
        own, before, after = torch.split(weight[:, : 3 * width], width, dim=1)
        aside = self.config.neighbours
        blocks = torch.cat([own, aside * before, aside * after]) / self._spread(state)
        scores = _with_neighbours(F.linear(features, blocks, -blocks @ state["mean"]), batch)
        if batch.hints.word_shape is not None:
            word_shape = batch.hints.word_shape.to(features)
            own, before, after = torch.split(weight[:, 3 * width :], word_shape.shape[1], dim=1)
            blocks = torch.cat([own, before / 3, after / 3]) * self.config.word_shape
            scores = scores + _with_neighbours(F.linear(word_shape, blocks), batch)
        scores = scores + torch.cat([state[f"{head}.bias"] for head in heads])
        return list(torch.split(scores, [len(state[f"{head}.bias"]) for head in heads], dim=1))

    @staticmethod
    def _spread(state: State) -> Float[Tensor, " d"]:
        spread: Tensor = state["scale"] * len(state["scale"]) ** 0.5
        return spread


def _with_neighbours(products: Float[Tensor, "n three_c"], batch: SlotBatch) -> Float[Tensor, "n c"]:
    mine, before, after = products.chunk(3, dim=1)
    total: Tensor = mine + neighbour(before, batch, -1) + neighbour(after, batch, 1)
    return total


def neighbour(rows: Float[Tensor, "n d"], batch: SlotBatch, step: int) -> Float[Tensor, "n d"]:
    """Rows of the slots before (-1) or after (1) in the same example; zeros where there is none."""
    same = (batch.groups[1:] == batch.groups[:-1])[:, None].to(rows.device)
    nothing = torch.zeros_like(rows[:1])
    if step == -1:
        return torch.cat([nothing, rows[:-1] * same])
    return torch.cat([rows[1:] * same, nothing])
