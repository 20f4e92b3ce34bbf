"""The one outer loop: episodes, meta-loss, gradient over all processes, step, meta-validation, checkpoint."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import nn

from fewshot_nlp.errors import FewShotError, ScienceError, logger
from fewshot_nlp.model_card import HUB_TASKS, Unadapted, model_card
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.storage import save
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.callbacks import Callback, EarlyStopping, Progress
from fewshot_nlp.training.checkpoint import Checkpoint, checkpoints, load_newest, save_checkpoint
from fewshot_nlp.training.config import MetaTrainConfig
from fewshot_nlp.training.episodes import Streams, make_streams
from fewshot_nlp.training.interruption import Interruption, Stopped
from fewshot_nlp.training.journal import Journal
from fewshot_nlp.training.optimiser import (
    Optimiser,
    learning_rate,
    make_optimiser,
    restore_state,
    set_rate,
    state_tensors,
    trainable_parameters,
)
from fewshot_nlp.training.outer_step import not_finite, outer_gradient
from fewshot_nlp.training.regularisation import make_regulariser
from fewshot_nlp.training.reproducible import deterministic_kernels, save_resolved
from fewshot_nlp.training.trackers import Trackers, make_accelerator
from fewshot_nlp.training.validation import meta_validate


@dataclass(frozen=True, kw_only=True)
class MetaTrainResult:
    """What a run left.

    Args:
        folder: the model to use: ``best`` where there was meta-validation, else ``final``.
        history: the records of ``log.jsonl``, in order.
    """

    folder: Path
    history: list[dict[str, Any]]


def meta_train(config: MetaTrainConfig, callbacks: Sequence[Callback] = ()) -> MetaTrainResult:
    """Meta-trains a learner, on one process or on all that ``accelerate launch`` started.

    Writes into ``config.output_dir``: ``log.jsonl`` (loss, rate, gradient norm and episodes a second of every
    outer step, and the meta-validations), ``config.yaml`` (all settings, with versions), ``checkpoints``, and the
    models ``best`` and ``final``, each with a card, which ``from_pretrained`` loads. A run that was stopped goes
    on from its last checkpoint; on one CPU process the result has the same bits as that of an unbroken run.

    Args:
        config: all settings.
        callbacks: told of every outer step and meta-validation, and may end the run.

    Raises:
        FewShotError: settings that do not fit the data, the learner or the number of processes; or a
            checkpoint of another configuration.
        ScienceError: a loss, gradient or parameter became NaN or infinite; the last checkpoint stays.
    """
    accelerator = make_accelerator(config)
    _check_processes(config, accelerator)
    pipeline = build_pipeline(config, accelerator.device)
    streams = make_streams(config, pipeline.task)
    with ExitStack() as stack:
        stack.enter_context(deterministic_kernels(config.deterministic, accelerator.device))
        trainable = stack.enter_context(trainable_parameters(pipeline, config.train))
        stack.enter_context(_lower_layers_cached(config, pipeline))
        run = _Run(
            config,
            accelerator,
            pipeline,
            streams,
            trainable,
            [*_own_callbacks(config, accelerator), *callbacks],
        )
        history = run.go(stack.enter_context(Interruption()))
    return MetaTrainResult(folder=run.folder / ("final" if streams.val is None else "best"), history=history)


def _lower_layers_cached(config: MetaTrainConfig, pipeline: Pipeline) -> AbstractContextManager[Any]:
    if not config.cache_mb:
        return nullcontext()
    folder = None if config.cache_folder is None else Path(config.cache_folder).expanduser()
    return pipeline.learner.encoder.lower_layers_cached(config.cache_mb * 2**20, folder)


def _own_callbacks(config: MetaTrainConfig, accelerator: Accelerator) -> list[Callback]:
    found: list[Callback] = [Progress(config, shown=accelerator.is_local_main_process)]
    if config.patience is not None:
        found.append(EarlyStopping(config.patience))
    if config.trackers:
        found.append(Trackers(accelerator, config))
    return found


def _check_processes(config: MetaTrainConfig, accelerator: Accelerator) -> None:
    if config.meta_batch % accelerator.num_processes:
        raise FewShotError(
            f"meta_batch is {config.meta_batch}, but must be a multiple of the number of processes, "
            f"{accelerator.num_processes}."
        )
    if accelerator.mixed_precision == "fp16":
        raise FewShotError(
            "mixed_precision fp16 needs loss scaling, which the outer loop has not; take bf16 or no."
        )


class _Run:
    """The state of one run, between its outer steps."""

    def __init__(
        self,
        config: MetaTrainConfig,
        accelerator: Accelerator,
        pipeline: Pipeline,
        streams: Streams,
        trainable: Mapping[str, nn.Parameter],
        callbacks: Sequence[Callback],
    ) -> None:
        self.config, self.accelerator, self.pipeline, self.streams = config, accelerator, pipeline, streams
        self.regulariser = make_regulariser(
            config.regularisation, config.augmentation, pipeline, streams.train.episode(0)
        )
        self.trainable, self.callbacks = self.regulariser.parameters | dict(trainable), callbacks
        self.optimiser: Optimiser = make_optimiser(config, self.trainable)
        self.folder = Path(config.output_dir).expanduser()
        self.step = 0
        self.saved_at = 0
        if accelerator.is_main_process:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FewShotError(f"output_dir {self.folder} cannot be made: {error.strerror}.") from error
            for left in self.folder.glob(".*.part*"):  # of a run that was killed while it saved a model
                shutil.rmtree(left)
        accelerator.wait_for_everyone()
        stored = self._resume()
        self.journal = Journal(self.folder / "log.jsonl", self.step, writes=accelerator.is_main_process)
        if accelerator.is_main_process:
            save_resolved(config, self.folder)
        # A checkpoint that a signal made may be older than the meta-validation of its step.
        self.best = next((r for r in reversed(self.journal.records) if r.get("best")), stored)

    def go(self, interruption: Interruption) -> list[dict[str, Any]]:
        """All outer steps that are left; then the final model."""
        config, accelerator = self.config, self.accelerator
        logger.info(
            "Meta-batch of %d episodes over %d processes; %d parameters trained.",
            config.meta_batch, accelerator.num_processes, sum(p.numel() for p in self.trainable.values()),
        )  # fmt: skip
        ended = self._any([callback.on_start(self.journal.records) for callback in self.callbacks])
        if self.step == 0 and self.streams.diversity:
            self.journal.add({"step": 0, "diversity": self.streams.diversity})
        try:
            while not ended:
                ended = self._validate_if_due(interruption.asked) or self.step == config.outer_steps
                if self.step % config.save_every == 0 or ended:
                    self._save_checkpoint()
                if not ended:
                    self._one_step(interruption.asked)
        except Stopped:
            self._save_checkpoint()
            if accelerator.is_main_process:
                logger.warning("Stopped by a signal after %d of %d steps.", self.step, config.outer_steps)
            interruption.leave()
        finally:
            for callback in self.callbacks:
                callback.on_end()
        self._save_model("final", self._last_validation())
        return self.journal.records

    def _any(self, stops: list[bool]) -> bool:
        """Whether a callback in any process wants to end the run, so that all of them end it together."""
        return any(gather_object([any(stops)]))

    def _one_step(self, asked: Callable[[], bool]) -> None:
        config, began, rate = self.config, time.perf_counter(), learning_rate(self.config, self.step)
        self.pipeline.learner.progress = self.step / config.outer_steps
        try:
            losses = outer_gradient(
                self.accelerator,
                self.pipeline,
                self.trainable,
                self.streams.train,
                step=self.step,
                meta_batch=config.meta_batch,
                label_smoothing=config.label_smoothing,
                regulariser=self.regulariser,
                seed=config.seed,
                asked=asked,
            )
            loss = sum(losses) / config.meta_batch
            limit = float("inf") if config.max_grad_norm is None else config.max_grad_norm
            norm = float(nn.utils.clip_grad_norm_(list(self.trainable.values()), limit))
            set_rate(self.optimiser, rate)
            self.optimiser.step()
            bad = not_finite(self.trainable)
            if bad is not None:
                episode = self.streams.train.episode(self.step * config.meta_batch).episode_id
                raise ScienceError(
                    f"{self.pipeline.learner.name}: the parameter {bad} became NaN or infinite in step "
                    f"{self.step}, whose first episode is {episode!r} (loss {loss:g}, gradient norm "
                    f"{norm:g}). Lower outer_lr ({rate:g})."
                )
        except ScienceError as error:
            raise ScienceError(f"{error} {self._where()}") from error
        shares = self.streams.train.shares(self.step)
        self.streams.train.learn(self.step, losses)
        self.step += 1
        speed = config.meta_batch / (time.perf_counter() - began)
        record = {
            "step": self.step,
            "train_loss": loss,
            "lr": rate,
            "grad_norm": norm,
            "meta_batch": config.meta_batch,
            "processes": self.accelerator.num_processes,
            "episodes_per_s": round(speed, 3),
            **({"shares": shares} if self.streams.train.losses else {}),
        }
        self.journal.add(record)
        for callback in self.callbacks:
            callback.on_step(record)

    def _validate_if_due(self, asked: Callable[[], bool]) -> bool:
        """Whether the run is to end here, by what its callbacks say of a meta-validation."""
        config = self.config
        due = self.step % config.val_every == 0 or self.step == config.outer_steps
        done = any(r["step"] == self.step and "val_loss" in r for r in self.journal.records)
        if self.streams.val is None or not due or done:
            return False
        try:
            found = meta_validate(
                self.accelerator,
                self.pipeline,
                self.streams.val,
                config.n_val_episodes,
                config.val_seed,
                asked,
            )
        except ScienceError as error:
            raise ScienceError(f"{error} {self._where()}") from error
        metric = self.pipeline.task.primary_metric
        key, sign = ("val_loss", -1) if config.best_by == "loss" else (metric, 1)
        better = self.best is None or sign * found[key] > sign * self.best[key]
        record = {"step": self.step, **found, "best": better}
        if better:
            self.best = record
            self._save_model("best", record)
        self.journal.add(record)  # last: a run killed before it validates again when resumed
        return self._any([callback.on_validation(record) for callback in self.callbacks])

    def _where(self) -> str:
        """Where the run can be taken up again, for messages."""
        found = checkpoints(self.folder / "checkpoints")
        return f"The last checkpoint is {found[-1]}." if found else "There is no checkpoint yet."

    def _last_validation(self) -> dict[str, Any] | None:
        return next((r for r in reversed(self.journal.records) if "val_loss" in r), None)

    def _save_model(self, name: str, validation: dict[str, Any] | None) -> None:
        if self.config.train == "all":
            self.pipeline.learner.encoder.mark_trained()
        if self.accelerator.is_main_process:
            extra = {
                "meta_training": {
                    "config": self.config.to_json(),
                    "step": self.step,
                    "validation": validation,
                }
            }
            files = {}
            if self.pipeline.task.name in HUB_TASKS:
                files["README.md"] = model_card(Unadapted(self.pipeline, extra), f"{self.folder.name}/{name}")
            save(self.folder / name, self.pipeline, extra=extra, files=files)
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self) -> None:
        if self.accelerator.is_main_process and self.saved_at != self.step:
            tensors = state_tensors(self.trainable, self.optimiser) | {
                f"recent_loss.{name}": torch.tensor(x, dtype=torch.float64)
                for name, x in self.streams.train.losses.items()
            }
            checkpoint = Checkpoint(
                step=self.step,
                tensors=tensors,
                config=self.config.to_json(),
                fingerprints=self.streams.fingerprints,
                best=self.best,
            )
            save_checkpoint(self.folder / "checkpoints", checkpoint, self.config.keep_last)
            self.saved_at = self.step
        self.accelerator.wait_for_everyone()

    def _resume(self) -> dict[str, Any] | None:
        """Takes up the newest checkpoint, where there is one; returns the best meta-validation that it knows."""
        folder = self.folder / "checkpoints"
        if self.config.resume == "never":
            if checkpoints(folder):
                raise FewShotError(
                    f"{folder} holds checkpoints of an earlier run; name another output_dir, or set "
                    "resume: auto."
                )
            return None
        found = load_newest(folder, self.config.to_json(), self.streams.fingerprints)
        if found is None:
            return None
        restore_state(self.trainable, self.optimiser, found.tensors)
        prefix = "recent_loss."
        self.streams.train.losses = {
            n.removeprefix(prefix): float(t) for n, t in found.tensors.items() if n.startswith(prefix)
        }
        self.step = self.saved_at = found.step
        logger.info("Going on from the checkpoint after step %d in %s.", found.step, folder)
        return found.best
