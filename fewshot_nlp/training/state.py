"""What a run is between its outer steps, and the folder in which it is kept."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import nn

from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import sweep, user_path
from fewshot_nlp.persistence.model_card import Unadapted, model_card
from fewshot_nlp.persistence.storage import save
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.training.checkpoint import Checkpoint, checkpoints, load_newest, save_checkpoint
from fewshot_nlp.training.config import MetaTrainConfig
from fewshot_nlp.training.episodes import Streams
from fewshot_nlp.training.journal import Journal
from fewshot_nlp.training.optimizer import Optimizer, make_optimizer, restore_state, state_tensors
from fewshot_nlp.training.regularisation import make_regulariser
from fewshot_nlp.training.reproducible import save_resolved


class RunState:
    """Parameters, optimizer, step, log and best meta-validation; taken up from the newest checkpoint if there is one.

    Args:
        config: all settings.
        accelerator: knows the processes; the main one writes.
        pipeline: task and learner.
        streams: what is drawn from.
        trainable: the meta-parameters by name.

    Raises:
        FewShotError: the folder cannot be written, or holds a run of other settings or data.
    """

    def __init__(
        self,
        config: MetaTrainConfig,
        accelerator: Accelerator,
        pipeline: Pipeline,
        streams: Streams,
        trainable: Mapping[str, nn.Parameter],
    ) -> None:
        self.config, self.accelerator, self.pipeline, self.streams = config, accelerator, pipeline, streams
        self.regulariser = make_regulariser(
            config.outer.regularisation, config.data.augmentation, pipeline, streams.train.episode(0)
        )
        self.trainable = self.regulariser.parameters | dict(trainable)
        self.optimizer: Optimizer = make_optimizer(config.outer, self.trainable)
        self.folder = user_path(config.run.output_dir)
        self.step = self.saved_at = 0
        self._make_folder()
        stored = self._resume()
        self.journal = Journal(self.folder / "log.jsonl", self.step, writes=accelerator.is_main_process)
        if accelerator.is_main_process:
            save_resolved(config, self.folder)
        # A checkpoint that a signal made may be older than the meta-validation of its step.
        self.best = next((r for r in reversed(self.journal.records) if r.get("best")), stored)

    def where(self) -> str:
        """Where the run can be taken up again, for messages."""
        found = checkpoints(self.folder / "checkpoints")
        return f"The last checkpoint is {found[-1]}." if found else "There is no checkpoint yet."

    def last_validation(self) -> dict[str, Any] | None:
        """The record of the newest meta-validation."""
        return next((r for r in reversed(self.journal.records) if "val_loss" in r), None)

    def save_model(self, name: str, validation: dict[str, Any] | None) -> None:
        """Writes the model as it is now, with its card.

        Args:
            name: "best" or "final".
            validation: the record that the card shows.
        """
        if self.config.train == "all":
            self.pipeline.learner.encoder.mark_trained()
        if self.accelerator.is_main_process:
            extra = {
                "meta_training": {
                    "config": self.config.to_dict(),
                    "step": self.step,
                    "validation": validation,
                }
            }
            files = {"README.md": model_card(Unadapted(self.pipeline, extra), f"{self.folder.name}/{name}")}
            save(self.folder / name, self.pipeline, extra=extra, files=files)
        self.accelerator.wait_for_everyone()

    def save_checkpoint(self) -> None:
        """Writes a checkpoint, unless this step has one."""
        if self.accelerator.is_main_process and self.saved_at != self.step:
            tensors = state_tensors(self.trainable, self.optimizer) | {
                f"recent_loss.{name}": torch.tensor(x, dtype=torch.float64)
                for name, x in self.streams.train.losses.items()
            }
            checkpoint = Checkpoint(
                step=self.step,
                tensors=tensors,
                config=self.config.to_dict(),
                fingerprints=self.streams.fingerprints,
                best=self.best,
            )
            save_checkpoint(self.folder / "checkpoints", checkpoint, self.config.run.keep_last)
            self.saved_at = self.step
        self.accelerator.wait_for_everyone()

    def _resume(self) -> dict[str, Any] | None:
        """Takes up the newest checkpoint, where there is one; returns the best meta-validation that it knows."""
        folder = self.folder / "checkpoints"
        if self.config.run.resume == "never":
            if checkpoints(folder):
                raise FewShotError(
                    f"{folder} holds checkpoints of an earlier run; name another run.output_dir, or set "
                    "resume: auto."
                )
            return None
        found = load_newest(folder, self.config.to_dict(), self.streams.fingerprints)
        if found is None:
            return None
        restore_state(self.trainable, self.optimizer, found.tensors)
        prefix = "recent_loss."
        self.streams.train.losses = {
            n.removeprefix(prefix): float(t) for n, t in found.tensors.items() if n.startswith(prefix)
        }
        self.step = self.saved_at = found.step
        logger.info("Going on from the checkpoint after step %d in %s.", found.step, folder)
        return found.best

    def _make_folder(self) -> None:
        if self.accelerator.is_main_process:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FewShotError(f"output_dir {self.folder} cannot be made: {error.strerror}.") from error
            sweep(self.folder)
        self.accelerator.wait_for_everyone()
