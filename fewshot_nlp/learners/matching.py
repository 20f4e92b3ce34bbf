"""Matching networks: attention of a query slot to the support slots, summed for each class.

Paper: Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, Matching Networks for One Shot Learning (equation 1;
section 2.1.1: attention by a softmax of cosines; ``context=True`` is section 2.1.2 with appendix A: the support set
is encoded by a bidirectional LSTM, and queries by an LSTM that attends to the support set).
Deviations: features are centred on the support set; cosines are multiplied by a learned sharpness (1 in the paper);
``balance`` corrects for unequal numbers of slots a class, which the paper's episodes do not have. The outputs of the
two LSTMs are projected to the features' size by maps that are zero before meta-training, so both settings start as
the same learner. The LSTM reads slots in the order of their token ids, words of one sentence one after the other, so
neither the support set's order nor class names matter. Above the limit of support slots a balanced sample is used,
and the log says so. Classes that do not exclude each other get the odds of attention to slots of the class against
all others. With a model's own head (translation) the attention is mixed with the model's
distribution as in `nearest_neighbour`; share and temperature are chosen on the support set, so sharpness and balance
are not used.
Data needed: one example a class; meta-training for ``context=True``. Choose it where a class has several
clusters, and a single nearest neighbour is too noisy.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone, VocabularyHead
from fewshot_nlp.errors import logger
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.context_embedding import ContextEmbedding
from fewshot_nlp.modules.heads import share_scores
from fewshot_nlp.modules.interpolation import choose_fixed, fixed_mass, mix
from fewshot_nlp.modules.order import canonical_order
from fewshot_nlp.modules.selection import balanced
from fewshot_nlp.modules.start import seeded
from fewshot_nlp.modules.state import State, slot_weights, target_kinds
from fewshot_nlp.settings import Scale, Share
from fewshot_nlp.slots import Features, Scores, SlotBatch

CHUNK = 4096
"""Queries at once."""
SAMPLE = 512
"""Slots of the support set on which a mixture is chosen."""


class MatchingConfig(LearnerConfig):
    """Settings of `Matching`.

    Args:
        context: use full-context embeddings.
        processing_steps: steps of the query's LSTM (the paper's K), with ``context``.
        hidden: units of the LSTMs, with ``context``.
        sharpness: factor of the cosines before the softmax; initial value, learned in meta-training. The paper has 1.
        balance: a class's attention is divided by its number of slots to this power, in [0, 1]: 0 is the paper's
            sum, 1 the mean. Initial value, learned in meta-training.
        max_slots: support slots that are attended to; above it a sample, balanced over classes.
        context_slots: the same limit with ``context``, whose LSTM reads slots one after the other.
        interpolation: share of the attention in the mixture with a model's own distribution, in [0, 1]; None
            chooses it on the support set.
    """

    context: bool = False
    processing_steps: Annotated[int, Field(ge=1, le=100)] = 3
    hidden: Annotated[int, Field(ge=1, le=8192)] = 128
    sharpness: Scale = 20.0
    balance: Share = 0.5
    max_slots: Annotated[int, Field(ge=1, le=10**5)] = 4096
    context_slots: Annotated[int, Field(ge=1, le=10**4)] = 512
    interpolation: Share | None = None

    @property
    def limit(self) -> int:
        """Support slots that are used."""
        return min(self.max_slots, self.context_slots) if self.context else self.max_slots


class Matching(Learner[MatchingConfig], name="matching"):
    """Attention over the support set."""

    head_use = "built_on"

    def __init__(self, encoder: Backbone, config: MatchingConfig | None = None) -> None:
        super().__init__(encoder, config)
        c = self.config
        self.context: ContextEmbedding | None = None
        if c.context:
            with seeded(c.seed):
                self.context = ContextEmbedding(encoder.dimension, c.hidden, c.processing_steps, c.sharpness)
        if encoder.vocabulary is None:
            self.log_sharpness = nn.Parameter(torch.tensor(float(c.sharpness)).log())
            self.balance = nn.Parameter(torch.tensor(float(c.balance)))
        self.to(device=encoder.device, dtype=encoder.feature_dtype)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The support slots: keys [n, d]; values, class numbers or weighted 0/1 rows over the classes.

        For classes that do not exclude each other the rows have a second half: "not this class".
        """
        weight = None
        if support.hints.label_slots is not None:
            weight = slot_weights(support, self.config.label_names, torch.zeros(0))
        kept = self._kept(support, weight)
        keep = torch.zeros(support.n_slots, dtype=torch.bool)
        keep[kept] = True
        features = self.features(support.select(keep))
        features = features[kept.argsort().argsort().to(features.device)]  # in the order of kept
        centre = features.mean(dim=0) if len(kept) > 1 else torch.zeros_like(features[0])
        slots = F.normalize(features - centre, dim=-1)
        keys = slots if self.context is None else F.normalize(self.context.support(slots), dim=-1)
        state = {"centre": centre, "keys": keys}
        if self.encoder.vocabulary is not None:
            return state | self._mixture(support, kept, features, state, self.encoder.vocabulary)
        values = torch.cat(target_kinds(support, features), dim=1)[kept.to(features.device)]
        return state | {"values": values if weight is None else values * weight[kept].to(features)[:, None]}

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Logarithm of each class's attention (equation 1), or its mixture with the model's own distribution."""
        if batch.decoder.prior is not None:
            distances = 1 - self._cosines(state, features)
            mass = fixed_mass(distances, state["interpolation"], state["temperature"])
            return mix(batch.decoder.prior, state["classes"].expand(len(features), -1), mass)
        values = state["values"]
        shares = [self._attention(state, part) @ values for part in torch.split(features, CHUNK)]
        return share_scores(torch.cat(shares), values.sum(dim=0), self.balance, batch)

    def _cosines(self, state: State, features: Tensor) -> Float[Tensor, "n_slots n_keys"]:
        queries = F.normalize(features - state["centre"], dim=-1)
        if self.context is not None:
            queries = F.normalize(self.context.query(queries, state["keys"]), dim=-1)
        return queries @ state["keys"].T

    def _attention(self, state: State, features: Tensor) -> Float[Tensor, "n_slots n_keys"]:
        return (self._cosines(state, features) * self.log_sharpness.exp()).softmax(dim=-1)

    def _kept(self, support: SlotBatch, weight: Tensor | None) -> Int[Tensor, " n_kept"]:
        """Indices of the slots that are used, in canonical order."""
        order = canonical_order(support)
        if weight is not None:
            order = order[weight[order] > 0]
        limit = self.config.limit
        if len(order) <= limit:
            return order
        kinds = support.gold[order]
        if kinds.dim() == 2:
            kinds = torch.unique(kinds, dim=0, return_inverse=True)[1]
        kept = order[balanced(kinds, limit, self.config.seed)]
        logger.info(
            "matching uses %d of %d support slots, balanced over the classes.", len(kept), support.n_slots
        )
        return kept

    def _mixture(
        self, support: SlotBatch, kept: Tensor, features: Tensor, state: State, head: VocabularyHead
    ) -> State:
        """The keys' tokens; share and temperature, chosen on slots that attend to the other examples only."""
        gold, groups = support.gold[kept], support.groups[kept]
        classes = gold.to(features.device)
        given = self.config.interpolation
        if len(torch.unique(groups)) < 2:  # nothing to hold out
            share = features.new_tensor(0.5 if given is None else given)
            return {"classes": classes, "interpolation": share, "temperature": features.new_tensor(0.1)}
        generator = torch.Generator().manual_seed(self.config.seed)
        some = torch.randperm(len(kept), generator=generator)[:SAMPLE]
        some = some[kept[some].argsort()]  # as `select` orders them
        same = (groups[some][:, None] == groups[None, :]).to(features.device)
        with torch.no_grad():
            distances = (1 - self._cosines(state, features[some])).masked_fill(same, torch.inf)
            prior = head.scores({}, features[some])
        own = prior.gather(1, classes[some][:, None])[:, 0]
        hit = (classes[some][:, None] == classes[None, :]).to(features)
        chosen = choose_fixed(distances, hit, own)
        if given is not None:
            chosen["interpolation"] = features.new_tensor(given)
        return {"classes": classes} | chosen
