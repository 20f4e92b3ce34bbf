"""Linear probe: logistic regression on the frozen encoder's features.

Paper: Alain & Bengio 2016, Understanding intermediate layers using linear classifier probes; as a few-shot baseline
Tian et al. 2020, Rethinking Few-Shot Image Classification (section 3.2). Solved by scikit-learn (L-BFGS).
Deviations: label names may count as extra support rows. Data needed: two classes with an example or a name each.
Choose it first: it is the baseline that every other learner has to beat.
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field

from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import linear_scores
from fewshot_nlp.modules.state import State, slot_weights
from fewshot_nlp.slots import Features, Scores, SlotBatch


class LinearProbeConfig(LearnerConfig):
    """Settings of `LinearProbe`.

    Args:
        C: inverse strength of the L2 penalty, as in scikit-learn.
    """

    C: Annotated[float, Field(ge=1e-6, le=1e9)] = 30.0


class LinearProbe(Learner[LinearProbeConfig], name="linear_probe"):
    """Logistic regression."""

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Weights and biases of the regression on L2-normalised features."""
        return self.solve(self.features(support), support)

    def solve(self, features: Features, support: SlotBatch) -> State:
        """`fit` with given features of the support set."""
        return solved_head(features, support, self.config.label_names, self.config.C)

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """A linear head on L2-normalised features."""
        return linear_scores(state, F.normalize(features, dim=-1))


def solved_head(features: Features, support: SlotBatch, label_names: float, C: float) -> State:
    """Head of the logistic regression on L2-normalised features; a constant, without gradients."""
    features = F.normalize(features.detach(), dim=-1)
    weight = slot_weights(support, label_names, features)
    x, w = features.cpu().double().numpy(), weight.cpu().double().numpy()
    coefficients = logistic_regression(
        x, support.target_matrix.numpy(), w, C, support.normaliser == "classes"
    )
    head = torch.from_numpy(coefficients).to(features)
    return {"head.weight": head[:, :-1], "head.bias": head[:, -1]}


def logistic_regression(
    x: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "n c"],
    weight: Float[np.ndarray, " n"],
    C: float,
    exclusive: bool,
) -> Float[np.ndarray, "c d1"]:
    """Coefficients, with intercepts in the last column; classes that never occur get a very low intercept.

    Args:
        x: features.
        targets: 0/1 rows; exactly one 1 a row when ``exclusive``.
        weight: of each row; rows of weight 0 are left out.
        C: inverse strength of the L2 penalty.
        exclusive: one softmax over the classes, or a sigmoid for each.
    """
    from sklearn.linear_model import LogisticRegression

    keep = weight > 0
    x, targets, weight = x[keep], targets[keep], weight[keep]
    result = np.zeros((targets.shape[1], x.shape[1] + 1))
    seen = np.flatnonzero(targets.sum(axis=0) > 0)
    result[:, -1] = -1e2

    def solve(y: np.ndarray) -> np.ndarray:
        model = LogisticRegression(C=C, max_iter=1000, tol=1e-4).fit(x, y, sample_weight=weight)
        return np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)

    if not exclusive:
        for c in seen:
            result[c] = solve(targets[:, c])[0] if targets[:, c].min() == 0 else [*np.zeros(x.shape[1]), 1e2]
    elif len(seen) == 1:
        result[seen[0], -1] = 0.0
    else:
        rows = solve(targets.argmax(axis=1))
        result[seen] = rows if len(seen) > 2 else np.concatenate([-rows / 2, rows / 2])
    return result
