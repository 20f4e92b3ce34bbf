"""Initial weights and support loss of learners with fast weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.modules.heads import prototype_head
from fewshot_nlp.modules.inner_loop import Weights
from fewshot_nlp.modules.state import FAST, fast_weights
from fewshot_nlp.slots import SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.learners.base import Learner


def fast_parameters(encoder: Backbone, scope: str = "adapter") -> Weights:
    """The encoder's weights that inner steps train, as part of a state.

    Args:
        encoder: the backbone.
        scope: "adapter", "all" weights, or "head" (none of them).
    """
    chosen: Mapping[str, Tensor] = {}
    if scope != "head":
        chosen = encoder.adapter if scope == "adapter" else encoder.moving_parameters()
    return {FAST + name: parameter for name, parameter in chosen.items()}


def scaled_normalize(features: Float[Tensor, "... d"], scale: float) -> Float[Tensor, "... d"]:
    """Features with norm ``scale``, so that learning rates do not depend on the encoder."""
    return F.normalize(features, dim=-1) * scale


def prototype_start(
    learner: "Learner", support: SlotBatch, scale: float, *, double_backward: bool = False
) -> Weights:
    """Linear head from the prototypes of `scaled_normalize` features; empty for a model with its own head."""
    if learner.encoder.vocabulary is not None:
        return {}
    features = scaled_normalize(learner.features(support, double_backward=double_backward), scale)
    weight, bias = prototype_head(features, support, learner.config.label_names)
    return {"head.weight": weight, "head.bias": bias}


def differentiable_copy(weights: Mapping[str, Tensor], *, meta: bool) -> Weights:
    """Copies of the weights that require gradients; never the parameters themselves.

    Args:
        weights: adapter and head.
        meta: keep the copies differentiable in the meta-parameters. They are clones, since otherwise the inner
            gradient of the adapter would also run through the initial head.
    """
    if not meta:
        return {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
    return {n: w.clone() if w.requires_grad else w.detach().requires_grad_() for n, w in weights.items()}


def support_loss(
    learner: "Learner", examples: SlotBatch, weights: Mapping[str, Tensor], *, double_backward: bool = False
) -> Callable[[Weights], Tensor]:
    """The support loss as a function of weights; without fast weights features are computed once.

    Args:
        learner: scores the slots.
        examples: slots with targets.
        weights: weights whose names the function will get.
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
    """A surrogate loss with this value and the gradient start - end in ``start`` (Nichol et al. 2018, algorithm 2)."""
    pull = torch.stack([(w * (w - end[name]).detach()).sum() for name, w in start.items()]).sum()
    return value + (pull - pull.detach())


def examples_of(support: SlotBatch) -> SlotBatch:
    """A support set without its label slots."""
    return support.select(~support.label_slot_mask)


def inner_rate(encoder: Backbone, given: float | None) -> float:
    """The adapter's learning rate in inner steps: the given one, else 0.1; 0.01 for a model with a head of its own.

    A new head needs a high rate; a model that is trained for its task gets worse at one (before meta-training, the
    translation model's loss on validation queries rises with 0.1, not with 0.01).
    """
    if given is not None:
        return given
    return 0.1 if encoder.vocabulary is None else 0.01


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds torch's global generator, and a GPU's, in the block, and restores it afterwards."""
    devices = [device.index or 0] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
