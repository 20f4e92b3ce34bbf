"""Scores as one linear map of the features, found where a learner has one."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot_nlp.backbone.head import split
from fewshot_nlp.pipeline import TaskModel
from fewshot_nlp.slots import Hints, SlotBatch

LINEAR = (
    "prototypical with metric='euclidean', context_probe with neighbours=0 and word_shape=0, or fine_tune with "
    "start='context_probe' and these as start_config"
)
"""Learners whose scores are linear in the features; others normalise each vector, or look around."""
TOLERANCE = 1e-3


class Linear(NamedTuple):
    """scores = weight x features + bias: [n_classes, d] and [n_classes]."""

    weight: Tensor
    bias: Tensor


@torch.no_grad()
def linear_map(model: TaskModel, batch: SlotBatch, features: Tensor) -> Linear | None:
    """The linear map that gives a learner's scores, up to what the normaliser does not see; None where there is none.

    It is solved from the scores of random features about the given ones, and checked on others.

    Args:
        model: an adapted model.
        batch: of some texts; for its classes and normaliser.
        features: of the batch, [n_slots, d], for their mean and spread.
    """
    learner, state = model.pipeline.learner, model.adapted.state
    if split(state)[0]:
        return None  # a head of label names looks at tokens
    d = features.shape[1]
    random = torch.Generator().manual_seed(0)
    spread = features.std() + 1e-6
    rows = torch.randn(2 * d + 64, d, generator=random) * spread + features.mean(dim=0).cpu()
    points = rows.to(features)
    some = replace(
        batch,
        windows=[],
        types=None,
        spans=batch.spans[:0],
        groups=torch.arange(len(rows)),
        targets=None,
        hints=Hints(coarse=batch.hints.coarse),
    )
    try:
        scores = learner.scores_of(state, points, some).double().cpu()
    except (RuntimeError, IndexError, ValueError):
        return None  # it computes features of its own
    if batch.normaliser == "classes":
        scores = scores - scores.mean(dim=1, keepdim=True)
    x = np.c_[rows.double().numpy(), np.ones(len(rows))]
    known = len(rows) - 64
    found = np.linalg.lstsq(x[:known], scores[:known].numpy(), rcond=None)[0]
    error = np.abs(x[known:] @ found - scores[known:].numpy()).max() / max(float(scores.abs().max()), 1e-9)
    if not error < TOLERANCE:
        return None
    solved = torch.from_numpy(found.T).float()
    return Linear(solved[:, :-1].contiguous(), solved[:, -1].contiguous())
