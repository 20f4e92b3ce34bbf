"""Bayesian head: the exact posterior of a linear model or Gaussian process over the encoder's features.

Papers: Harrison, Sharma, Pavone 2018, Meta-Learning Priors for Efficient Online Bayesian Regression (ALPaCA: the
posterior of the last layer, the posterior predictive as meta-loss; ``kernel: linear, objective: predictive``);
Patacchiola et al. 2020, Bayesian Meta-Learning for the Few-Shot Setting via Deep Kernels (DKT: a regression for each
class on codes of -1 and 1, kernel and encoder trained by the marginal likelihood; ``objective: marginal``).
A class's code is f + noise; f is a Gaussian process whose constant mean is set by the share p of the class's slots.
With m and v the posterior mean and variance of f less that constant, the score is
b m / sqrt(1 + pi b^2 v / 8) + log p, or the logit of p where classes do not exclude each other: the probit-moderated
output of MacKay 1992, The Evidence Framework Applied to Classification Networks, at sharpness b. So a query that
is far from all support slots gets the classes' shares, and certainty grows with the support set. Calibration: the
moderated mean is multiplied by the factor that minimises the log-loss of the support set's texts, each scored by
the posterior of the others (leave-one-out, Rasmussen & Williams 2006, section 5.3), with a penalty towards factor 1.
Deviations: ALPaCA's prior has a learned mean and a full precision, here zero and a multiple of the identity, so that
any classes are possible; features have norm 1 each (cosine) or on average (linear, rbf); DKT predicts by the
sigmoid of the mean alone; a label name is a row whose noise is divided by its weight.
Data needed: one example a class, or a name; better with meta-training, which learns noise, prior and sharpness. Choose
it when confidence must be calibrated. The state holds up to d^2 numbers, with ``rbf`` n^2. It refuses
translation: most tokens of the vocabulary are in no support set, and the regression has no data for them.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.gaussian import (
    left_out,
    linear_covariance,
    linear_moments,
    linear_posterior,
    log_marginal_linear,
    log_marginal_rbf,
    rbf_covariance,
    rbf_moments,
    rbf_posterior,
)
from fewshot_nlp.modules.heads import UNSEEN
from fewshot_nlp.modules.state import State, slot_weights
from fewshot_nlp.settings import Scale
from fewshot_nlp.slots import Features, Scores, SlotBatch

MOST_ROWS = 4096
"""Slots that a kernel without features can take: its matrix has their number squared of entries."""
CAUTION = 0.5
"""Weight of a factor's squared logarithm beside the left-out texts' summed loss: with few texts, 1 is believed in."""


class BayesianConfig(LearnerConfig):
    """Settings of `Bayesian`; all numbers but ``label_names`` are initial values that meta-training learns.

    Args:
        kernel: "cosine", "linear", or "rbf" (only this one uses `length`).
        noise: variance of the noise on codes of -1 and 1.
        prior: variance of f, at features of norm 1.
        length: length scale of "rbf"; features have a root mean square norm of 1.
        sharpness: b above; learned with ``objective: scores`` only.
        calibrate: fit the factor of the scores on left-out texts, as above, where a class has two texts; False takes
            1. Meta-training always takes 1, which gave the lower meta-validation loss.
        center: subtract the support set's mean from features (as DKT's kernel "bncossim" does).
        objective: meta-loss: "scores" (the task's own loss of the query), "predictive" (Gaussian log-loss of the
            query's codes under the posterior, ALPaCA) or "marginal" (that of all codes under the prior, DKT).
    """

    kernel: Literal["cosine", "linear", "rbf"] = "cosine"
    noise: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    prior: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.3
    length: Scale = 1.0
    sharpness: Scale = 6.0
    calibrate: bool = True
    center: bool = False
    objective: Literal["scores", "predictive", "marginal"] = "scores"


class Bayesian(Learner[BayesianConfig], name="bayesian"):
    """Bayesian regression on class codes."""

    def __init__(self, encoder: Backbone, config: BayesianConfig | None = None) -> None:
        super().__init__(encoder, config)
        names = ("noise", "prior", "sharpness") + (("length",) if self.config.kernel == "rbf" else ())
        start = {name: torch.tensor(float(getattr(self.config, name))).log() for name in names}
        self.log = nn.ParameterDict({name: nn.Parameter(value) for name, value in start.items()})

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The posterior, centre and scale of the features, and each class's share of the slots."""
        features = self.features(support)
        weight = slot_weights(support, self.config.label_names, features)
        exact = features.double()  # what is left of a row without itself may be little
        state = self._posterior(exact, support.target_matrix.to(exact), weight.double())
        if self.config.calibrate and not meta:
            with torch.no_grad():
                state["calibration"] = self._calibration(state, exact, support)
        return {name: value.to(features) for name, value in state.items()}

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Moderated scores (see above); very low for classes without a support slot."""
        moved, base = self._moderated(state, batch, *self.predictive(state, features))
        scores = state.get("calibration", 1.0) * moved + base
        return scores.masked_fill(state["share"] == 0, UNSEEN)

    def predictive(self, state: State, features: Features) -> tuple[Scores, Float[Tensor, " n_slots"]]:
        """Posterior mean and variance of f minus its constant mean; all classes share the variance."""
        moments = rbf_moments if self.config.kernel == "rbf" else linear_moments
        with torch.autocast(features.device.type, enabled=False):
            return moments(state, self._space(state, features))

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """The loss that ``objective`` names; the Gaussian losses are means over slots and classes."""
        if self.config.objective == "scores":
            return super().query_loss(support, query)
        features = self.features(support)
        weight = slot_weights(support, self.config.label_names, features)
        targets, asked = support.target_matrix.to(features), query.target_matrix.to(features)
        if self.config.objective == "marginal":
            everything = torch.cat([features, self.features(query)])
            weight = torch.cat([weight, weight.new_ones(query.n_slots)])
            return self._marginal(everything, torch.cat([targets, asked]), weight)
        state = self._posterior(features, targets, weight)
        mean, variance = self.predictive(state, self.features(query))
        variance = (variance + self.log["noise"].exp())[:, None]
        error = 2 * (asked - state["share"]) - mean
        losses = (error.square() / variance + variance.log() + torch.tensor(2 * torch.pi).log()) / 2
        loss: Tensor = losses[:, state["share"] > 0].mean()
        return loss

    def _moderated(
        self, state: State, batch: SlotBatch, mean: Float[Tensor, "n c"], variance: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, " c"]]:
        """The moderated mean, and the term of the classes' shares that is added to it."""
        sharpness = state["sharpness"]
        moderation = (1 + torch.pi / 8 * sharpness.square() * variance).rsqrt()
        share = state["share"].clamp(1e-6, 1 - 1e-6)
        base = share.log() if batch.normaliser == "classes" else share.logit()
        return sharpness * moderation[:, None] * mean, base

    def _calibration(self, state: State, features: Float[Tensor, "n d"], support: SlotBatch) -> Tensor:
        """The factor of the scores that minimises the log-loss of left-out texts; 1 where no class has two texts."""
        known = ~support.label_slot_mask
        groups, sizes = torch.unique_consecutive(support.groups[known], return_counts=True)
        if len(groups) < 2:
            return torch.ones(())
        features, examples = features[known.to(features.device)], support.select(known)
        targets = examples.target_matrix.to(features)
        mean, variance = self._left_out(state, features, 2 * (targets - state["share"]), sizes)
        place = torch.repeat_interleave(torch.arange(len(groups)), sizes).to(features.device)
        shown = targets.new_zeros(len(groups), targets.shape[1]).index_add(0, place, targets) > 0
        rare = shown.sum(dim=0) < 2  # when its only text is left out, a class is unknown
        judged = (targets[:, rare].sum(dim=1) == 0).cpu()
        if not judged.any():
            return torch.ones(())
        examples = examples.select(judged)
        moved, base = self._moderated(state, examples, mean[judged], variance[judged])
        n_texts = len(torch.unique(examples.groups))
        rates = torch.linspace(-4, 4, 81).exp()
        losses = [
            n_texts * float(examples.loss((rate * moved + base).masked_fill(state["share"] == 0, UNSEEN)))
            + CAUTION * float(rate.log().square())
            for rate in rates
        ]
        return rates[int(torch.tensor(losses).argmin())]

    def _left_out(
        self,
        state: State,
        features: Float[Tensor, "n d"],
        y: Float[Tensor, "n c"],
        sizes: Int[Tensor, " texts"],
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, " n"]]:
        """Leave-one-text-out `predictive`: each support text under the posterior of the other texts.

        Args:
            state: the posterior.
            features: of the examples' slots.
            y: their codes minus the constant means.
            sizes: slots of each text.
        """
        covariance = rbf_covariance if self.config.kernel == "rbf" else linear_covariance
        x, noise = self._space(state, features), self.log["noise"].exp().double()
        mean, variance = self.predictive(state, features)
        ends = sizes.cumsum(0)
        with torch.autocast(features.device.type, enabled=False):
            for size in torch.unique(sizes):  # texts of one length are solved together
                rows = (ends[sizes == size] - size)[:, None] + torch.arange(int(size))
                rows = rows.to(features.device)
                mean[rows], variance[rows] = left_out(mean[rows], covariance(state, x[rows]), y[rows], noise)
        return mean, variance

    def _posterior(
        self, features: Float[Tensor, "n d"], targets: Float[Tensor, "n c"], weight: Float[Tensor, " n"]
    ) -> State:
        state, problem = self._problem(features, targets, weight)
        posterior = rbf_posterior(*problem) if self.config.kernel == "rbf" else linear_posterior(*problem)
        state |= {name: value.to(features) for name, value in posterior.items()}
        return state | {"sharpness": self.log["sharpness"].exp().to(features)}

    def _marginal(
        self, features: Float[Tensor, "n d"], targets: Float[Tensor, "n c"], weight: Float[Tensor, " n"]
    ) -> Tensor:
        """Negative log marginal likelihood of all codes, per slot and class."""
        state, (x, y, *rest) = self._problem(features, targets, weight)
        y = y[:, state["share"] > 0]
        rbf = self.config.kernel == "rbf"
        density = log_marginal_rbf(x, y, *rest) if rbf else log_marginal_linear(x, y, *rest)
        return (-density.mean() / len(x) - weight[weight > 0].log().mean() / 2).to(features)

    def _problem(
        self, features: Float[Tensor, "n d"], targets: Float[Tensor, "n c"], weight: Float[Tensor, " n"]
    ) -> tuple[State, list[Tensor]]:
        """The scales of the features, and the arguments of the functions of `gaussian` for the kernel."""
        features, targets, weight = features[weight > 0], targets[weight > 0], weight[weight > 0]
        state = self._scales(features, targets, weight)
        x, y, root = self._space(state, features), 2 * (targets - state["share"]), weight.sqrt()
        noise, prior = self.log["noise"].exp(), self.log["prior"].exp()
        if self.config.kernel == "rbf":
            return state, [x, y, root, noise, prior, self.log["length"].exp()]
        return state, [root[:, None] * x, root[:, None] * y, noise, prior]

    def _scales(self, features: Tensor, targets: Tensor, weight: Tensor) -> State:
        """The classes' shares, and centre and spread of the features."""
        if self.config.kernel == "rbf" and len(features) > MOST_ROWS:
            raise FewShotError(
                f"The support set has {len(features)} slots, but kernel 'rbf' takes {MOST_ROWS} at most; set kernel to "
                "'cosine' or 'linear'."
            )
        part = (weight / weight.sum())[:, None]
        share, centre = (part * targets).sum(dim=0), (part * features).sum(dim=0)
        if not self.config.center:
            centre = torch.zeros_like(centre)
        spread = (part * (features - centre).square()).sum().clamp_min(1e-12).sqrt()
        return {"share": share, "centre": centre, "spread": spread}

    def _space(self, state: State, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        rows = features - state["centre"]
        return F.normalize(rows, dim=-1) if self.config.kernel == "cosine" else rows / state["spread"]
