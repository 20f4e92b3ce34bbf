"""What is trained, by which optimizer, at which rate."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.training.config import OuterLoop

Optimizer = torch.optim.AdamW | torch.optim.SGD


@contextmanager
def trainable_parameters(pipeline: Pipeline, train: str) -> Iterator[dict[str, nn.Parameter]]:
    """The meta-parameters by name, sorted; the encoder's among them require gradients while the block runs.

    Args:
        pipeline: task and learner.
        train: as for `MetaTrainConfig`.

    Raises:
        FewShotError: there is nothing to train.
    """
    learner, encoder = pipeline.learner, pipeline.learner.encoder
    if not learner.meta_learns:
        raise FewShotError(
            f"The learner {learner.name} cannot be differentiated through, so it cannot be meta-trained."
        )
    if train == "adapter" and not encoder.adapter:
        raise FewShotError(
            "train is 'adapter', but the encoder has none; give one, or set train to 'all' or 'learner'."
        )
    moving = {
        "adapter": encoder.adapter,
        "all": encoder.moving_parameters(),
        "learner": dict[str, nn.Parameter](),
    }[train]
    chosen = {f"encoder.{name}": p for name, p in moving.items()}
    chosen |= {f"learner.{name}": p for name, p in learner.named_parameters() if p.requires_grad}
    if not chosen:
        raise FewShotError(
            f"The learner {learner.name} has no parameters of its own; set train to 'adapter' or 'all'."
        )
    if train == "all":
        encoder.mark_trained()
    try:
        for parameter in moving.values():
            parameter.requires_grad_(True)
        yield {name: chosen[name] for name in sorted(chosen)}
    finally:
        for parameter in moving.values():
            parameter.requires_grad_(False)
        for parameter in chosen.values():
            parameter.grad = None


def make_optimizer(outer: OuterLoop, trainable: Mapping[str, nn.Parameter]) -> Optimizer:
    """The optimizer; weight decay is on matrices only, so that a learned temperature does not drift to 1."""
    groups = [
        {"params": [p for p in trainable.values() if (p.dim() > 1) == matrices], "weight_decay": decay}
        for matrices, decay in ((True, outer.weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    if outer.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=outer.lr, momentum=outer.momentum)
    return torch.optim.AdamW(groups, lr=outer.lr)


def learning_rate(outer: OuterLoop, step: int) -> float:
    """The rate of outer step ``step``, from 0 on: a pure function, so that no schedule's state is saved.

    Examples:
        >>> outer = OuterLoop(lr=1.0, warmup=2, steps=6)
        >>> [learning_rate(outer, step) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < outer.warmup:
        return outer.lr * (step + 1) / outer.warmup
    done = (step - outer.warmup) / max(1, outer.steps - outer.warmup)
    share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + cos(pi * done)) / 2}[outer.schedule]
    return outer.lr * share


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_tensors(trainable: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """All that an outer step changes: ``parameter.<name>``, and ``optimizer.<parameter number>.<what>``."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    moments = {f"{i}.{key}": value for i, values in state.items() for key, value in values.items()}
    return {f"parameter.{name}": p.detach() for name, p in trainable.items()} | {
        f"optimizer.{name}": value for name, value in moments.items() if isinstance(value, Tensor)
    }


def restore_state(
    trainable: Mapping[str, nn.Parameter], optimizer: Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Puts what `state_tensors` gave into parameters and optimizer of the same kind.

    Raises:
        FewShotError: the tensors are of other parameters.
    """
    parameters = {f"parameter.{name}": p for name, p in trainable.items()}
    if parameters.keys() != {name for name in tensors if name.startswith("parameter.")}:
        raise FewShotError(
            "The checkpoint holds other parameters than this run trains; name another run.output_dir."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name in sorted(name for name in tensors if name.startswith("optimizer.")):
        _, number, key = name.split(".", 2)
        state.setdefault(int(number), {})[key] = tensors[name]
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
