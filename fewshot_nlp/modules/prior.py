"""What the encoder's own head of label names adds to any learner: a prior that needs no example.

log p = (1 - w) log p_learner + w log p_head, with w falling with the number of labels (choices between many names are
less sure). Where the support set has labelled the very tokens of a slot, it has said what they are, and w is 0.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.slots import SlotBatch

PRIOR = "prior."
"""Begins the keys of a state that belong to the prior."""


def prior_state(encoder: Backbone, names: SlotBatch, support: SlotBatch) -> dict[str, Tensor]:
    """The head for the labels at hand, and what the support set labels itself.

    Args:
        encoder: with a head of label names.
        names: slots of the labels' names only.
        support: the support set.
    """
    assert encoder.head is not None
    vectors = encoder.name_vectors(names)  # type: ignore[attr-defined]
    state = class_head(encoder.head, vectors, names)
    named = torch.zeros(names.n_classes, dtype=torch.bool)
    named[names.target_matrix.sum(dim=0) > 0] = True
    labelled = named[support.target_matrix.argmax(dim=1)] & ~support.label_slot_mask
    keys = torch.from_numpy(np.unique(support.token_keys[labelled.numpy()]))
    return {PRIOR + key: value for key, value in state.items()} | {PRIOR + "labelled": keys}


def class_head(head: LabelNameHead, vectors: Tensor, names: SlotBatch) -> dict[str, Tensor]:
    """The head's linear form for the classes of a batch.

    Args:
        head: of label names.
        vectors: of the batch's slots.
        names: slots with targets; a class without any is the rest.
    """
    targets = names.target_matrix.to(vectors)
    count = targets.sum(dim=0)
    means = (targets.T @ vectors) / count.clamp_min(1)[:, None]
    return head.state(means, (count > 0).tolist(), names.coarse)


def prior_scores(state: dict[str, Tensor], read: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    """The head's scores, from the output of its layer."""
    own = {key.removeprefix(PRIOR): value for key, value in state.items() if key.startswith(PRIOR)}
    return LabelNameHead.scores(own, read)


def with_prior(
    scores: Float[Tensor, "n c"],
    state: dict[str, Tensor],
    read: Float[Tensor, "n d"],
    batch: SlotBatch,
    weight: float,
) -> Float[Tensor, "n c"]:
    """A learner's scores mixed with the head's.

    Args:
        scores: the learner's.
        state: with the prior's keys.
        read: output of the head's layer.
        batch: the slots.
        weight: of the head where there is one label.
    """
    n_labels = len(state[PRIOR + "bias"]) // 2  # a label has two rows
    labelled = torch.isin(torch.from_numpy(batch.token_keys), state[PRIOR + "labelled"].cpu())
    share = (weight / n_labels**0.5) * (~labelled).to(scores)[:, None]
    theirs = F.log_softmax(prior_scores(state, read).to(scores), dim=1)
    mixed: Tensor = (1 - share) * F.log_softmax(scores, dim=1) + share * theirs
    return mixed
