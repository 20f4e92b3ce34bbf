"""Amortised inference: a network reads a class's mean feature and writes a distribution over its head's weights.

Paper: Gordon, Bronskill, Bauer, Nowozin, Turner 2019, Meta-Learning Probabilistic Inference for Prediction (VERSA).
The distribution of a class's weights depends on that class's examples only ("context independent"), so any number of
classes is possible. Probabilities, not scores, are averaged over samples of the weights. The meta-loss is the negative
log of that average (equation 4), without a KL divergence to a prior, in the paper and here.
Deviations: the network's output is added to the prototype head. It is zero before meta-training, and the initial
deviation is a small constant, so that at deviation zero this is the prototype head. Classes that do not exclude each
other get the output for their slots minus that for all others. In meta-training each episode draws new samples. In
prediction samples follow from ``seed``; which class gets which sample depends on the weights only, not on the class's
name or number.
Data needed: meta-training; without it this is prototypes with a little noise. Choose it when adapting must be one
forward pass and the confidence of a prediction matters. It refuses translation: the network would have to write a head
for each token of a vocabulary, most of which are not in the support set.
"""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.base import Learner, LearnerConfig, NameWeight
from fewshot_nlp.modules.heads import class_means, prototype_head, residual_network
from fewshot_nlp.modules.start import scaled_normalize, seeded
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Scale
from fewshot_nlp.slots import Features, Scores, SlotBatch


class AmortizedConfig(LearnerConfig):
    """Settings of `Amortized`.

    Args:
        label_names: weight of a label's name beside one example; not measured on data sets.
        n_samples: samples of the weights, in training and prediction.
        deviation: standard deviation of each weight before meta-training; that of a score is ``scale`` times it.
        hidden: width of the network.
        scale: features are L2-normalised and multiplied by this before network and head.
    """

    label_names: NameWeight = 0.3
    n_samples: Annotated[int, Field(ge=1, le=10**5)] = 10
    deviation: Annotated[float, Field(ge=1e-6, le=100)] = 0.05
    hidden: Annotated[int, Field(ge=1, le=10**5)] = 128
    scale: Scale = 4.0


class Amortized(Learner[AmortizedConfig], name="amortized"):
    """Weights as distributions, in one forward pass."""

    def __init__(self, encoder: Backbone, config: AmortizedConfig | None = None) -> None:
        super().__init__(encoder, config)
        width = encoder.dimension + 1
        with seeded(self.config.seed):
            network = residual_network(encoder.dimension, self.config.hidden, 2 * width)
        start = torch.full((width,), 2 * math.log(self.config.deviation))
        self.network = network.to(encoder.device, encoder.feature_dtype)
        self.log_variance = nn.Parameter(start.to(encoder.device, encoder.feature_dtype))

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Mean and deviation of each class's weights, [n_classes, d + 1] with the bias last; noise, if ``meta``."""
        features = scaled_normalize(self.features(support), self.config.scale)
        weight, bias = prototype_head(features, support, self.config.label_names)
        means, mass = class_means(features, support, self.config.label_names)
        written = self.network(means) / self.config.hidden  # a mean over hidden units: steps suit every width
        change, log_variance = written.chunk(2, dim=-1)
        variance = (self.log_variance + log_variance).exp().sum(dim=0)
        change = change[0] - change[1] if len(means) == 2 else change[0]
        shown = (mass > 0)[:, None].to(features)  # a class without a slot keeps its very low score
        mean = torch.cat([weight, bias[:, None]], dim=1) + change * shown
        state = {"mean": mean, "deviation": variance.sqrt() * shown}
        return state | {"noise": torch.randn(self._shape(mean)).to(mean)} if meta else state

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Log of the probability averaged over samples of the weights; its logit where classes are independent."""
        features = scaled_normalize(features, self.config.scale)
        noise = state["noise"] if "noise" in state else self._noise(state["mean"], batch)
        samples = state["mean"] + state["deviation"] * noise
        with torch.autocast(features.device.type, enabled=False):
            scores = torch.einsum("nd,scd->snc", features.to(samples), samples[..., :-1])
            scores = scores + samples[:, None, :, -1]
        average = _log_mean(torch.stack([batch.log_probabilities(s) for s in scores]))
        if batch.normaliser != "independent":
            return average
        return average - _log_mean(torch.stack([batch.log_probabilities(-s) for s in scores]))

    def _shape(self, mean: Float[Tensor, "n_classes width"]) -> tuple[int, ...]:
        return (self.config.n_samples, *mean.shape)

    def _noise(
        self, mean: Float[Tensor, "n_classes width"], batch: SlotBatch
    ) -> Float[Tensor, "n_samples n_classes width"]:
        """Noise of each class, dealt in the order of a projection of their weights, whatever their names and numbers.

        Where classes do not exclude each other all share the same noise: their scores are never compared, and classes
        that are nearly equal (start and end of answers of one word) have no order.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        direction = torch.randn(mean.shape[1], generator=generator, dtype=torch.float64)
        noise = torch.randn(self._shape(mean), generator=generator)
        rank = (mean.detach().cpu().double() @ direction).argsort().argsort()
        return noise[:, rank if batch.normaliser == "classes" else torch.zeros_like(rank)].to(mean)


def _log_mean(values: Float[Tensor, "n_samples n c"]) -> Float[Tensor, "n c"]:
    return values.logsumexp(dim=0) - math.log(len(values))
