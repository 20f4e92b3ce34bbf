"""Ridge regression on class targets as head: closed form, differentiable.

Paper: Bertinetto, Henriques, Torr, Vedaldi 2019, Meta-learning with Differentiable Closed-form Solvers: R2-D2
(section 3.2: the ridge solution W = (X'X + lambda I)^-1 X'Y; by the Woodbury identity W = X'(XX' + lambda I)^-1 Y, a
system of the support set's size; logits are alpha X W + beta, with learned scale and bias). The smaller of the
two systems is solved, so thousands of slots cost one system of the feature size.
Deviations: features have norm 1. The intercept is not penalised (the paper appends a feature of ones). Where
classes exclude each other, slots of frequent classes have a lower weight (`balance`); otherwise the many words
outside of entities would dominate the fit. Meta-training trains an adapter of the encoder. Label names are rows with a
weight.
It refuses translation: there would be a target column for each token of the vocabulary, nearly all of them zero, and
regression outputs are not probabilities that could be mixed with the model's own.
Data needed: one example a class, or a name; better with meta-training, which learns features, penalty, scale and
bias. Choose it for a head as fast as prototypes that uses the features' covariance, from about five examples.
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
from fewshot_nlp.modules.state import State, balanced_weights, slot_weights
from fewshot_nlp.settings import Share
from fewshot_nlp.slots import Features, Scores, SlotBatch


class RidgeConfig(LearnerConfig):
    """Settings of `Ridge`.

    Args:
        penalty: on the squared weights (the paper's lambda); features have norm 1. Initial value, learned in
            meta-training.
        scale: factor of the outputs (the paper's alpha); initial value, learned in meta-training. The initial bias
            maps an output of 0.5 to a probability of 0.5.
        balance: a slot's weight is its class's number of slots to minus this power, in [0, 1]: with 0 all slots have
            equal weight, as in the paper, with 1 all classes. Only where classes exclude each other.
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
        """Linear head of the regression on 0/1 targets, with scale and bias."""
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
