"""Ridge regression on the labels as head, in closed form and differentiated through.

Paper: Bertinetto, Henriques, Torr, Vedaldi 2019, Meta-learning with Differentiable Closed-form Solvers: R2-D2
(section 3.2: the ridge solution W = (X'X + lambda I)^-1 X'Y; by the Woodbury identity W = X'(XX' + lambda I)^-1 Y, a
system of the support set's size; a learned scale and bias make logits of it, alpha X W + beta). The smaller of the
two systems is solved, so thousands of slots cost one system of the features' size.
Deviations: features have length 1; the intercept is not penalised (the paper appends a feature of ones); where
classes exclude each other, slots of frequent classes weigh less (`balance`), or else the many words outside of
entities would decide the fit; the encoder that meta-training moves is an adapter. Label names are rows with their
weight.
It refuses translation: the targets would be columns for a vocabulary of thousands, nearly all of them zero
everywhere, and what a regression gives for a token is no probability that could be mixed with the model's own.
Data needed: one example a class, or a name; better with meta-training, which learns features, penalty, scale and
bias. Choose it for a head as quick as prototypes that takes the features' covariance into account: from about five
examples.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import UNSEEN, linear_scores
from fewshot_nlp.modules.start import scaled_normalize
from fewshot_nlp.modules.state import State, slot_weights
from fewshot_nlp.settings import Share
from fewshot_nlp.slots import Features, Scores, SlotBatch


class RidgeConfig(LearnerConfig):
    """Settings of `Ridge`.

    Args:
        penalty: on the squared weights (the paper's lambda), at features of length 1; start value of a learned one.
        scale: outputs are multiplied by this (the paper's alpha); start value. The bias starts where an output of
            a half gives a probability of a half.
        balance: slots of a class weigh as one over this power of their number, in [0, 1]: 0 all the same, as in the
            paper, 1 all classes the same. Only where classes exclude each other.
    """

    penalty: Annotated[float, Field(ge=1e-4, le=1e6)] = 1.0
    scale: Annotated[float, Field(ge=1e-3, le=1e4)] = 10.0
    balance: Share = 0.5


class Ridge(Learner[RidgeConfig], name="ridge"):
    """A linear head by least squares."""

    def __init__(self, encoder: Backbone, config: RidgeConfig | None = None) -> None:
        super().__init__(encoder, config)
        self.log_penalty = nn.Parameter(torch.tensor(float(self.config.penalty)).log())
        self.log_scale = nn.Parameter(torch.tensor(float(self.config.scale)).log())
        self.bias = nn.Parameter(torch.tensor(-float(self.config.scale) / 2))
        self.to(encoder.device)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The head of the regression on 0/1 targets, scale and bias included."""
        features = self.features(support)
        x = scaled_normalize(features.to(torch.promote_types(features.dtype, torch.float32)), 1.0)
        y = support.target_matrix.to(x)
        weight = slot_weights(support, self.config.label_names, x)
        mass = weight @ y
        if support.normaliser == "classes":
            weight = weight * (y @ balanced_weights(mass, self.config.balance))
        with torch.autocast(x.device.type, enabled=False):
            coefficients, intercept = ridge_head(x, y, weight, self.log_penalty.exp().to(x))
        scale = self.log_scale.exp().to(x)
        bias = (scale * intercept + self.bias.to(x)).masked_fill(mass == 0, UNSEEN)
        return {"head.weight": scale * coefficients, "head.bias": bias}

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """The linear head."""
        return linear_scores(state, scaled_normalize(features.to(state["head.weight"]), 1.0))


def balanced_weights(mass: Float[Tensor, " n_classes"], balance: float) -> Float[Tensor, " n_classes"]:
    """Weight of a slot of each class; the slots' total weight stays as it is.

    Args:
        mass: weight of each class's slots so far.
        balance: 0 leaves all as they are, 1 gives all classes the same.
    """
    weight = torch.where(mass > 0, mass.clamp_min(1e-12) ** -balance, 0.0)
    return weight * mass.sum() / (weight * mass).sum().clamp_min(1e-12)


def ridge_head(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n n_classes"],
    weight: Float[Tensor, " n"],
    penalty: Tensor,
) -> tuple[Float[Tensor, "n_classes d"], Float[Tensor, " n_classes"]]:
    """Coefficients and intercept that minimise the weighted squared error plus penalty times the squared coefficients.

    Args:
        x: rows.
        y: their targets.
        weight: their weights, from 0.
        penalty: above 0.
    """
    share = weight / weight.sum().clamp_min(1e-12)
    centre, mean = share @ x, share @ y
    root = weight.sqrt()[:, None]
    a, b = root * (x - centre), root * (y - mean)
    n, d = a.shape
    eye = torch.eye(min(n, d), dtype=x.dtype, device=x.device)
    if n < d:  # Woodbury
        solution = a.T @ torch.linalg.solve(a @ a.T + penalty * eye, b)
    else:
        solution = torch.linalg.solve(a.T @ a + penalty * eye, a.T @ b)
    return solution.T, mean - centre @ solution
