"""Label names: slots are scored by what their classes are called, and examples correct what the names get wrong.

Papers: Ma et al. 2022, Label Semantics for Few Shot Named Entity Recognition (a head made of names); Friedman 2001,
Greedy Function Approximation (a learner fitted to what the loss's gradient leaves); Bertinetto et al. 2019,
Meta-Learning with Differentiable Closed-Form Solvers (which here is a ridge regression).
Deviations: one step of boosting instead of many, so that the whole is in closed form and can be differentiated; the
head of names is trained over many sources at once (recipes/train_label_names.py) or by episodes, and an encoder that
was trained with one lends it. It refuses tasks without labels. Data needed: none, if the names say what they mean;
untrained, some examples. Choose it with no example at all, or where few examples meet telling names.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone, Encoder
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.learners.ridge import ridge_head
from fewshot_nlp.modules.start import scaled_normalize
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Share
from fewshot_nlp.slots import Features, Scores, SlotBatch


class LabelNamesConfig(LearnerConfig):
    """Settings of `LabelNames`.

    Args:
        head_weight: of the encoder's own head beside this learner, which is that head already.
        width: length of the vectors in which slots and names are compared; the encoder's own head has its own.
        penalty: of the ridge regression that corrects the names' scores; start value of a learned one.
        step: what the correction is multiplied by; start value of a learned one.
    """

    head_weight: Share = 0.0
    width: Annotated[int, Field(ge=1, le=1 << 16)] = 256
    penalty: Annotated[float, Field(ge=1e-4, le=1e6)] = 1.0
    step: Annotated[float, Field(ge=1e-3, le=1e4)] = 8.0


class LabelNames(Learner[LabelNamesConfig], name="label_names"):
    """A head made of names, and one step of boosting on the examples."""

    head_use = "own"

    def __init__(self, encoder: Backbone, config: LabelNamesConfig | None = None) -> None:
        super().__init__(encoder, config)
        head = encoder.head if isinstance(encoder, Encoder) else None
        if isinstance(encoder, Encoder) and head is not None and encoder.layers[-1] != head.layer:
            encoder.choose_layers((head.layer,))  # the only layer that it reads
        hidden = encoder.dimension // len(encoder.layers)
        self.names = head or LabelNameHead(
            hidden, layer=encoder.layers[-1], width=self.config.width, seed=self.config.seed
        )
        self.log_penalty = nn.Parameter(torch.tensor(float(self.config.penalty)).log())
        self.log_step = nn.Parameter(torch.tensor(float(self.config.step)).log())
        self.to(encoder.device, encoder.feature_dtype)

    @property
    def knows_the_rest(self) -> bool:
        """Whether its head, or the encoder's, is trained: differs from what the seed gives."""
        head = self.names
        if self.encoder.head is not None:
            return True
        new = LabelNameHead(
            self.encoder.dimension // len(self.encoder.layers),
            layer=head.layer,
            width=head.width,
            seed=self.config.seed,
        ).state_dict()
        return any(
            not torch.equal(value.cpu(), new[name].to(value.dtype))
            for name, value in head.state_dict().items()
        )

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The head of names, and the coefficients that correct it; none without an example."""
        label_slots = support.label_slot_mask
        if support.normaliser == "positions":
            raise FewShotError(
                "label_names works by the names of labels, and this task has no labels; take another learner, such as "
                "fine_tune."
            )
        read = self.last_layer(self.features(support))
        state: State = {}
        if bool(label_slots.all() if self.config.label_names == 0 else label_slots.any()):
            names = support.select(label_slots)
            vectors = read[label_slots] if self.encoder.head is None else self.encoder.name_vectors(names)
            made = self.names.named_head(vectors, names)
            state = {f"names.{key}": value for key, value in made.items()}
        if bool(label_slots.all()):
            return state
        x, y = scaled_normalize(read[~label_slots], 1.0), support.target_matrix[~label_slots.cpu()].to(read)
        scores = self._by_name(state, read[~label_slots]).expand(len(y), support.n_classes)
        chance = scores.softmax(dim=1) if support.normaliser == "classes" else scores.sigmoid()
        coefficients, bias = ridge_head(x, y - chance, torch.ones_like(x[:, 0]), self.log_penalty.exp())
        return state | {
            "head.weight": self.log_step.exp() * coefficients,
            "head.bias": self.log_step.exp() * bias,
        }

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """The names' scores and their correction."""
        read = self.last_layer(features)
        scores = self._by_name(state, read)
        if "head.weight" in state:
            scores = scores + scaled_normalize(read, 1.0) @ state["head.weight"].T + state["head.bias"]
        return scores

    def _by_name(self, state: State, read: Tensor) -> Tensor:
        """Scores by the names, or one zero where names are left out."""
        if "names.bias" not in state:
            return read.new_zeros(1)
        return self.names.linear_scores(
            {key: state[f"names.{key}"] for key in ("weight", "bias", "row_class")}, read
        )
