"""Where gradient steps start, and the loss that they lower: what learners with fast weights share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.modules.heads import linear_scores, prototype_head
from fewshot_nlp.modules.inner_loop import Weights
from fewshot_nlp.modules.state import FAST, State, fast_weights
from fewshot_nlp.slots import Features, Scores, SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.learners.base import Learner

InnerSteps = Annotated[int, Field(ge=1, le=1000)]
"""Gradient steps on a support set."""
InnerRate = Annotated[float, Field(ge=1e-8, le=10)]
"""Learning rate of the adapter in them."""
HeadRate = Annotated[float, Field(ge=1e-8, le=100)]
"""Learning rate of the head in them."""


def fast_parameters(encoder: Backbone, scope: str = "adapter") -> Weights:
    """The encoder's weights that steps move, as part of a state.

    Args:
        encoder: the backbone.
        scope: "adapter", "all" weights, or "head" (none of them).
    """
    chosen: Mapping[str, Tensor] = {}
    if scope != "head":
        chosen = encoder.adapter if scope == "adapter" else encoder.parameters()
    return {FAST + name: parameter for name, parameter in chosen.items()}


def scaled_normalize(features: Features, scale: float) -> Features:
    """Features of one length, so that rates suit every encoder."""
    return F.normalize(features, dim=-1) * scale


def prototype_start(
    learner: "Learner", support: SlotBatch, scale: float, *, double_backward: bool = False
) -> Weights:
    """The head of the prototypes of `scaled_normalize` features; none for a model that has a head of its own."""
    if learner.encoder.vocabulary is not None:
        return {}
    features = scaled_normalize(learner.features(support, double_backward=double_backward), scale)
    weight, bias = prototype_head(features, support, learner.config.label_names)
    return {"head.weight": weight, "head.bias": bias}


def head_scores(state: State, features: Features, batch: SlotBatch, scale: float) -> Scores:
    """A linear head on `scaled_normalize` features, or the model's own head where it has one."""
    if batch.decoder.prior is not None:
        return batch.decoder.prior
    return linear_scores(state, scaled_normalize(features, scale))


def differentiable_copy(weights: Mapping[str, Tensor], *, meta: bool) -> Weights:
    """Start values that can be differentiated, and never the parameters themselves.

    Args:
        weights: adapter and head.
        meta: keep them a function of the meta-parameters. They are clones even so, or else the adapter's inner
            gradient would also run through the head's start.
    """
    if not meta:
        return {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
    return {n: w.clone() if w.requires_grad else w.detach().requires_grad_() for n, w in weights.items()}


def support_loss(
    learner: "Learner", examples: SlotBatch, weights: Mapping[str, Tensor], *, double_backward: bool = False
) -> Callable[[Weights], Tensor]:
    """The examples' loss as a function of weights; features are computed once where no fast weight moves them.

    Args:
        learner: scores the slots.
        examples: slots with targets.
        weights: names that the function will be given.
        double_backward: whether the loss will be differentiated twice.
    """
    moves = any(name.startswith(FAST) for name in weights)
    fixed = None if moves else learner.features(examples)  # which is differentiated once, after the steps

    def loss(w: Weights) -> Tensor:
        features = fixed
        if features is None:
            features = learner.features(examples, fast_weights(w), double_backward=double_backward)
        return examples.loss(learner.scores_of(w, features, examples))

    return loss


def towards(value: Tensor, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> Tensor:
    """A surrogate with this value, and start - end as its gradient in the start (Nichol et al. 2018, algorithm 2)."""
    pull = torch.stack([(w * (w - end[name]).detach()).sum() for name, w in start.items()]).sum()
    return value + (pull - pull.detach())


def examples_of(support: SlotBatch) -> SlotBatch:
    """A support set without the slots of its labels' names."""
    return support.select(~support.label_slot_mask)


def inner_rate(encoder: Backbone, given: float | None) -> float:
    """The adapter's learning rate in inner steps: the given one, else 0.1; 0.01 for a model with a head of its own.

    A head that is new to the model learns little at a low rate; a model that can do its task loses some of that at a
    high one (before meta-training, the translation model's loss on validation queries rises at 0.1, and not at 0.01).
    """
    if given is not None:
        return given
    return 0.1 if encoder.vocabulary is None else 0.01


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator starts at ``seed`` in the block, for a module's first values; then it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
