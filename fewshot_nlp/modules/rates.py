"""Meta-learned rates: one for each weight, each layer, or each layer and step.

A rate is its initial value times (1 + change); meta-training learns the change, which starts at zero. So the outer
learning rate is relative to the rate's size, weight decay pulls towards the initial value instead of zero, and a
change below -1 reverses a step.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class LearnedRates(nn.Module):
    """Learned rates of named weights.

    Args:
        start: rate of each weight before meta-training.
        shapes: shape of each weight's rates; None for one rate for the whole weight.
        steps: number of steps that have rates of their own; None where all steps share them.
        gain: factor of the change, so that outer rates chosen for small weights have an effect on it.
    """

    def __init__(
        self,
        start: Mapping[str, float],
        shapes: Mapping[str, Sequence[int]] | None = None,
        *,
        steps: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.start, self.steps, self.gain = dict(start), steps, gain
        rows = () if steps is None else (steps,)
        shape = {name: (*rows, *(shapes[name] if shapes else ())) for name in start}
        self.change = nn.ParameterDict(
            {parameter_name(name): nn.Parameter(torch.zeros(shape[name])) for name in start}
        )

    def forward(self, name: str, step: int = 0) -> Tensor:
        """The rates of a weight at a step; beyond the last row those of the last."""
        change: Tensor = self.change[parameter_name(name)]
        if self.steps is not None:
            change = change[min(step, self.steps - 1)]
        rate: Tensor = self.start[name] * (1 + self.gain * change)
        return rate


def parameter_name(name: str) -> str:
    """The name in a form that torch allows for parameters (without points)."""
    return name.replace(".", "/")
