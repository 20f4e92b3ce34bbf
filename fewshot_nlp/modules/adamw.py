"""AdamW on fast weights and a head, without a meta-gradient through the steps.

Papers: Howard & Ruder 2018, Universal Language Model Fine-tuning (``layer_decay`` is their discriminative fine-tuning,
``unfreeze`` their gradual unfreezing); Xuhong, Grandvalet, Davoine 2018, Explicit Inductive Bias for Transfer Learning
(``l2_sp``, equation 4). All three are off by default. The rates stay within a tenth of Howard & Ruder's slanted
triangle: they rise for a tenth of the steps too, to 0.91 of the rate, and fall to 0 instead of a 32nd.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.backbone.adapters import layer_name
from fewshot_nlp.modules.inner_loop import Weights, gradients
from fewshot_nlp.modules.state import FAST
from fewshot_nlp.slots import SlotBatch


class Descent:
    """AdamW with a rate that rises over the first tenth of the steps and then falls linearly to 0.

    Args:
        weights: initial values, leaves that require gradients; updated in place.
        lr: rate of the fast weights in the top layer.
        head_lr: rate of all other weights.
        steps: total number of steps, for the schedule.
        weight_decay: AdamW's; with ``l2_sp`` only of weights other than fast weights.
        max_grad_norm: gradients of fast weights are scaled down to this norm.
        depths: layer index of each fast weight, by `layer_depths`; None treats all as one layer.
        layer_decay: the rate of a layer is this times that of the layer above it.
        unfreeze: share of the steps over which layers are unfrozen one by one, the head first, then from the top; 0
            trains all at once.
        l2_sp: alpha of the penalty alpha / 2 |w - start|^2 on fast weights.
        factors: of the rates of fast weights, by name.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        lr: float,
        head_lr: float,
        steps: int,
        weight_decay: float,
        max_grad_norm: float,
        depths: Mapping[str, int] | None = None,
        layer_decay: float = 1.0,
        unfreeze: float = 0.0,
        l2_sp: float = 0.0,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        self.weights, self.max_grad_norm, self.l2_sp = weights, max_grad_norm, l2_sp
        self.fast = {name: w for name, w in weights.items() if name.startswith(FAST)}
        self.start = {name: w.detach().clone() for name, w in self.fast.items()} if l2_sp else {}
        depth = {name: (depths or {}).get(name, 0) for name in self.fast}
        head = [w for name, w in weights.items() if name not in self.fast]
        self.begins = layer_begins(depth, round(unfreeze * steps), bool(head))
        rates = {n: r * (factors or {}).get(n, 1) for n, r in layer_rates(depth, lr, layer_decay).items()}
        decay = 0.0 if l2_sp else weight_decay
        groups = [
            {"params": [self.fast[n] for n in rates if rates[n] == rate], "lr": rate, "weight_decay": decay}
            for rate in dict.fromkeys(rates.values())
        ]
        groups += [{"params": head, "lr": head_lr, "weight_decay": weight_decay}] if head else []
        self.optimizer = torch.optim.AdamW(groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / (0.1 * steps + 1), 1 - step / steps)
        )
        self.taken = 0

    def step(self, loss: Tensor) -> None:
        """One optimizer step on a loss; layers that are still frozen stay bit-identical."""
        live = {n: w for n, w in self.weights.items() if self.begins.get(n, 0) <= self.taken}
        for name, grad in gradients(loss, live).items():
            pull = self.l2_sp * (live[name].detach() - self.start[name]) if name in self.start else None
            live[name].grad = grad if pull is None else grad + pull
        if self.fast:
            torch.nn.utils.clip_grad_norm_(self.fast.values(), self.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.taken += 1


def layer_depths(encoder: Backbone) -> dict[str, int]:
    """Layer index of each of the encoder's weights, from 0. Embeddings count as the lowest layer.

    A decoder's layers are above its encoder's; a module after a layer (a norm, a pooler) counts as that layer.
    """
    layers: list[str] = []
    depths = {}
    for name in encoder.parameters():
        layer = layer_name(name)
        if layer is not None and layer not in layers:
            layers.append(layer)
        place = layers.index(layer) if layer is not None else len(layers) - 1
        depths[FAST + name] = max(0, place)
    return depths


def layer_rates(depths: Mapping[str, int], lr: float, layer_decay: float) -> dict[str, float]:
    """Rates that fall by a factor from each layer to the next lower one (Howard & Ruder, section 3.2: 1 / 2.6)."""
    top = max(depths.values(), default=0)
    return {name: lr * layer_decay ** (top - depth) for name, depth in depths.items()}


def layer_begins(depths: Mapping[str, int], steps: int, head: bool) -> dict[str, int]:
    """First step in which each weight is trained: after equal numbers of steps one layer more, from the top.

    Args:
        depths: layer index of each weight.
        steps: in which all are unfrozen.
        head: whether there is a head above them, which is then trained alone at first (Howard & Ruder, section 3.3).
    """
    order = sorted(set(depths.values()), reverse=True)
    return {n: (order.index(depth) + head) * steps // (len(order) + head) for n, depth in depths.items()}


def mini_batches(examples: SlotBatch, size: int, seed: int) -> Iterator[SlotBatch]:
    """Endless mini-batches; each pass over the examples has a new order."""
    groups = torch.unique(examples.groups)
    generator = torch.Generator().manual_seed(seed)
    if len(groups) <= size:
        while True:
            yield examples
    while True:
        for part in groups[torch.randperm(len(groups), generator=generator)].split(size):
            yield examples.select(torch.isin(examples.groups, part))


def first_order(
    end: Mapping[str, Tensor], start: Mapping[str, Tensor], rates: Mapping[str, Tensor] | None = None
) -> Weights:
    """The values of ``end``, with the identity as their Jacobian in ``start``: a first-order meta-gradient.

    As in first-order MAML (Finn et al. 2017, section 5.2). With a learned rate, end - start is taken as proportional
    to it, so that d end / d rate = (end - start) / rate.
    """
    found = {name: value.detach() + (start[name] - start[name].detach()) for name, value in end.items()}
    for name, rate in (rates or {}).items():
        found[name] = found[name] + (end[name] - start[name]).detach() * (rate / rate.detach() - 1)
    return found
