"""Relation networks: a small network, not a fixed distance, compares a slot with a class.

Paper: Sung, Yang, Zhang, Xiang, Torr, Hospedales 2018, Learning to Compare: Relation Network for Few-Shot Learning
(equation 1: the relation score of a class and a query, whose features are combined and given to a network).
Deviations: the score is the cosine to the class's prototype over a temperature, plus the network's output, which is
zero before meta-training, so an untrained learner is `prototypical`. The network's input is the concatenation of both
vectors and their product. A class of several examples is their mean (the paper has the sum). The loss is the task's
own (the paper has squared errors of scores in [0, 1], and calls that a choice). Classes that do not exclude
each other have two relation scores: for the class and against it. Pairs are never materialised: the first layer is a
sum over the two vectors and their product, computed in blocks, so memory grows with slots x classes x hidden, not
with the feature size.
It refuses translation: each decoding step would compare its vector with a class for every token of the vocabulary,
nearly all of them without an example.
Data needed: meta-training on many tasks. Choose it where the comparison must be learned and the encoder must stay
frozen (``train: learner``).
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.heads import UNSEEN, class_means
from fewshot_nlp.modules.start import seeded
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Temperature
from fewshot_nlp.slots import Features, Scores, SlotBatch

CELLS = 2**22
"""Numbers of the hidden layer that are computed at once."""
CLASSES = 256
"""Classes that are looked at at once."""


class RelationConfig(LearnerConfig):
    """Settings of `Relation`.

    Args:
        hidden: units of the network's hidden layer.
        temperature: the cosine is divided by this; initial value, learned in meta-training.
    """

    hidden: Annotated[int, Field(ge=1, le=8192)] = 64
    temperature: Temperature = 0.1


class Relation(Learner[RelationConfig], name="relation"):
    """Prototypes and a network that compares slots with them."""

    def __init__(self, encoder: Backbone, config: RelationConfig | None = None) -> None:
        super().__init__(encoder, config)
        with seeded(self.config.seed):
            self.network = RelationNetwork(encoder.dimension, self.config.hidden)
        self.log_temperature = nn.Parameter(torch.tensor(float(self.config.temperature)).log())
        self.to(device=encoder.device, dtype=encoder.feature_dtype)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Prototypes of the classes, shape [1 or 2, n_classes, d]; the second are "not this class"."""
        features = F.normalize(self.features(support), dim=-1)
        means, mass = class_means(features, support, self.config.label_names)
        return {"prototypes": F.normalize(means, dim=-1), "seen": mass > 0}

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Relation score of each class, minus that of "not this class" where classes do not exclude each other."""
        queries = F.normalize(features, dim=-1)
        scores, *others = [self._relation(queries, side) for side in state["prototypes"]]
        for other in others:
            scores = scores - other
        return scores.masked_fill(~state["seen"], UNSEEN)

    def _relation(self, queries: Tensor, prototypes: Tensor) -> Tensor:
        learned: Tensor = self.network(queries, prototypes)
        return (queries @ prototypes.T - 1) / self.log_temperature.exp() + learned


class RelationNetwork(nn.Module):
    """Two layers over (class, slot, their product); zero before meta-training.

    Args:
        dimension: length of a vector; vectors have norm 1.
        hidden: units.
    """

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.of_class = nn.Linear(dimension, hidden)
        self.of_slot = nn.Linear(dimension, hidden, bias=False)
        self.of_product = nn.Linear(dimension, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        self.input_scale = float(dimension) ** 0.5  # so that a vector's components are about 1 in size
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, slots: Float[Tensor, "n d"], classes: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
        """Relation of every slot to every class."""
        slots, classes = slots * self.input_scale, classes * self.input_scale
        columns = [self._columns(slots, block) for block in torch.split(classes, CLASSES)]
        return torch.cat(columns, dim=1)

    def _columns(self, slots: Float[Tensor, "n d"], classes: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
        hidden = self.out.in_features
        product = (classes[:, None] * self.of_product.weight).flatten(0, 1)  # [c * hidden, d]
        given = self.of_class(classes)
        rows = []
        for part in torch.split(slots, max(1, CELLS // (len(classes) * hidden))):
            inner = (part @ product.T).view(len(part), len(classes), hidden)
            inner = torch.relu(inner + given + self.of_slot(part)[:, None])
            rows.append(self.out(inner)[:, :, 0])
        return torch.cat(rows)
