"""Gradient steps on fast weights: the inner loop of MAML and related learners."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.backbone.adapters import default_adapter
from fewshot_nlp.errors import ScienceError

Weights = dict[str, Tensor]


def need_adapter(encoder: Backbone, seed: int) -> None:
    """Attaches the default adapter where the encoder has none."""
    if not encoder.adapter:
        encoder.attach(default_adapter(), seed=seed)


def gradients(loss: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False) -> Weights:
    """Gradients of a loss, by name; zero for weights that the loss does not depend on.

    Raises:
        ScienceError: naming the first weight whose gradient is not finite.
    """
    values = torch.autograd.grad(loss, list(weights.values()), create_graph=create_graph, allow_unused=True)
    result = {
        name: torch.zeros_like(weight) if grad is None else grad
        for (name, weight), grad in zip(weights.items(), values, strict=True)
    }
    bad = next((name for name, grad in result.items() if not torch.isfinite(grad).all()), None)
    if bad is not None:
        raise ScienceError(f"The gradient of {bad} is NaN or infinite at a loss of {float(loss):g}.")
    return result


def sgd_path(
    weights: Weights,
    loss: Callable[[Weights], Tensor],
    *,
    steps: int,
    rate: Callable[[str, int], float | Tensor],
    second_order: bool,
) -> Iterator[Weights]:
    """The weights after each step of plain gradient descent (Finn et al. 2017, equation 1, repeated).

    Args:
        weights: initial values.
        loss: a function of the weights.
        steps: number of steps.
        rate: learning rate of a weight (by name) at a step.
        second_order: create a graph of the gradients, so that the result has exact second derivatives.
    """
    for step in range(steps):
        grads = gradients(loss(weights), weights, create_graph=second_order)
        weights = {name: w - rate(name, step) * grads[name] for name, w in weights.items()}
        yield weights


def bfloat16(device: torch.device, wanted: bool | None) -> torch.autocast:
    """A block that computes in bfloat16 where that is wanted; None: where the device has instructions for it."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=fast_bfloat16(device) if wanted is None else wanted
    )


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
