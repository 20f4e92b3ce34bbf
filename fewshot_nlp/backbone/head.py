"""A head that a backbone brings along: scores of classes before any example, and how they join a learner's."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from fewshot_nlp.slots import Features, Scores, SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.backbone.base import Backbone

State = dict[str, Tensor]

PREFIX = "prior."
"""Begins the keys of a state that belong to the head, not to the learner."""

HeadUse = Literal["mixed", "built_on", "own"]
"""What a learner does with the backbone's head.

* ``mixed``: nothing. Its scores are mixed with those of a head of label names; a head of a whole vocabulary is refused.
* ``built_on``: also computes its scores from those of a vocabulary head, which are the batch's `DecoderInputs.prior`.
* ``own``: is a head of label names itself, and so refuses tasks without labels.
"""


class Head(ABC):
    """Scores of classes that a backbone has without any example."""

    @abstractmethod
    def fit(self, backbone: "Backbone", names: SlotBatch, support: SlotBatch) -> State:
        """What the head keeps for the classes at hand; its keys begin with `PREFIX`.

        Args:
            backbone: whose head it is.
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
        """Scores (unnormalised log-probabilities) of slots; None where the head was not fitted.

        Args:
            state: of `fit`.
            view: what the head reads, of `Backbone.views`.
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
        """A learner's scores and the head's as one.

        Args:
            prior: of `scores`.
            score: the learner's scores of a batch.
            batch: the slots.
            state: of `fit`.
            weight: the learner's setting ``head_weight``.
        """


def split(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """The head's part of a state, and the learner's."""
    held = {key: value for key, value in state.items() if key.startswith(PREFIX)}
    return held, {key: value for key, value in state.items() if key not in held}
