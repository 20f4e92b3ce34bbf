"""A small LSTM as optimizer: all coordinates of the weights share its parameters, each has its own hidden state.

Papers: Andrychowicz et al. 2016, Learning to learn by gradient descent by gradient descent (section 2.1 and appendix
A; form "residual"); Ravi, Larochelle 2017, Optimization as a Model for Few-Shot Learning (section 3; form "gates").
Before training both are plain gradient descent: the residual is zero, or the gates are at their neutral values.
"""

from collections.abc import Callable, Iterator
from math import exp

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.modules.inner_loop import Weights, gradients

KEEP = 6.0
"""What the gate that keeps the weights has before its sigmoid at first: they shrink by 0.25 % a step."""
P = 10.0
"""The p of the pre-processing: below e^-p a gradient counts as small."""

Memory = tuple[Tensor, ...]
"""What a coordinate remembers, one row a coordinate: hidden and cell of each layer; with gates, their last values."""


def preprocess(gradient: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Log magnitude and sign of each gradient as network inputs (Andrychowicz et al. 2016, appendix A)."""
    size = gradient.abs()
    large = torch.stack([size.clamp_min(exp(-P)).log() / P, gradient.sign()], dim=-1)
    small = torch.stack([torch.full_like(gradient, -1.0), gradient * exp(P)], dim=-1)
    return torch.where((size >= exp(-P))[:, None], large, small)


class LSTMOptimizer(nn.Module):
    """Updates weights from their gradients.

    Args:
        rate: of the gradient descent before training; also the scale of the learned update.
        form: "residual": theta + rate * (output - gradient), with two layers that read the gradient; or "gates":
            keep * theta - 2 * rate * input * gradient, both gates in (0, 1), with one layer that reads gradient and
            loss, and gates that also see theta and their last values.
        hidden: hidden size of a layer.
    """

    def __init__(self, rate: float, form: str = "residual", hidden: int = 20) -> None:
        super().__init__()
        self.rate, self.gated = rate, form == "gates"
        inputs = [4] if self.gated else [2, hidden]
        self.cells = nn.ModuleList(nn.LSTMCell(n, hidden) for n in inputs)
        self.out = nn.ModuleList(nn.Linear(hidden + 2, 1) for _ in range(2))
        if not self.gated:
            self.out = nn.ModuleList([nn.Linear(hidden, 1)])
        for layer, start in zip(self.out, (0.0, KEEP), strict=False):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, start)  # type: ignore[arg-type]

    def memory(self, weight: Tensor) -> Memory:
        """Hidden states before the first step."""
        like: Tensor = self.out[0].weight  # type: ignore[assignment]
        zeros = like.new_zeros(weight.numel(), like.shape[1] - 2 * self.gated)
        gates = [zeros.new_full((len(zeros), 1), v).sigmoid() for v in (0.0, KEEP)] if self.gated else []
        return (*[zeros] * (2 * len(self.cells)), *gates)

    def forward(
        self, weight: Tensor, gradient: Tensor, loss: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """The weight after one step, and the hidden states.

        Args:
            weight: of any shape.
            gradient: of the loss in the weight.
            loss: value at the weight.
            memory: hidden states after the step before.
        """
        with torch.autocast(weight.device.type, enabled=False):
            theta, slope = (t.flatten().to(memory[0]) for t in (weight, gradient))
            x = preprocess(slope)
            if self.gated:
                x = torch.cat([x, preprocess(loss.reshape(1).to(x)).expand_as(x)], dim=1)
            after: list[Tensor] = []
            for cell, h, c in zip(self.cells, memory[::2], memory[1::2], strict=False):
                x, c = cell(x, (h, c))
                after += [x, c]
            if self.gated:
                seen = torch.cat([x, theta[:, None]], dim=1)
                gates = [
                    layer(torch.cat([seen, last], dim=1)).sigmoid()
                    for layer, last in zip(self.out, memory[-2:], strict=True)
                ]
                admit, keep = (gate[:, 0] for gate in gates)
                after += gates
                theta = keep * theta - 2 * self.rate * admit * slope
            else:
                theta = theta + self.rate * (self.out[0](x)[:, 0] - slope)
        return theta.view_as(weight).to(weight.dtype), tuple(after)


def learned_path(
    weights: Weights,
    loss: Callable[[Weights], Tensor],
    optimizer: Callable[[str], LSTMOptimizer],
    *,
    steps: int,
    truncation: int,
) -> Iterator[Weights]:
    """The weights after each step of learned optimizers.

    The loss and its gradients are constants (the dashed edges of figure 2 of Andrychowicz et al.), so no second
    derivatives are needed. Backpropagation through time is truncated after ``truncation`` steps, for weights and
    hidden states. The gradient in the initial values is that of every step, without truncation.

    Args:
        weights: initial values.
        loss: a function of the weights.
        optimizer: the optimizer of a weight, by name.
        steps: number of steps.
        truncation: steps through which the result is differentiated.
    """
    start, memory = weights, {name: optimizer(name).memory(w) for name, w in weights.items()}
    for step in range(steps):
        if step and step % truncation == 0:
            weights = {name: w.detach() + (start[name] - start[name].detach()) for name, w in weights.items()}
            memory = {name: tuple(m.detach() for m in rows) for name, rows in memory.items()}
        with torch.enable_grad():
            leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
            value = loss(leaves)
            grads = gradients(value, leaves)
        after = {
            name: optimizer(name)(w, grads[name], value.detach(), memory[name]) for name, w in weights.items()
        }
        weights, memory = {n: w for n, (w, _) in after.items()}, {n: m for n, (_, m) in after.items()}
        yield weights
