"""Prototypical networks: a class is the mean of its slots' features.

Papers: Snell, Swersky, Zemel 2017, Prototypical Networks for Few-shot Learning (equations 1 and 2);
``metric="unit"``: Wang, Chao, Weinberger, van der Maaten 2019, SimpleShot (section 3: Euclidean distance of normalised
features to their mean, which is not normalised again; ``centre`` is their CL2N, but they subtract the mean of the base
classes, which this learner does not see, where it subtracts that of the support set).
Deviations: a learned temperature scales the distances (as in TADAM, Oreshkin et al. 2018); label names may
count as extra support rows, with a fixed or a learned weight. Classes that do not exclude each other have two
prototypes: of their slots, and of all others. With ``n_prototypes`` a large class, such as the words outside of all
entities, has several, by k-means (a distance is to the nearest, as in Allen et al. 2019, Infinite Mixture Prototypes).
Data needed: one example a class, or a label's name. Choose it for many classes with very few examples each,
when adapting must be cheap, or to meta-train with the least memory.
"""

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone, VocabularyHead
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.clusters import cluster_means
from fewshot_nlp.modules.heads import class_means
from fewshot_nlp.modules.interpolation import by_content, choose_fixed, fixed_mass, mix
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Share, Temperature
from fewshot_nlp.slots import Features, Scores, SlotBatch


class PrototypicalConfig(LearnerConfig):
    """Settings of `Prototypical`.

    Args:
        metric: "euclidean" (squared distance), "unit" (the same of L2-normalised features) or "cosine", where the
            prototype is normalised too.
        centre: subtract the mean of the support set's slots from all features first.
        temperature: scores are the negative distance divided by this; the initial value in meta-training. None
            takes the root of the features' dimension for "euclidean" and 0.1 for the others.
        interpolation: share of the prototypes in the mixture with a model's own distribution, in [0, 1]; None chooses
            it, and the temperature, on halves of the support set.
        n_prototypes: largest number of prototypes of a class, by k-means; 1 is the mean.
        slots_per_prototype: slots of a class for each of its prototypes, so that only large classes have several.
        several: distance to a class with several prototypes: to the "nearest", or of their "mixture", weighted by
            slots.
        learn_label_names: meta-learn the weight of the labels' names, from ``label_names``.
    """

    metric: Literal["euclidean", "unit", "cosine"] = "cosine"
    centre: bool = False
    temperature: Temperature | None = None
    interpolation: Share | None = None
    n_prototypes: Annotated[int, Field(ge=1, le=10**5)] = 1
    slots_per_prototype: Annotated[int, Field(ge=1, le=10**5)] = 25
    several: Literal["nearest", "mixture"] = "nearest"
    learn_label_names: bool = False

    @model_validator(mode="after")
    def _weight_to_learn(self) -> Self:
        if self.learn_label_names and self.label_names <= 0:
            raise FewShotError("learn_label_names needs a weight to start from; set label_names above 0.")
        return self


class Prototypical(Learner[PrototypicalConfig], name="prototypical"):
    """Nearest class mean."""

    head_use = "built_on"

    def __init__(self, encoder: Backbone, config: PrototypicalConfig | None = None) -> None:
        super().__init__(encoder, config)
        start = self.config.temperature
        if start is None:
            start = float(encoder.dimension) ** 0.5 if self.config.metric == "euclidean" else 0.1
        self.log_temperature = nn.Parameter(torch.tensor(float(start)).log())
        self.log_label_names: nn.Parameter | None = None
        if self.config.learn_label_names:
            self.log_label_names = nn.Parameter(torch.tensor(float(self.config.label_names)).log())
        if encoder.vocabulary is not None and self.config.n_prototypes > 1:
            raise FewShotError(
                f"n_prototypes is {self.config.n_prototypes}, but where the model has a head of its own each token has "
                "one prototype; set n_prototypes=1, or take nearest_neighbour."
            )

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Means of the classes' features, shape [1 or 2, n_classes, d]; the second are "not this class".

        With ``n_prototypes`` above 1 the shape is [1 or 2, n_classes, n_prototypes, d], and each has its share of the
        class's slots; 0 where a class has fewer.
        """
        if self.encoder.vocabulary is not None:
            return self._mixture(support, self.encoder.vocabulary)
        features = self.features(support)
        state = self._centre(features, support)
        features = self._space(features, state)
        names = self._name_weight(features)
        means, mass = class_means(features, support, names)
        state |= {"prototypes": means, "seen": mass > 0, "log_temperature": self.log_temperature}
        if self.config.n_prototypes > 1:
            c = self.config
            state["prototypes"], state["shares"] = cluster_means(
                features, support, names, c.n_prototypes, c.slots_per_prototype, c.seed
            )
        return state

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Negative distance to each prototype, divided by the temperature (Snell et al., equation 2)."""
        features = self._space(features, state)
        if batch.decoder.prior is not None:
            return self._mixed(state, features, batch.decoder.prior)
        scores = -self._class_distance(state, features, 0)
        if len(state["prototypes"]) == 2:
            scores = scores + self._class_distance(state, features, 1)
        return scores.masked_fill(~state["seen"], -1e4) / state["log_temperature"].exp()

    def _class_distance(self, state: State, features: Tensor, side: int) -> Float[Tensor, "n n_classes"]:
        """Distance to a class's prototype: to the nearest of several, or their soft minimum weighted by shares."""
        prototypes = state["prototypes"][side]
        distance = self._distance(features, prototypes.flatten(0, -2))
        if "shares" not in state:
            return distance
        share = state["shares"][side]
        distance = distance.view(len(features), *share.shape)
        if self.config.several == "nearest":
            return distance.masked_fill(share == 0, torch.inf).amin(dim=2)
        temperature = state["log_temperature"].exp()
        log_share = share.clamp_min(1e-12).log().masked_fill(share == 0, -torch.inf)
        return -temperature * (log_share - distance / temperature).logsumexp(dim=2)

    def _name_weight(self, like: Tensor) -> float | Tensor:
        """Weight of the labels' names; a learned one is moved to the CPU, where slot weights are computed."""
        if self.log_label_names is None:
            return self.config.label_names
        return self.log_label_names.exp().to("cpu", like.dtype)

    def _mixture(self, support: SlotBatch, head: VocabularyHead) -> State:
        """One prototype for each class with a support slot, and interpolation and temperature.

        Both are chosen on slots of one half of the examples, scored by the prototypes of the other half.
        """
        hidden = self.features(support)
        state = self._centre(hidden, support)
        features = self._space(hidden, state)
        gold = support.gold.to(features.device)
        state |= _means(features, gold)
        groups = torch.tensor(list(dict.fromkeys(support.groups[by_content(support)].tolist())))
        interpolation, temperature = self.config.interpolation, self.config.temperature
        if (interpolation is not None and temperature is not None) or len(groups) < 2:
            share = 0.3 if interpolation is None else interpolation
            chosen = {"interpolation": share, "temperature": temperature or 0.1}
            return state | {name: features.new_tensor(value) for name, value in chosen.items()}
        held = torch.isin(support.groups, groups[::2])
        half = _means(features[~held], gold[~held])
        distances = self._distance(features[held], half["prototypes"][0])
        hit = (half["classes"][None, :] == gold[held][:, None]).to(features)
        prior = head.scores({}, hidden[held])
        own = prior.gather(1, gold[held][:, None])[:, 0]
        state |= choose_fixed(distances, hit, own, temperature)
        return (
            state if interpolation is None else state | {"interpolation": features.new_tensor(interpolation)}
        )

    def _mixed(self, state: State, features: Tensor, prior: Tensor) -> Tensor:
        distances = self._distance(features, state["prototypes"][0])
        mass = fixed_mass(distances, state["interpolation"], state["temperature"])
        return mix(prior, state["classes"].expand(len(features), -1), mass)

    def _centre(self, features: Features, support: SlotBatch) -> State:
        """The mean of the examples' slots, if asked for and if there are two: less one, a single slot is nothing."""
        examples = features[~support.label_slot_mask.to(features.device)]
        return {"centre": examples.mean(dim=0)} if self.config.centre and len(examples) > 1 else {}

    def _space(self, features: Tensor, state: State) -> Tensor:
        if "centre" in state:
            features = features - state["centre"]
        return features if self.config.metric == "euclidean" else F.normalize(features, dim=-1)

    def _distance(self, features: Tensor, prototypes: Tensor) -> Tensor:
        if self.config.metric == "cosine":
            return 1 - features @ F.normalize(prototypes, dim=-1).T
        squares = features.square().sum(dim=1, keepdim=True) + prototypes.square().sum(dim=1)
        return (squares - 2 * features @ prototypes.T).clamp_min(0)


def _means(features: Features, classes: Int[Tensor, " n_slots"]) -> State:
    """The mean feature of each class that occurs, and the classes' numbers."""
    seen, place = torch.unique(classes, return_inverse=True)
    total = torch.zeros(len(seen), features.shape[1], device=features.device, dtype=features.dtype)
    count = torch.bincount(place, minlength=len(seen))
    means = total.index_add(0, place, features) / count[:, None]
    return {"prototypes": means[None], "classes": seen}
