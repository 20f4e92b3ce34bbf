"""k-means, seeded, and prototypes of the clusters of each class.

Lloyd's iterations from the start of Arthur & Vassilvitskii 2007, k-means++: The Advantages of Careful Seeding (section
2.2).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_nlp.memory.exact import distances
from fewshot_nlp.modules.order import canonical_order
from fewshot_nlp.modules.state import slot_weights
from fewshot_nlp.slots import Features, SlotBatch

STARTS = 4
ITERATIONS = 50


def cluster_means(
    features: Features,
    support: SlotBatch,
    label_names: float | Tensor,
    most: int,
    slots_each: int,
    seed: int,
) -> tuple[Float[Tensor, "n_kinds n_classes most d"], Float[Tensor, "n_kinds n_classes most"]]:
    """Means of the clusters of each class's slots, and their shares of its weight; as `class_means` for one cluster.

    Clusters are found along `canonical_order`. The means can be differentiated, the clusters count as given. A share
    is 0 where there is no cluster; a class without a slot has one at zero.

    Args:
        features: of the slots.
        support: the slots.
        label_names: weight of label_slots.
        most: clusters of a class, from 1.
        slots_each: a class has one cluster for each so many of its slots, within 1 and ``most``.
        seed: for the starts.
    """
    targets = support.target_matrix.to(features)
    weight = slot_weights(support, label_names, features)[:, None]
    kinds = [targets] if support.normaliser == "classes" else [targets, 1 - targets]
    order = canonical_order(support).to(features.device)
    means, shares = [], []
    for column in torch.cat([kind * weight for kind in kinds], dim=1).T:
        rows = order[column[order] > 0]
        k = max(1, min(most, len(rows) // slots_each))
        cluster = kmeans(features[rows].detach(), column[rows].detach(), k, seed)
        parts = F.one_hot(cluster, most).to(features) * column[rows, None]
        mass = parts.sum(dim=0)
        means.append(parts.T @ features[rows] / mass.clamp_min(1e-12)[:, None])
        shares.append(mass / mass.sum() if len(rows) else F.one_hot(torch.tensor(0), most).to(features))
    shape = (len(kinds), support.n_classes, most)
    return torch.stack(means).view(*shape, -1), torch.stack(shares).view(shape)


@torch.no_grad()
def kmeans(x: Float[Tensor, "n d"], weight: Float[Tensor, " n"], k: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Each row's cluster; the best of several starts by the weighted sum of squared distances.

    Args:
        x: rows; the draws of the starts go along their order.
        weight: of each row, above 0.
        k: clusters; there are fewer where there are fewer different rows.
        seed: for the starts.
    """
    best, least = torch.zeros(len(x), dtype=torch.long, device=x.device), torch.inf
    if k == 1 or len(x) <= 1:
        return best
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STARTS):
        cluster, loss = _lloyd(x, weight, _start(x, weight, k, generator))
        if loss < least:
            best, least = cluster, loss
    return best


def _start(x: Tensor, weight: Tensor, k: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
    """k-means++: each centre is a row, drawn by weight times squared distance to the nearest centre so far."""
    chance = weight
    centres = x[:0]
    for _ in range(k):
        total = chance.cumsum(0)
        drawn = torch.rand((), generator=generator, dtype=torch.float64).to(x) * total[-1]
        row = torch.searchsorted(total, drawn).clamp_max(len(x) - 1)
        centres = torch.cat([centres, x[row][None]])
        chance = weight * distances(x, centres, "euclidean").amin(dim=1)
    return centres


def _lloyd(x: Tensor, weight: Tensor, centres: Tensor) -> tuple[Int[Tensor, " n"], float]:
    """Clusters that no further step changes (or after a bounded number), and their loss."""
    cluster = torch.full((len(x),), -1, device=x.device)
    for _ in range(ITERATIONS):
        near = distances(x, centres, "euclidean").min(dim=1)
        if torch.equal(near.indices, cluster):
            break
        cluster = near.indices
        parts = F.one_hot(cluster, len(centres)).to(x) * weight[:, None]
        mass = parts.sum(dim=0)[:, None]
        centres = torch.where(mass > 0, parts.T @ x / mass.clamp_min(1e-12), centres)
    return cluster, float((weight * (x - centres[cluster]).square().sum(dim=1)).sum())
