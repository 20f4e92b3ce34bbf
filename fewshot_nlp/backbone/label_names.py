"""A head made of label names: scores of slots from what their classes are called, before any example.

Papers: Ma et al. 2022, Label Semantics for Few Shot Named Entity Recognition (a class is scored by the product of the
slot's vector with a vector of its name); Zaratiana et al. 2024, GLiNER (types as words, many sources).
Deviations: words instead of spans; names are read once by the encoder without its adapter, so that 100 types cost no
more than 5 when predicting; BIO classes of a type share its name and differ in their projection.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

State = dict[str, Tensor]


class LabelNameHead(nn.Module):
    """Scores of slots by the names of their classes.

    A class without a name is the rest ("O" of entities) and has a learned vector. Of the classes of one coarser
    class, the first (B-X) and the others (I-X) read the name through a projection each; where there are no coarser
    classes, a class is either of the two.

    Args:
        hidden_size: length of a layer's output.
        layer: the encoder's layer whose output is read, from 1.
        width: length of the vectors that are compared.
        seed: for the initial values.
    """

    def __init__(self, hidden_size: int, *, layer: int, width: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.layer, self.width = layer, width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slot = nn.Linear(hidden_size, width)
            self.first = nn.Linear(hidden_size, width)
            self.inner = nn.Linear(hidden_size, width)
            self.rest = nn.Parameter(torch.randn(width) / width**0.5)
        self.rest_bias = nn.Parameter(torch.zeros(()))

    def state(
        self,
        names: Float[Tensor, "n_classes hidden"],
        named: Sequence[bool],
        coarse: Sequence[int] | None = None,
    ) -> State:
        """One linear head for some classes: ``weight`` and ``bias``, a row a way to be of a class, and ``row_class``.

        Args:
            names: the mean of each class's name vectors; anything for classes without a name.
            named: which classes have a name.
            coarse: for each class its coarser class, as in `SlotBatch`.
        """
        unit = F.normalize(names, dim=1) * names.shape[1] ** 0.5
        first, inner = self.first(unit), self.inner(unit)
        rows: list[Tensor] = []
        classes: list[int] = []
        for number, has_name in enumerate(named):
            if not has_name:
                ways: list[Tensor] = [self.rest]
            elif coarse is None:
                ways = [first[number], inner[number]]
            else:
                ways = [(inner if coarse[number] in coarse[:number] else first)[number]]
            rows += ways
            classes += [number] * len(ways)
        vectors = torch.stack(rows) / self.width**0.5
        nameless = torch.tensor([not named[c] for c in classes], device=vectors.device)
        return {
            "weight": vectors @ self.slot.weight,
            "bias": vectors @ self.slot.bias + self.rest_bias * nameless,
            "row_class": torch.tensor(classes, device=vectors.device),
        }

    @staticmethod
    def scores(state: State, features: Float[Tensor, "n_slots hidden"]) -> Float[Tensor, "n_slots n_classes"]:
        """Scores (unnormalised log-probabilities) of slots.

        Args:
            state: of `state`.
            features: output of the head's layer.
        """
        rows = F.linear(F.layer_norm(features, features.shape[1:]), state["weight"], state["bias"])
        return _by_class(rows, state["row_class"])


def _by_class(rows: Float[Tensor, "n r"], row_class: Int[Tensor, " r"]) -> Float[Tensor, "n c"]:
    """The log of the summed exponentials of each class's rows."""
    n_classes = int(row_class.max()) + 1
    if n_classes == rows.shape[1]:
        return rows
    top = rows.detach().amax(dim=1, keepdim=True)
    empty = torch.zeros(len(rows), n_classes, dtype=rows.dtype, device=rows.device)
    mass = empty.index_add(1, row_class, (rows - top).exp())
    return mass.clamp_min(1e-30).log() + top
