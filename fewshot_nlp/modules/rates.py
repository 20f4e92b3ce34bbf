"""Meta-learned rates: one for each weight, each layer, or each layer and step.

A rate is its initial value times (1 + change); meta-training learns the change, which starts at zero. So the outer
learning rate is relative to the rate's size, weight decay pulls towards the initial value instead of zero, and a
change below -1 reverses a step.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.modules.inner_loop import Weights, sgd_steps
from fewshot_nlp.modules.start import differentiable_copy, fast_parameters, inner_rate, support_loss
from fewshot_nlp.slots import SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.learners.base import Learner


class LearnedRates(nn.Module):
    """Learned rates of named weights.

    Args:
        start: rate of each weight before meta-training.
        shapes: shape of each weight's rates; () is one rate for the whole weight.
        gain: factor of the change, so that outer rates chosen for small weights have an effect on it.
    """

    def __init__(
        self, start: Mapping[str, float], shapes: Mapping[str, Sequence[int]], gain: float = 1.0
    ) -> None:
        super().__init__()
        self.start, self.gain = dict(start), gain
        self.change = nn.ParameterDict(
            {parameter_name(name): nn.Parameter(torch.zeros(tuple(shapes[name]))) for name in start}
        )

    def forward(self, name: str, step: int | None = None) -> Tensor:
        """The rates of a weight; with ``step`` those of that step, beyond the last row those of the last."""
        change: Tensor = self.change[parameter_name(name)]
        if step is not None:
            change = change[min(step, len(change) - 1)]
        rate: Tensor = self.start[name] * (1 + self.gain * change)
        return rate


def start_rates(
    encoder: Backbone, inner_lr: float | None, head_lr: float, scope: str = "adapter"
) -> dict[str, float]:
    """One rate for what `moving` names, another one for the head (none where the model has its own head)."""
    rates = dict.fromkeys(fast_parameters(encoder, scope), inner_rate(encoder, inner_lr))
    return rates if encoder.vocabulary is not None else rates | {"head.weight": head_lr, "head.bias": head_lr}


def learned_steps(
    learner: "Learner",
    rates: LearnedRates,
    head: Weights,
    examples: SlotBatch,
    *,
    steps: int,
    meta: bool,
    second_order: bool,
) -> Weights:
    """Fast weights of adapter and head after gradient steps, each weight at its learned rate.

    Args:
        learner: scores the slots; its encoder's adapter is trained.
        rates: of all weights.
        head: initial head; empty for a model that has a head of its own.
        examples: slots with targets; with none the initial weights are returned.
        steps: number of steps, from 0.
        meta: keep the result differentiable in the meta-parameters, rates included.
        second_order: create a graph of the gradients.
    """
    weights = differentiable_copy(fast_parameters(learner.encoder) | head, meta=meta)
    if not examples.n_slots or not steps:
        return weights
    return sgd_steps(
        weights,
        support_loss(learner, examples, weights, double_backward=second_order),
        steps=steps,
        rate=lambda name, _: rates(name) if meta else rates(name).detach(),
        second_order=second_order,
    )


def parameter_name(name: str) -> str:
    """The name in a form that torch allows for parameters (without points)."""
    return name.replace(".", "/")
