"""Several prototypes for each class, by scikit-learn's k-means."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_nlp.modules.order import canonical_order
from fewshot_nlp.modules.state import slot_weights, target_kinds
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
    """Cluster means of each class's slots, and shares of the class's weight; `class_means` for one cluster.

    Slots are clustered in `canonical_order`. Means are differentiable, with the assignment held constant. The share
    of an unused cluster is 0; a class without a slot has one cluster at zero.

    Args:
        features: of the slots.
        support: the slots.
        label_names: weight of label_slots.
        most: largest number of clusters of a class, from 1.
        slots_each: slots of a class for each of its clusters, whose number is between 1 and ``most``.
        seed: for the starts.
    """
    weight = slot_weights(support, label_names, features)[:, None]
    kinds = target_kinds(support, features)
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


def kmeans(x: Float[Tensor, "n d"], weight: Float[Tensor, " n"], k: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Cluster index of each row: of several random starts the one with the least weighted sum of squared distances.

    Args:
        x: rows; random draws depend on their order.
        weight: of each row, above 0.
        k: clusters; fewer where there are fewer distinct rows.
        seed: for the starts.
    """
    from sklearn.cluster import KMeans

    k = min(k, len(torch.unique(x, dim=0)))
    if k <= 1:
        return torch.zeros(len(x), dtype=torch.long, device=x.device)
    found = KMeans(k, n_init=STARTS, max_iter=ITERATIONS, random_state=seed)
    cluster = found.fit_predict(x.double().numpy(force=True), sample_weight=weight.double().numpy(force=True))
    return torch.from_numpy(cluster).to(x.device, torch.long)
