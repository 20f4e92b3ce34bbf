"""Nearest neighbours: support slots as keys and values.

Papers: NNShot and StructShot, Yang & Katiyar 2020, Simple and Effective Few-Shot Named Entity Recognition
(section 4); soft votes as in kNN-LM, Khandelwal et al. 2020 (equation 2). For a model with a head of its own (a
translation model) this is kNN-MT, Khandelwal et al. 2021 (equations 2 and 3), and with ``mixing="adaptive"`` Zheng et
al. 2021. ``vote="per_class"`` with k=1 is NNShot; with the NER task's ``transitions="abstract"`` it is StructShot, but
for transitions counted on the support set instead of source data (`tasks.transitions.abstract`).
Deviations: features are L2-normalised for the cosine metric; k > 1 takes the mean of the k nearest distances of
a class; in kNN-MT the keys are the decoder's last hidden states, and interpolation and temperature are chosen on the
support set, each slot searched among the other examples only. Data needed: one example a class. Choose it where a
class has several clusters, or where single examples must be added and removed at any time.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_nlp.backbone import VocabularyHead
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.memory.index import Index, distances, index_of
from fewshot_nlp.modules.interpolation import (
    adaptive_mass,
    by_content,
    choose_fixed,
    fixed_mass,
    mix,
    train_adaptive,
)
from fewshot_nlp.modules.state import State, target_kinds
from fewshot_nlp.settings import Count, Share, Temperature
from fewshot_nlp.slots import Features, Scores, SlotBatch

FLOOR = 1e-4
"""Probability left to classes that none of the neighbours has."""
KEPT_BYTES = 128 * 2**20
"""Bound on the features of support slots that are kept for the next time."""
SAMPLE = 512
"""Slots of the support set on which a mixture is chosen."""


class NearestNeighbourConfig(LearnerConfig):
    """Settings of `NearestNeighbour`.

    Args:
        k: number of neighbours, from 1.
        vote: "per_class" scores each class by its own k nearest slots; "top_k" takes votes of the k nearest of all.
        metric: "euclidean" (squared distance) or "cosine".
        temperature: scores are the negative distance divided by this; None chooses it on the support set, in a mixture
            with a model's own distribution.
        interpolation: share of the memory in that mixture, in [0, 1]; None chooses it on the support set.
        mixing: "fixed" for one interpolation, or "adaptive": a small network, trained on the support set, computes
            from the distances how many neighbours to use.
        search: "exact", or "faiss", which is faster from some ten thousand slots and misses a few neighbours.
        half: store the keys as float16.
    """

    k: Count = 1
    vote: Literal["per_class", "top_k"] = "per_class"
    metric: Literal["euclidean", "cosine"] = "cosine"
    temperature: Temperature | None = 0.1
    interpolation: Share | None = None
    mixing: Literal["fixed", "adaptive"] = "fixed"
    search: Literal["exact", "faiss"] = "exact"
    half: bool = False


class NearestNeighbour(Learner[NearestNeighbourConfig], name="nearest_neighbour"):
    """k nearest support slots."""

    head_use = "built_on"

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The support slots themselves: keys are features, values class numbers, or 0/1 rows over the classes.

        For classes that do not exclude each other the rows have a second half: "not this class".
        """
        with self.encoder.cached(KEPT_BYTES, lasting=True):  # most slots were there before the newest one
            features = self.features(support)
        keep = self.kept(support)
        support, features = support.select(keep), features[keep.to(features.device)]
        keys = features.half() if self.config.half else features
        if support.normaliser != "classes":
            return {"keys": keys, "values": torch.cat(target_kinds(support, features), dim=1)}
        state = {"keys": keys, "values": support.gold.to(features.device)}
        head = self.encoder.vocabulary
        return state if head is None else state | self._mixture(support, features, head)

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Log-votes of the neighbours, or the mixture of their votes with the model's own distribution."""
        if batch.decoder.prior is not None:
            distances, classes = self._neighbours(state, features)
            if "mix.in" in state:
                mass = adaptive_mass(state, distances, classes)
            else:
                mass = fixed_mass(distances, state["interpolation"], state["temperature"])
            return mix(batch.decoder.prior, classes, mass)
        values = state["values"]
        if values.dim() == 1:
            return self._votes(state["keys"], F.one_hot(values, batch.n_classes).to(features), features)
        yes, no = self._votes(state["keys"], values, features).chunk(2, dim=1)
        return yes - no

    def _votes(self, keys: Tensor, values: Tensor, features: Tensor) -> Tensor:
        keys, temperature = keys.to(features), self.config.temperature or 0.1
        if self.config.vote == "per_class":
            near = nearest_of_each_class(keys, values, features, self.config.k, self.config.metric)
            return -near.clamp_max(1e4) / temperature
        distance, index = Index(keys, self.config.metric).search(features, self.config.k)
        weight = F.softmax(-distance / temperature, dim=1)
        return ((weight[:, :, None] * values[index]).sum(dim=1) + FLOOR).log()

    def _neighbours(self, state: State, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and classes of the k nearest slots."""
        index = index_of(state["keys"], self.config.metric, self.config.search)
        distances, numbers = index.search(features, self.config.k)
        return distances, state["values"][numbers]

    def kept(self, support: SlotBatch) -> Bool[Tensor, " n_slots"]:
        """Which slots become keys: all; with ``label_names: 0``, label slots of classes without an example only."""
        if self.config.label_names > 0 or support.hints.label_slots is None:
            return torch.ones(support.n_slots, dtype=torch.bool)
        targets = support.target_matrix
        seen = targets[~support.hints.label_slots].sum(dim=0) > 0
        return ~support.hints.label_slots | (targets[:, ~seen].sum(dim=1) > 0)

    def _mixture(self, support: SlotBatch, features: Tensor, head: VocabularyHead) -> State:
        """Interpolation and temperature, chosen on support slots that are searched among the other examples only."""
        given, temperature = self.config.interpolation, self.config.temperature
        if given is not None and temperature is not None and self.config.mixing == "fixed":
            return {
                "interpolation": features.new_tensor(given),
                "temperature": features.new_tensor(temperature),
            }
        if len(torch.unique(support.groups)) < 2:  # nothing to hold out
            return {
                "interpolation": features.new_tensor(0.5 if given is None else given),
                "temperature": features.new_tensor(temperature or 0.1),
            }
        generator = torch.Generator().manual_seed(self.config.seed)
        sample = torch.randperm(support.n_slots, generator=generator)[:SAMPLE]
        chosen = by_content(support)[sample].sort().values
        keys = features.half().to(features) if self.config.half else features
        distance = distances(features[chosen], keys, self.config.metric)
        same = support.groups[chosen][:, None] == support.groups[None, :]
        near = distance.masked_fill(same.to(distance.device), torch.inf).topk(
            min(self.config.k, support.n_slots), dim=1, largest=False
        )
        gold = support.gold.to(features.device)
        prior = head.scores({}, features[chosen])
        own = prior.gather(1, gold[chosen][:, None])[:, 0]
        classes = gold[near.indices]
        found = near.values  # infinite where there are fewer than k
        hit = (classes == gold[chosen][:, None]).to(features)
        if self.config.mixing == "adaptive":
            return train_adaptive(
                found, classes, hit, own, self.config.seed, temperature=temperature, interpolation=given
            )
        state = choose_fixed(found, hit, own, temperature)
        return state if given is None else state | {"interpolation": features.new_tensor(given)}


def nearest_of_each_class(
    keys: Float[Tensor, "n d"],
    values: Float[Tensor, "n n_classes"],
    queries: Float[Tensor, "q d"],
    k: int,
    metric: str,
) -> Float[Tensor, "q n_classes"]:
    """Mean distance to the k nearest keys of each class (``values`` above 0); infinite for classes without a key."""
    columns = [
        Index(keys[column > 0], metric).search(queries, k)[0].mean(dim=1)
        if (column > 0).any()
        else queries.new_full((len(queries),), torch.inf)
        for column in values.T
    ]
    return torch.stack(columns, dim=1)
