"""Interpolation of a memory's distribution with the model's own: p = lambda p_memory + (1 - lambda) p_model.

Papers: Khandelwal et al. 2021, Nearest Neighbor Machine Translation (equations 2 and 3); Zheng et al. 2021, Adaptive
Nearest Neighbor Machine Translation (equations 4 to 6): a network predicts the number of neighbours to use, 0
included, from the distances and the number of distinct values among the nearest i. Deviations: the network's distances
are divided by their mean and limited to 10, its counts divided by i, where the paper and its code scale neither, since
distances differ in size between models and the network is trained on a support set instead of a validation set. All
neighbours are a choice too where their number is no power of two. A temperature that is not given, which the paper
fixes, is trained with the network. With a given interpolation the network chooses among the numbers above 0 only.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_nlp.episode import canonical_json
from fewshot_nlp.slots import SlotBatch

SHARES = torch.arange(0, 19) / 20
"""Interpolations to choose from."""
TEMPERATURES = torch.tensor([0.03, 0.1, 0.2, 0.5, 1.0, 2.0])
"""To choose from, as multiples of the mean distance to the neighbours."""
HIDDEN = 32
ADAPTIVE_STEPS = 200
FLOOR = 1e-30
FAR = 1e3
"""Distance of neighbours that are not there, in mean distances."""


def by_content(support: SlotBatch) -> Int[Tensor, " n_slots"]:
    """Slot indices, sorted by the content of their examples, so that results do not depend on the examples' order."""
    keys = [canonical_json([item.inputs, getattr(item, "target", None)]) for item in support.items]
    place = torch.empty(len(keys), dtype=torch.long)
    place[sorted(range(len(keys)), key=keys.__getitem__)] = torch.arange(len(keys))
    return torch.argsort(place[support.groups], stable=True)


def mix(
    prior: Float[Tensor, "n n_classes"], classes: Int[Tensor, "n k"], mass: Float[Tensor, "n k"]
) -> Float[Tensor, "n n_classes"]:
    """Log-probabilities of the mixture.

    Args:
        prior: the model's log-probabilities.
        classes: classes of the neighbours, possibly repeated.
        mass: probability that each neighbour adds to its class; the model gets the rest to 1.
    """
    rest = (1 - mass.sum(dim=1, keepdim=True)).clamp_min(0)
    return (prior.exp() * rest).scatter_add(1, classes, mass).clamp_min(FLOOR).log()


def fixed_mass(distances: Float[Tensor, "n k"], share: Tensor, temperature: Tensor) -> Float[Tensor, "n k"]:
    """Softmax of the negative distances divided by the temperature, times the interpolation."""
    return share * torch.softmax(-distances / temperature, dim=1).nan_to_num(0.0)  # where none was found


def choose_fixed(
    distances: Float[Tensor, "n k"],
    hit: Float[Tensor, "n k"],
    prior: Float[Tensor, " n"],
    temperature: float | None = None,
) -> dict[str, Tensor]:
    """Interpolation and temperature that maximise the likelihood of held-out slots.

    Args:
        distances: to each slot's neighbours, none of them from its own example.
        hit: 1 where a neighbour has the slot's gold class.
        prior: the model's log-probability of the gold class.
        temperature: None chooses it too.
    """
    scale = distances[distances.isfinite()].mean().clamp_min(1e-6)
    known = TEMPERATURES.to(distances) * scale if temperature is None else distances.new_tensor([temperature])
    shares = SHARES.to(distances)
    best = (float("-inf"), shares[0], known[0])
    for t in known:
        memory = (torch.softmax(-distances / t, dim=1) * hit).sum(dim=1)
        likelihood = shares[:, None] * memory + (1 - shares[:, None]) * prior.exp()
        value, index = likelihood.detach().clamp_min(FLOOR).log().mean(dim=1).max(dim=0)
        if float(value) > best[0]:
            best = (float(value), shares[index], t)
    return {"interpolation": best[1].clone(), "temperature": best[2].clone()}


def adaptive_mass(
    network: Mapping[str, Tensor], distances: Float[Tensor, "n k"], classes: Int[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Mass of each neighbour, from the network of `train_adaptive`."""
    distances = torch.where(distances.isfinite(), distances, FAR * network["mix.scale"])
    shape = (distances / network["mix.scale"]).clamp_max(10.0)
    inputs = torch.cat([shape, _distinct(classes).to(distances)], dim=1)
    hidden = torch.tanh(inputs @ network["mix.in"].T + network["mix.in_bias"])
    logits = hidden @ network["mix.out"].T + network["mix.out_bias"]
    if "mix.share" in network:
        some = network["mix.share"] * torch.softmax(logits[:, 1:], dim=1)
    else:
        some = torch.softmax(logits, dim=1)[:, 1:]
    total = torch.zeros_like(distances)
    for number, k in enumerate(_choices(distances.shape[1])):
        near = torch.softmax(-distances[:, :k] / network["mix.temperature"].exp(), dim=1)
        total[:, :k] = total[:, :k] + some[:, number, None] * near
    return total


def train_adaptive(
    distances: Float[Tensor, "n k"],
    classes: Int[Tensor, "n k"],
    hit: Float[Tensor, "n k"],
    prior: Float[Tensor, " n"],
    seed: int = 0,
    *,
    temperature: float | None = None,
    interpolation: float | None = None,
) -> dict[str, Tensor]:
    """The network that predicts how many neighbours to use; arguments as for `choose_fixed`, which initialises it.

    A given temperature stays; so does a given interpolation, of which the network only chooses the neighbours.
    """
    k = distances.shape[1]
    fixed = choose_fixed(distances, hit, prior, temperature)
    generator = torch.Generator().manual_seed(seed)
    n_choices = 1 + len(_choices(k))
    share = float(fixed["interpolation"].clamp(0.02, 0.98))
    bias = torch.full((n_choices,), -3.0)
    bias[0], bias[-1] = torch.tensor(1 - share).log(), torch.tensor(share).log()
    network = {
        "mix.in": torch.randn(HIDDEN, 2 * k, generator=generator) / (2 * k) ** 0.5,
        "mix.in_bias": torch.zeros(HIDDEN),
        "mix.out": torch.zeros(n_choices, HIDDEN),
        "mix.out_bias": bias,
        "mix.temperature": fixed["temperature"].log(),
    }
    scale = {"mix.scale": distances[distances.isfinite()].mean().clamp_min(1e-6)}
    if temperature is not None:
        scale["mix.temperature"] = network.pop("mix.temperature")
    if interpolation is not None:
        scale["mix.share"] = distances.new_tensor(interpolation)
    network = {name: value.to(distances).requires_grad_() for name, value in network.items()}
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(network.values(), lr=0.01, weight_decay=0.01)
        for _ in range(ADAPTIVE_STEPS):
            mass = adaptive_mass({**network, **scale}, distances, classes)
            likelihood = (mass * hit).sum(dim=1) + (1 - mass.sum(dim=1)).clamp_min(0) * prior.exp()
            optimizer.zero_grad()
            torch.autograd.backward(-likelihood.clamp_min(FLOOR).log().mean())
            optimizer.step()
    return {name: value.detach() for name, value in network.items()} | scale


def _choices(k: int) -> list[int]:
    """Numbers of neighbours: 1, 2, 4, ... and k."""
    return sorted({min(2**i, k) for i in range(k.bit_length() + 1)})


def _distinct(classes: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Share of distinct classes among the first i neighbours, for each i."""
    same = classes[:, :, None] == classes[:, None, :]
    new = ~torch.tril(same, diagonal=-1).any(dim=2)
    count = torch.arange(1, classes.shape[1] + 1, device=classes.device)
    return new.cumsum(dim=1) / count
