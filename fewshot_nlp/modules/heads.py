"""Linear heads: scores, initialisation from prototypes, and meta-learned heads."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.modules.state import class_sums, slot_weights, target_kinds
from fewshot_nlp.slots import Features, Scores, SlotBatch

UNSEEN = -1e4
"""Score of a class that the support set does not show."""


def linear_scores(state: Mapping[str, Tensor], features: Features) -> Scores:
    """Scores of the head ``head.weight`` [n_classes, d], ``head.bias`` [n_classes] of a state.

    In full precision under autocast too: the 8 significant bits of bfloat16 cannot separate close scores.
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.linear(features, state["head.weight"], state["head.bias"])


def prototype_head(
    features: Features, support: SlotBatch, label_names: float
) -> tuple[Float[Tensor, "n_classes d"], Float[Tensor, " n_classes"]]:
    """Weight and bias of the linear head that scores minus half the squared distance to the prototypes.

    Triantafillou et al. 2020, section 3: W = 2 c, b = -|c|^2, here halved. Classes that do not exclude each other
    get the difference between the heads of "this class" and "not this class"; classes without a slot get zero weights.
    """
    means, mass = class_means(features, support, label_names)
    bias = -means.square().sum(dim=2) / 2
    if len(means) == 2:
        return means[0] - means[1], bias[0] - bias[1]
    return means[0], bias[0].masked_fill(mass == 0, -1e2)


def class_means(
    values: Float[Tensor, "n_slots width"], support: SlotBatch, label_names: float | Tensor
) -> tuple[Float[Tensor, "n_kinds n_classes width"], Float[Tensor, " n_classes"]]:
    """Weighted mean of the values of each class's slots, and the weight of those slots.

    Classes that do not exclude each other have a second mean, over the slots that are not of the class. The mean
    over no slot is zero.
    """
    weight = slot_weights(support, label_names, values)[:, None]
    kinds = target_kinds(support, values)
    sums = [class_sums(values, kind * weight) for kind in kinds]
    means = torch.stack([total / mass.clamp_min(1e-12)[:, None] for total, mass in sums])
    return means, sums[0][1]


def share_scores(
    shares: Tensor, held: Float[Tensor, "*n_slots n_values"], balance: Tensor, batch: SlotBatch
) -> Scores:
    """Scores of classes by the attention that their slots get; yes against no where they do not exclude each other.

    Args:
        shares: of the attention, a column for each of `target_kinds`.
        held: the weight of those slots; one row where it is the same for all that attend.
        balance: share of that weight that an attention is freed of.
        batch: the slots that attend.
    """
    scores = shares.clamp_min(1e-30).log() - balance * held.clamp_min(1e-30).log().clamp_min(-10)
    if batch.normaliser != "classes":
        yes, no = scores.chunk(2, dim=1)
        scores, held = yes - no, held[..., : batch.n_classes]
    return scores.masked_fill(held <= 0, UNSEEN)


def residual_network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers whose output is zero before meta-training; initial values come from torch's global generator."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), last)


class LearnedHead(nn.Module):
    """A meta-learned head, for tasks whose classes are always the same; zero before meta-training.

    Args:
        n_classes: classes of the task, from 1.
        dimension: length of a feature vector.
    """

    def __init__(self, n_classes: int, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, dimension))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def state(self, n_classes: int | None = None) -> dict[str, Tensor]:
        """The head as part of a state; a given ``n_classes`` must equal the head's."""
        if n_classes is not None and n_classes != len(self.bias):
            raise FewShotError(
                f"The meta-learned head has {len(self.bias)} classes, but the support set has {n_classes}; set "
                f"n_classes={n_classes}, or start from prototypes."
            )
        return {"head.weight": self.weight, "head.bias": self.bias}
