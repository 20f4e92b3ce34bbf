"""What the recipes for source-trained starts share: AdamW with a rate that rises and falls, and resuming."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch import nn

from fewshot_nlp import FewShotError
from fewshot_nlp.training.checkpoint import Checkpoint, load_newest, save_checkpoint

MOMENTS = ("exp_avg", "exp_avg_sq")
logger = logging.getLogger("source_training")


class Run:
    """Parameters, their optimizer, and the rate of each step; a checkpoint of other settings is refused.

    Args:
        body: the encoder's parameters that are trained.
        head: the others.
        lr: rate of the body at its highest.
        head_lr: rate of the others.
        steps: in all; the rate rises over the first sixteenth and falls linearly to a fiftieth.
        settings: what decides the result, as JSON.
        data: fingerprints of the data.
        folder: for checkpoints.
    """

    def __init__(
        self,
        body: Mapping[str, nn.Parameter],
        head: Mapping[str, nn.Parameter],
        *,
        lr: float,
        head_lr: float,
        steps: int,
        settings: dict[str, Any],
        data: dict[str, str],
        folder: Path,
    ) -> None:
        self.steps, self.settings, self.data, self.folder = steps, settings, data, folder
        self.parameters = {**body, **head}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(body.values()), "lr": lr, "top": lr},
                {"params": list(head.values()), "lr": head_lr, "top": head_lr},
            ],
            weight_decay=0.01,
        )
        self.step = 0
        for parameter in self.parameters.values():
            parameter.requires_grad_()

    def update(self, accelerator: Accelerator) -> None:
        """One optimizer step with the mean gradient of all processes."""
        for parameter in self.parameters.values():
            if accelerator.num_processes > 1:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
        nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        warm = max(1, self.steps // 16)
        for group in self.optimizer.param_groups:
            group["lr"] = group["top"] * min((self.step + 1) / warm, max(0.02, 1 - self.step / self.steps))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def save(self) -> None:
        """A checkpoint."""
        tensors: dict[str, torch.Tensor] = {f"parameter.{n}": p for n, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            tensors |= {f"{key}.{name}": self.optimizer.state[parameter][key] for key in MOMENTS}
        found = Checkpoint(
            step=self.step, tensors=tensors, config=self.settings, fingerprints=self.data, best=None
        )
        save_checkpoint(self.folder, found, keep_last=1)

    def resume(self) -> None:
        """Takes up the newest checkpoint, where there is one."""
        found = load_newest(self.folder, self.settings, self.data)
        if found is None:
            return
        self.step = found.step
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found.tensors[f"parameter.{name}"])
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(found.step)),
                    **{key: found.tensors[f"{key}.{name}"].to(parameter.device) for key in MOMENTS},
                }
        logger.info("going on from step %d", found.step)


def read_arguments(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The values of a command line; a YAML file given as ``--config`` holds defaults of its own.

    Raises:
        FewShotError: the file cannot be read, or has a key that is no argument.
    """
    parser.add_argument("--config", type=Path, help="YAML file with values for the arguments below")
    config = parser.parse_known_args()[0].config
    if config is not None:
        try:
            given = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise FewShotError(f"{config} cannot be read: {str(error).splitlines()[0]}.") from error
        known = {action.dest for action in parser._actions}
        unknown = sorted(set(given) - known)
        if unknown:
            raise FewShotError(
                f"{config} has the unknown key {unknown[0]}. Known: {', '.join(sorted(known))}."
            )
        parser.set_defaults(**given)
    return {key: value for key, value in vars(parser.parse_args()).items() if key != "config"}
