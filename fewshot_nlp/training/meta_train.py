"""The one outer loop: episodes, meta-loss, gradient over all processes, step, meta-validation, checkpoint."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import nn

from fewshot_nlp.errors import FewShotError, ScienceError, logger
from fewshot_nlp.slots import MetaContext
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.callbacks import Callback, EarlyStopping, Progress
from fewshot_nlp.training.config import MetaTrainConfig
from fewshot_nlp.training.episodes import make_streams
from fewshot_nlp.training.interruption import Interruption, Stopped
from fewshot_nlp.training.optimizer import (
    learning_rate,
    set_rate,
    trainable_parameters,
)
from fewshot_nlp.training.outer_step import not_finite, outer_gradient
from fewshot_nlp.training.reproducible import deterministic_kernels
from fewshot_nlp.training.state import RunState
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

    Writes into ``config.run.output_dir``: ``log.jsonl`` (loss, rate, gradient norm and episodes a second of every
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
        stack.enter_context(deterministic_kernels(config.run.deterministic, accelerator.device))
        trainable = stack.enter_context(trainable_parameters(pipeline, config.train))
        if config.run.cache_mb:
            stack.enter_context(pipeline.learner.encoder.cache_frozen_layers(config.run.cache_mb * 2**20))
        state = RunState(config, accelerator, pipeline, streams, trainable)
        run = _Run(state, [*_own_callbacks(config, accelerator), *callbacks])
        history = run.go(stack.enter_context(Interruption()))
    return MetaTrainResult(
        folder=state.folder / ("final" if streams.val is None else "best"), history=history
    )


def _own_callbacks(config: MetaTrainConfig, accelerator: Accelerator) -> list[Callback]:
    found: list[Callback] = [Progress(config, shown=accelerator.is_local_main_process)]
    if config.validation.patience is not None:
        found.append(EarlyStopping(config.validation.patience))
    if config.run.trackers:
        found.append(Trackers(accelerator, config))
    return found


def _check_processes(config: MetaTrainConfig, accelerator: Accelerator) -> None:
    if config.outer.meta_batch % accelerator.num_processes:
        raise FewShotError(
            f"meta_batch is {config.outer.meta_batch}, but must be a multiple of the number of processes, "
            f"{accelerator.num_processes}."
        )
    if accelerator.mixed_precision == "fp16":
        raise FewShotError(
            "mixed_precision fp16 needs loss scaling, which the outer loop has not; take bf16 or no."
        )


class _Run:
    """The loop over what is left of a run."""

    def __init__(self, state: RunState, callbacks: Sequence[Callback]) -> None:
        self.state, self.callbacks = state, callbacks
        self.config, self.accelerator = state.config, state.accelerator
        self.pipeline, self.streams = state.pipeline, state.streams

    def go(self, interruption: Interruption) -> list[dict[str, Any]]:
        """All outer steps that are left; then the final model."""
        config, accelerator = self.config, self.accelerator
        logger.info(
            "Meta-batch of %d episodes over %d processes; %d parameters trained.",
            config.outer.meta_batch, accelerator.num_processes, sum(p.numel() for p in self.state.trainable.values()),
        )  # fmt: skip
        ended = self._any([callback.on_start(self.state.journal.records) for callback in self.callbacks])
        if self.state.step == 0 and self.streams.diversity:
            self.state.journal.add({"step": 0, "diversity": self.streams.diversity})
        try:
            while not ended:
                ended = (
                    self._validate_if_due(interruption.should_stop) or self.state.step == config.outer.steps
                )
                if self.state.step % config.run.save_every == 0 or ended:
                    self.state.save_checkpoint()
                if not ended:
                    self._one_step(interruption.should_stop)
        except Stopped:
            self.state.save_checkpoint()
            if accelerator.is_main_process:
                logger.warning(
                    "Stopped by a signal after %d of %d steps.", self.state.step, config.outer.steps
                )
            interruption.leave()
        finally:
            for callback in self.callbacks:
                callback.on_end()
        self.state.save_model("final", self.state.last_validation())
        return self.state.journal.records

    def _any(self, stops: list[bool]) -> bool:
        """Whether a callback in any process wants to end the run, so that all of them end it together."""
        return any(gather_object([any(stops)]))

    def _one_step(self, should_stop: Callable[[], bool]) -> None:
        config, began = self.config, time.perf_counter()
        rate = learning_rate(config.outer, self.state.step)
        context = MetaContext(
            progress=self.state.step / config.outer.steps, label_smoothing=config.outer.label_smoothing
        )
        try:
            losses = outer_gradient(
                self.accelerator,
                self.pipeline,
                self.state.trainable,
                self.streams.train,
                step=self.state.step,
                meta_batch=config.outer.meta_batch,
                context=context,
                regulariser=self.state.regulariser,
                seed=config.run.seed,
                should_stop=should_stop,
            )
            loss = sum(losses) / config.outer.meta_batch
            limit = float("inf") if config.outer.max_grad_norm is None else config.outer.max_grad_norm
            norm = float(nn.utils.clip_grad_norm_(list(self.state.trainable.values()), limit))
            set_rate(self.state.optimizer, rate)
            self.state.optimizer.step()
            bad = not_finite(self.state.trainable)
            if bad is not None:
                episode = self.streams.train.episode(self.state.step * config.outer.meta_batch).episode_id
                raise ScienceError(
                    f"{self.pipeline.learner.name}: the parameter {bad} became NaN or infinite in step "
                    f"{self.state.step}, whose first episode is {episode!r} (loss {loss:g}, gradient norm "
                    f"{norm:g}). Lower outer.lr ({rate:g})."
                )
        except ScienceError as error:
            raise ScienceError(f"{error} {self.state.where()}") from error
        shares = self.streams.train.shares(self.state.step)
        self.streams.train.learn(self.state.step, losses)
        self.state.step += 1
        speed = config.outer.meta_batch / (time.perf_counter() - began)
        record = {
            "step": self.state.step,
            "train_loss": loss,
            "lr": rate,
            "grad_norm": norm,
            "meta_batch": config.outer.meta_batch,
            "processes": self.accelerator.num_processes,
            "episodes_per_s": round(speed, 3),
            **({"shares": shares} if self.streams.train.losses else {}),
        }
        self.state.journal.add(record)
        for callback in self.callbacks:
            callback.on_step(record)

    def _validate_if_due(self, should_stop: Callable[[], bool]) -> bool:
        """Whether the run is to end here, by what its callbacks say of a meta-validation."""
        config = self.config
        due = self.state.step % config.validation.every == 0 or self.state.step == config.outer.steps
        done = any(r["step"] == self.state.step and "val_loss" in r for r in self.state.journal.records)
        if self.streams.val is None or not due or done:
            return False
        try:
            found = meta_validate(
                self.accelerator,
                self.pipeline,
                self.streams.val,
                config.validation.n_episodes,
                config.validation.seed,
                should_stop,
            )
        except ScienceError as error:
            raise ScienceError(f"{error} {self.state.where()}") from error
        metric = self.pipeline.task.primary_metric
        key, sign = ("val_loss", -1) if config.validation.best_by == "loss" else (metric, 1)
        better = self.state.best is None or sign * found[key] > sign * self.state.best[key]
        record = {"step": self.state.step, **found, "best": better}
        if better:
            self.state.best = record
            self.state.save_model("best", record)
        self.state.journal.add(record)  # last: a run killed before it validates again when resumed
        return self._any([callback.on_validation(record) for callback in self.callbacks])
