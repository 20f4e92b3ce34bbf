"""What keeps meta-training from learning its tasks by heart: dropout, other labels, an information penalty, mixing.

Papers: Yin, Tucker, Zhou, Levine, Finn 2020, Meta-Learning without Memorization (MR-MAML on activations, section 4.1;
labels shuffled in each task); Rajendran, Irpan, Jang 2020, Meta-Learning Requires Meta-Augmentation; Yao et
al. 2021, Improving Generalization in Meta-learning via Task Augmentation (MetaMix), after Verma et al. 2019, Manifold
Mixup; Alemi et al. 2017, Deep Variational Information Bottleneck.
All of it acts on an episode's text or at one place that every learner's features pass, `Learner.features`, and only
while a meta-loss is computed. Random numbers are the episode's own. Every forward pass, each inner step's too, draws
new masks and noise; the meta-gradient is that of the loss with the masks drawn, second derivatives included.
Deviations: the bottleneck's noise has a learned scale for each dimension instead of one computed from the input; mixed
are two slots of the query, not one of the query and one of the support set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import Learner
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.settings import Settings, Share
from fewshot_nlp.slots import OUTSIDE, Features, MetaContext, SlotBatch, Targets
from fewshot_nlp.tasks import Task
from fewshot_nlp.training.augmentation import Augmentation, augment, relabelled


class Regularisation(Settings):
    """What is done against memorising and overfitting; 0 is off.

    Args:
        dropout: of all dropout layers of the encoder while a meta-loss is computed, in [0, 0.9]; "own" takes those of
            the model's configuration. Never in evaluation or in adapting.
        label_shuffle: probability that an episode's labels are dealt anew among its classes, in [0, 1]. A name then
            stands for another class, so names cannot be relied on against examples, and a meta-learned head meets its
            classes in another order. Prototypes without names do not depend on either.
        name_dropout: probability that a class which has examples goes without its name, in [0, 1].
        information: weight of the information penalty, in [0, 10]: the nats that a query slot's noisy features tell
            of the slot at most. A feature of 384 numbers has some hundreds of nats, so 1e-5 to 1e-3 are usual.
        information_noise: where the noise starts, in [0.001, 10], against the size of a feature's numbers.
        feature_mix: alpha of the Beta(alpha, alpha) from which the share of a query slot in its mixture with another
            one is drawn, in [0, 100]; targets are mixed alike. Small ones mix little.
    """

    dropout: Annotated[float, Field(ge=0, le=0.9)] | Literal["own"] = 0.0
    label_shuffle: Share = 0.0
    name_dropout: Share = 0.0
    information: Annotated[float, Field(ge=0, le=10)] = 0.0
    information_noise: Annotated[float, Field(ge=1e-3, le=10)] = 0.1
    feature_mix: Annotated[float, Field(ge=0, le=100)] = 0.0

    def check_fits(self, task: Task, encoder: Backbone) -> None:
        """Refuses what would have no effect."""
        for name in ("label_shuffle", "name_dropout"):
            if getattr(self, name) and not task.has_labels:
                raise FewShotError(
                    f"regularisation.{name} is {getattr(self, name):g}, but {task.name} has no labels; set it to 0."
                )
        layers = _dropout_layers(encoder.model)
        if self.dropout == "own" and not any(layer.p for layer in layers):
            raise FewShotError(
                "regularisation.dropout is 'own', but the encoder's own dropout is 0; give a number, such as 0.1."
            )
        if self.dropout and not layers:
            raise FewShotError(
                "regularisation.dropout is set, but the encoder has no dropout layers; set it to 0."
            )

    def relabel(self, episode: Episode, task: Task, seed: int) -> Episode:
        """The episode with its labels dealt anew among its classes, as often as ``label_shuffle`` says."""
        draws = np.random.default_rng([seed, 1000])
        if draws.random() >= self.label_shuffle:
            return episode
        dealt = draws.permutation(episode.label_names).tolist()
        return relabelled(episode, task, dict(zip(episode.label_names, dealt, strict=True)))

    def without_names(self, support: SlotBatch) -> SlotBatch:
        """The support set without some of its labels' names; a label that has no example keeps its own."""
        if not self.name_dropout or support.hints.label_slots is None:
            return support
        kind = torch.tensor(support.hints.coarse or range(support.n_classes))
        gone = (torch.rand(support.n_classes) < self.name_dropout)[kind]  # a type's tags share its name
        targets = support.target_matrix
        seen = targets[~support.hints.label_slots].sum(dim=0) > 0
        return support.select(~(support.hints.label_slots & (targets[:, gone & seen].sum(dim=1) > 0)))

    def mixed(self, query: SlotBatch) -> SlotBatch:
        """The query with slots that are mixed with each other, where ``feature_mix`` says so."""
        if not self.feature_mix:
            return query
        return MixedQuery(**vars(query), plain=query.targets).drawn(self.feature_mix)


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedQuery(SlotBatch):
    """A batch whose slots are mixed with each other.

    Args:
        plain: targets before mixing.
        partners: for each slot the one it is mixed with; None without mixing.
        shares: each slot's own share in its mixture.
    """

    plain: Targets | None = None
    partners: Int[Tensor, " n_slots"] | None = None
    shares: Float[Tensor, " n_slots"] | None = None

    def select(self, keep: Tensor) -> SlotBatch:
        """As `SlotBatch.select`; what is left is not mixed."""
        return SlotBatch.select(replace(self, targets=self.plain, partners=None, shares=None), keep)

    def drawn(self, alpha: float) -> "MixedQuery":
        """The batch with a partner and a share drawn for each slot."""
        if self.normaliser == "positions":
            raise FewShotError(
                "regularisation.feature_mix mixes slots that are judged one by one; here those of a text compete. Set "
                "it to 0."
            )
        partners = torch.randperm(self.n_slots)
        shares = torch.distributions.Beta(alpha, alpha).sample((self.n_slots,))
        targets = shares[:, None] * self.target_matrix
        targets = targets + (1 - shares)[:, None] * self.target_matrix[partners]
        return replace(self, targets=targets, partners=partners, shares=shares)

    def mix(self, features: Features) -> Features:
        """Features mixed as the targets are."""
        if self.partners is None or self.shares is None:
            return features
        shares = self.shares.to(features)[:, None]
        return shares * features + (1 - shares) * features[self.partners.to(features.device)]


class Bottleneck(nn.Module):
    """Gaussian noise on features, and a bound on what they then tell of their input.

    z ~ N(h / s, sigma^2) and the learner sees s z; the bound is the mean of KL(N(h / s, sigma^2) || N(0, I)).
    The size s is that of the features before meta-training, so that the same settings suit every encoder.

    Args:
        dimension: length of a feature vector.
        noise: first value of sigma, in all dimensions; meta-trained.
        size: s, the root mean square of the features' numbers.
    """

    def __init__(self, dimension: int, noise: float, size: float) -> None:
        super().__init__()
        self.log_noise = nn.Parameter(torch.full((dimension,), float(noise)).log())
        self.size = size

    def noisy(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Reparameterised sample s z: features + s * sigma * eps."""
        return features + self.size * self.log_noise.exp().to(features) * torch.randn_like(features)

    def penalty(self, features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """The bound, in nats a slot."""
        variance = (2 * self.log_noise).exp()
        kl = (variance + (features / self.size).square() - 1 - 2 * self.log_noise) / 2
        return kl.sum(dim=1).mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class Regulariser:
    """All that changes an episode and its meta-loss.

    Args:
        settings: what to do.
        augmentation: of the episode's texts.
        bottleneck: for the information penalty, else None.
    """

    settings: Regularisation = field(default_factory=Regularisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    bottleneck: Bottleneck | None = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is meta-trained along."""
        return {} if self.bottleneck is None else {"bottleneck.log_noise": self.bottleneck.log_noise}

    def changed(self, episode: Episode, task: Task, seed: int) -> Episode:
        """The episode to learn from instead: a pure function of the arguments."""
        return self.settings.relabel(augment(episode, self.augmentation, task, seed), task, seed)

    def loss(
        self, learner: Learner, support: SlotBatch, query: SlotBatch, context: MetaContext = OUTSIDE
    ) -> Tensor:
        """The learner's meta-loss, with its features disturbed, and the penalty.

        The penalty is on features by the meta-parameters, before any of them is adapted, as in the paper: one more
        forward pass of the query.
        """
        with self.dropping(learner.encoder):
            loss = learner.meta_loss(support, query, replace(context, disturb=self._disturbed))
            if self.bottleneck is None:
                return loss
            penalty = self.bottleneck.penalty(learner.features(query))
        return loss + self.settings.information * penalty

    @contextmanager
    def dropping(self, encoder: Backbone) -> Iterator[None]:
        """The encoder's dropout at work in the block; to be held over a backward pass that runs layers again."""
        if not self.settings.dropout:
            yield
            return
        model, rate = encoder.model, self.settings.dropout
        before, mode = [(layer, layer.p) for layer in _dropout_layers(model)], model.training
        model.train()
        try:
            for layer, own in before:
                layer.p = own if rate == "own" else float(rate)
            yield
        finally:
            model.train(mode)
            for layer, own in before:
                layer.p = own

    def _disturbed(self, batch: SlotBatch, features: Tensor) -> Tensor:
        noisy = features if self.bottleneck is None else self.bottleneck.noisy(features)
        return batch.mix(noisy) if isinstance(batch, MixedQuery) else noisy


UNREGULARISED = Regulariser()
"""Changes nothing."""


def make_regulariser(
    settings: Regularisation, augmentation: Augmentation, pipeline: Pipeline, first: Episode
) -> Regulariser:
    """The regulariser of a run; to be called before anything is trained.

    Args:
        settings: what to do.
        augmentation: of the episodes' texts.
        pipeline: task and learner.
        first: an episode, on whose support set the size of features is measured.

    Raises:
        FewShotError: settings that do not fit the task or the encoder.
    """
    encoder, bottleneck = pipeline.learner.encoder, None
    settings.check_fits(pipeline.task, encoder)
    augmentation.check_fits(pipeline.task)
    if settings.information:
        with torch.no_grad():
            features = encoder.features(pipeline.support(first.support, first.label_names))
        size = float(features.square().mean().sqrt())
        bottleneck = Bottleneck(encoder.dimension, settings.information_noise, size).to(encoder.device)
    return Regulariser(settings=settings, augmentation=augmentation, bottleneck=bottleneck)


def _dropout_layers(model: nn.Module) -> list[nn.Dropout]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
