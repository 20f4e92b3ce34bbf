"""What is told of a run while it goes on, and may end it: progress, early stopping, trackers.

A callback sees only records of ``log.jsonl``. A resumed run hands over those before its checkpoint, so a callback
that is a function of the records does after a crash what it would have done without one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_nlp.errors import logger
from fewshot_nlp.progress import progress_bar
from fewshot_nlp.training.config import MetaTrainConfig

Record = Mapping[str, Any]


class Callback:
    """Override what you need; every hook is called in every process, with the same records but for timings.

    Examples:
        >>> class UntilGood(Callback):
        ...     def on_validation(self, record):
        ...         return record["val_loss"] < 0.1
        >>> UntilGood().on_validation({"step": 3, "val_loss": 0.05})
        True
    """

    def on_start(self, records: Sequence[Record]) -> bool:
        """Before the first step, with the records that a resumed run takes over; True: the run had ended."""
        return False

    def on_step(self, record: Record) -> None:
        """After an outer step: ``step``, ``train_loss``, ``lr``, ``grad_norm``, ``episodes_per_s`` and more."""

    def on_validation(self, record: Record) -> bool:
        """After a meta-validation: ``step``, ``val_loss``, the primary metric, intervals, and whether ``best``.

        Returns:
            True to end the run. One process is enough; it then writes a checkpoint and the model ``final``.
        """
        return False

    def on_end(self) -> None:
        """When the run ends, in whatever way but a kill."""


class Progress(Callback):
    """A bar on stderr: episodes done, episodes a second, time left, loss."""

    def __init__(self, config: MetaTrainConfig, *, shown: bool) -> None:
        self._episodes = config.outer.steps * config.outer.meta_batch
        self._meta_batch, self._shown = config.outer.meta_batch, shown

    def on_start(self, records: Sequence[Record]) -> bool:
        """Shows what is done already."""
        self._bar = progress_bar(
            total=self._episodes,
            initial=max((r["step"] for r in records), default=0) * self._meta_batch,
            unit=" episodes",
            desc="meta-training",
            delay=0,
            shown=None if self._shown else False,
        )
        return False

    def on_step(self, record: Record) -> None:
        """Moves on."""
        self._bar.set_postfix(loss=f"{record['train_loss']:.4f}", refresh=False)
        self._bar.update(self._meta_batch)

    def on_end(self) -> None:
        """Leaves the line as it is."""
        self._bar.close()


class EarlyStopping(Callback):
    """Ends the run after meta-validations of which none was the best so far.

    Args:
        patience: how many in a row, from 1.
    """

    def __init__(self, patience: int) -> None:
        self._patience, self._in_vain = patience, 0

    def on_start(self, records: Sequence[Record]) -> bool:
        """Counts those before the checkpoint."""
        return any(self.on_validation(record) for record in records if "val_loss" in record)

    def on_validation(self, record: Record) -> bool:
        """Counts."""
        self._in_vain = 0 if record["best"] else self._in_vain + 1
        if self._in_vain < self._patience:
            return False
        logger.info(
            "Stopped early at step %d: %d meta-validations without a better one.",
            record["step"],
            self._in_vain,
        )
        return True
