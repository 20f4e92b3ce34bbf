"""A backbone that looks vectors up, so that learners can be tested on problems written out by hand."""

import numpy as np
import torch
from torch import nn

from fewshot_nlp.backbone.base import Backbone
from fewshot_nlp.slots import Hints, SlotBatch


class Vectors(Backbone):
    """Slot i of a batch has the vector ``table[windows[i][0]] @ (1 + adapter)``; the adapter starts at zero."""

    def __init__(self, table):
        model = nn.Module()
        model.base = nn.Parameter(torch.zeros(1, dtype=table.dtype))
        super().__init__(model, "vectors", None)
        self.table = table
        model.shift = nn.Parameter(torch.zeros(table.shape[1], table.shape[1], dtype=table.dtype))
        self.adapter = {"shift": model.shift.requires_grad_(False)}

    dimension = property(lambda self: self.table.shape[1])
    settings = property(lambda self: {})
    public_name = property(lambda self: None)
    feature_dtype = property(lambda self: self.table.dtype)

    def features(self, batch, fast_weights=None, *, double_backward=False):
        rows = self.table[[int(window[0]) for window in batch.windows]]
        shift = (fast_weights or self.adapter)["shift"]
        return rows + rows @ shift


def slots(rows, targets, n_classes=None, normaliser="classes", groups=None, label_slots=None):
    """A batch of one-token slots.

    Args:
        rows: the vector's number in the table, for each slot.
        targets: class numbers, or a 0/1 matrix.
        n_classes: needed where targets are numbers.
        normaliser: as in `SlotBatch`.
        groups: of the slots; each its own by default.
        label_slots: True for slots that stand for a label's name.
    """
    n = len(rows)
    targets = torch.as_tensor(targets)
    n_classes = n_classes or targets.shape[1]
    index = np.arange(n)
    return SlotBatch(
        items=tuple(range(n)),
        windows=[[int(row)] for row in rows],
        types=None,
        spans=np.stack([index, index, index * 0, index * 0 + 1], axis=1),
        groups=torch.arange(n) if groups is None else torch.as_tensor(groups),
        classes=tuple(f"class {c}" for c in range(n_classes)),
        pooling="mean",
        normaliser=normaliser,
        targets=targets,
        hints=Hints(label_slots=None if label_slots is None else torch.as_tensor(label_slots)),
    )


def random_episode(normaliser="classes", seed=0, n_support=9, n_query=8, dimension=6, noise=1.0):
    """A table with three kinds of vectors, a support batch with two label_slots, and a query batch."""
    generator = torch.Generator().manual_seed(seed)
    n = n_support + 3 + n_query
    kind = torch.arange(n) % 3
    kind[n_support : n_support + 3] = torch.arange(3)
    dtype = torch.float64
    centres = torch.randn(3, dimension, generator=generator, dtype=dtype)
    table = centres[kind] + noise * torch.randn(n, dimension, generator=generator, dtype=dtype)
    matrix = torch.nn.functional.one_hot(kind, 3).to(dtype)
    targets = kind if normaliser == "classes" else matrix.float()
    head, tail = slice(0, n_support + 3), slice(n_support + 3, n)
    groups = torch.arange(n) // 3 if normaliser == "positions" else torch.arange(n)
    label_slots = torch.arange(n_support + 3) >= n_support
    index = list(range(n))
    support = slots(index[head], targets[head], 3, normaliser, groups[head], label_slots)
    query = slots(index[tail], targets[tail], 3, normaliser, groups[tail] - groups[tail].min())
    return Vectors(table), support, query
