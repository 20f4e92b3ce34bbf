"""The state of a learner, and sums over support slots."""

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.slots import Features, Scores, SlotBatch

State = dict[str, Tensor]
"""All that a learner fitted to a support set; keys that begin with ``fast.`` are fast weights of the encoder."""

FAST = "fast."


def fast_weights(state: State) -> dict[str, Tensor]:
    """The encoder's fast weights in a state, under the encoder's own names."""
    return {key.removeprefix(FAST): value for key, value in state.items() if key.startswith(FAST)}


def class_sums(
    features: Features, weights: Scores
) -> tuple[Float[Tensor, "n_classes d"], Float[Tensor, " n_classes"]]:
    """Weighted sum of the features of each class, and each class's total weight."""
    return weights.T @ features, weights.sum(dim=0)


def target_kinds(batch: SlotBatch, like: Tensor) -> list[Scores]:
    """The 0/1 targets; where classes do not exclude each other also their opposite, "not this class"."""
    targets = batch.target_matrix.to(like)
    return [targets] if batch.normaliser == "classes" else [targets, 1 - targets]


def slot_weights(batch: SlotBatch, label_names: float | Tensor, like: Tensor) -> Float[Tensor, " n_slots"]:
    """Weight of each slot: 1 for slots of examples, ``label_names`` for label slots.

    Label slots of a class without an example have weight 1, so that the class can be predicted.
    """
    weight = torch.ones(batch.n_slots, dtype=like.dtype)
    if batch.hints.label_slots is None:
        return weight.to(like.device)
    targets = batch.target_matrix
    seen = targets[~batch.hints.label_slots].sum(dim=0) > 0
    alone = (targets[:, ~seen].sum(dim=1) > 0) & batch.hints.label_slots
    weight[batch.hints.label_slots & ~alone] = label_names
    return weight.to(like.device)


def balanced_weights(mass: Float[Tensor, " n_classes"], balance: float) -> Float[Tensor, " n_classes"]:
    """Weight of a slot of each class; the total weight of all slots does not change.

    Args:
        mass: weight of each class's slots so far.
        balance: 0 gives all slots equal weight, 1 all classes.
    """
    weight = torch.where(mass > 0, mass.clamp_min(1e-12) ** -balance, 0.0)
    return weight * mass.sum() / (weight * mass).sum().clamp_min(1e-12)
