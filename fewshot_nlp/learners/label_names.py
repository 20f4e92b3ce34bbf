"""Label names: slots are scored by the names of their classes, and examples correct these scores.

Papers: Ma et al. 2022, Label Semantics for Few Shot Named Entity Recognition (a head made of names); Friedman 2001,
Greedy Function Approximation (gradient boosting: a model fitted to the negative gradient of the loss); Bertinetto et
al. 2019, Meta-Learning with Differentiable Closed-Form Solvers (here: ridge regression).
Deviations: one step of boosting instead of many, so that ``fit`` is in closed form and differentiable. The
head of names is trained on many sources at once (recipes/train_label_names.py) or by episodes; if the encoder has
a trained one, it is used. It refuses tasks without labels. Data needed: none, with descriptive names and a trained
head; some examples with an untrained one. Choose it with no example at all, or with few examples and descriptive
names.
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
        head_weight: of the encoder's head beside this learner, which is that head already: leave it at 0.
        width: dimension in which slots and names are compared; not used where the encoder has a head.
        penalty: of the ridge regression that corrects the names' scores; initial value, learned in meta-training.
        step: factor of the correction; initial value, learned in meta-training.
    """

    head_weight: Share = 0.0
    width: Annotated[int, Field(ge=1, le=1 << 16)] = 256
    penalty: Annotated[float, Field(ge=1e-4, le=1e6)] = 1.0
    step: Annotated[float, Field(ge=1e-3, le=1e4)] = 8.0


class LabelNames(Learner[LabelNamesConfig], name="label_names"):
    """A head of label names, and one boosting step on the examples."""

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
        """Whether the encoder has a head, or the learner's own differs from its seeded initial values (is trained)."""
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
        """The head of names, and the coefficients of the correction, which is left out without an example."""
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
        """Scores by the names plus the correction."""
        read = self.last_layer(features)
        scores = self._by_name(state, read)
        if "head.weight" in state:
            scores = scores + scaled_normalize(read, 1.0) @ state["head.weight"].T + state["head.bias"]
        return scores

    def _by_name(self, state: State, read: Tensor) -> Tensor:
        """Scores by the names; a single zero where names are left out."""
        if "names.bias" not in state:
            return read.new_zeros(1)
        return self.names.linear_scores(
            {key: state[f"names.{key}"] for key in ("weight", "bias", "row_class")}, read
        )
