"""The run's figures in TensorBoard, Trackio, Weights & Biases or MLflow, by way of accelerate."""

import json
import os
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.tracking import get_available_trackers  # type: ignore[import-untyped]
from accelerate.utils import (  # type: ignore[import-untyped]
    GradientAccumulationPlugin,
    ProjectConfiguration,
)

from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.training.callbacks import Callback, Record
from fewshot_nlp.training.checkpoint import flat
from fewshot_nlp.training.config import MetaTrainConfig

SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def make_accelerator(config: MetaTrainConfig) -> Accelerator:
    """The accelerator, which knows the processes and the trackers.

    Raises:
        FewShotError: a tracker's package is not installed, or the launcher wants to shard parameters.
    """
    sharding = next(
        (name for name in SHARDING if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"), None
    )
    if sharding is not None:
        raise FewShotError(
            f"{sharding} shards parameters, but fast weights need whole ones and processes have different episodes; "
            "launch with distributed_type MULTI_GPU (docs/scale.md says how large encoders fit)."
        )
    installed = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in config.run.trackers if name not in installed]
    if missing:
        raise FewShotError(
            f"trackers names {missing[0]!r}, which is not installed here: "
            f"pip install --upgrade accelerate {' '.join(missing)}"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        logger.info(
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=%s is not heeded: meta_batch says how many.", steps
        )
    folder = str(user_path(config.run.output_dir) / "trackers")
    return Accelerator(
        # A plugin goes before the environment, which would have every loss divided by its number of steps.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=list(config.run.trackers) or None,
        project_config=ProjectConfiguration(project_dir=config.run.output_dir, logging_dir=folder),
    )


class Trackers(Callback):
    """Hands the figures of every outer step and meta-validation to the accelerator's trackers."""

    def __init__(self, accelerator: Accelerator, config: MetaTrainConfig) -> None:
        self._accelerator, self._config = accelerator, config

    def on_start(self, records: Sequence[Record]) -> bool:
        """Begins a tracker's run, with all settings; what a resumed run takes over was handed over before."""
        settings: dict[str, Any] = flat(self._config.to_dict())
        plain = {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in settings.items()}
        self._accelerator.init_trackers("fewshot_nlp", config=plain)
        return False

    def on_step(self, record: Record) -> None:
        """Hands over loss, rate, gradient norm and speed."""
        figures = {key: value for key, value in record.items() if isinstance(value, float)}
        self._accelerator.log(figures, step=record["step"])

    def on_validation(self, record: Record) -> bool:
        """Hands over loss and metric with their intervals."""
        self.on_step(record)
        return False

    def on_end(self) -> None:
        """Lets the trackers write what they hold back; the processes stay connected, unlike after end_training."""
        for tracker in self._accelerator.trackers:
            tracker.finish()
