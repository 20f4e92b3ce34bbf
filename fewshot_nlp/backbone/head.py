"""Heads of backbones: scores of classes before any example, and how they are combined with a learner's scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from fewshot_nlp.slots import Features, Scores, SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.backbone.base import Backbone

State = dict[str, Tensor]

PREFIX = "prior."
"""Prefix of the keys of a state that belong to the head, not to the learner."""

HeadUse = Literal["mixed", "built_on", "own"]
"""How a learner uses the backbone's head.

* ``mixed``: it ignores the head. Its scores are mixed with those of a label-name head; a vocabulary head is refused.
* ``built_on``: also computes its scores from those of a vocabulary head, which are the batch's `DecoderInputs.prior`.
* ``own``: it is a label-name head itself, and refuses tasks without labels.
"""


class Head(ABC):
    """A head that scores classes without any example."""

    @abstractmethod
    def fit(self, backbone: "Backbone", names: SlotBatch, support: SlotBatch) -> State:
        """The head's state for the classes of a support set; its keys begin with `PREFIX`.

        Args:
            backbone: the backbone that owns the head.
            names: slots of the classes' names, with targets.
            support: the support set.
        """

    @abstractmethod
    def scores(
        self,
        state: State,
        view: Features,
        fast_weights: Mapping[str, Tensor] | None = None,
    ) -> Scores | None:
        """Scores (unnormalised log-probabilities) of slots; None if the head is not fitted.

        Args:
            state: result of `fit`.
            view: the head's input, from `Backbone.views`.
            fast_weights: values used instead of the backbone's parameters of the same names.
        """

    @abstractmethod
    def join(
        self,
        prior: Scores,
        score: Callable[[SlotBatch], Scores],
        batch: SlotBatch,
        state: State,
        weight: float,
    ) -> Scores:
        """Combines a learner's scores with the head's.

        Args:
            prior: result of `scores`.
            score: function of a batch to the learner's scores.
            batch: the slots.
            state: result of `fit`.
            weight: the learner's setting ``head_weight``.
        """


def split(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Splits a state into the head's part and the learner's."""
    held = {key: value for key, value in state.items() if key.startswith(PREFIX)}
    return held, {key: value for key, value in state.items() if key not in held}
