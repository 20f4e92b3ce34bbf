"""Search for hyperparameters with Optuna: each trial is a meta-training run, its value the best meta-validation.

Proposals come from a tree-structured Parzen estimator (Bergstra et al. 2011); a run that falls behind is ended early,
by the median rule (Golovin et al. 2017) or by successive halving (Li et al. 2020). Only meta-validation episodes are
looked at, never a target's. Several processes, on any machines, that name the same storage share one study.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from fewshot_nlp.arguments import changed
from fewshot_nlp.episode import Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError, ScienceError, logger
from fewshot_nlp.persistence.disk import atomic_write, is_full, user_path
from fewshot_nlp.search.proposals import Space, proposing_sampler
from fewshot_nlp.settings import Seed, Settings
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training.callbacks import Callback, Record
from fewshot_nlp.training.config import MetaTrainConfig, parse_config, without_code
from fewshot_nlp.training.meta_train import meta_train

FIXED = ("task", "validation", "run", "data.targets", "data.augmentation.paraphrase")
"""Settings that no search may move: with another value, the trials' figures could not be compared, or code be run."""


class SearchConfig(Settings):
    """Settings of `search`.

    Args:
        base: YAML file of the meta-training run that is searched around.
        space: for each setting that moves, by its path (``outer.lr``, ``adapter.r``): ``{low, high}``, with
            ``log: true`` or ``step`` on request; or ``{choices: [...]}``. Whole bounds give whole numbers.
        settings: other settings of every trial, by path, such as fewer ``outer.steps``.
        n_trials: trials in the study, over all processes and restarts; from 1.
        output_dir: a folder for each trial, and ``best.yaml``.
        storage: URL of a database (``sqlite:///study.db``), or the path of a journal file, which suffices on a shared
            file system; None: ``study.journal`` in ``output_dir``.
        study: name within the storage.
        pruner: "median", "successive_halving" or "none".
        startup_trials: trials drawn at random before the estimator proposes, and finished before the median prunes.
        seed: of the proposals, which are functions of it, of the trial's number and of the trials before.

    Raises:
        FewShotError: naming a value out of its range, or a setting that no search may move.
    """

    base: str
    space: dict[str, dict[str, Any]]
    output_dir: str
    settings: dict[str, Any] = field(default_factory=dict)
    n_trials: Annotated[int, Field(ge=1)] = 20
    storage: str | None = None
    study: str = "search"
    pruner: Literal["median", "successive_halving", "none"] = "median"
    startup_trials: Annotated[int, Field(ge=1)] = 5
    seed: Seed = 0

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        fixed = next(
            (
                p
                for p in self.space
                if any(f"{f}.".startswith(f"{p}.") or f"{p}.".startswith(f"{f}.") for f in FIXED)
            ),
            None,
        )
        if fixed is not None:
            raise FewShotError(f"space: {fixed!r} cannot be searched: the trials' figures would not compare.")
        Space(self.space)
        return self


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Args:
        folder: the model of the best trial.
        config: its settings, also in ``best.yaml``.
        values: the settings that moved, by path.
        figure: its best meta-validation figure after the start.
        trials: finished or pruned, in the whole study.
    """

    folder: Path
    config: MetaTrainConfig
    values: dict[str, Json]
    figure: float
    trials: int


def search(config: SearchConfig, *, allow_code: bool = False) -> SearchResult:
    """Runs trials until the study has ``n_trials``; a study that exists is gone on with.

    A trial ended by a signal is taken up again, from its checkpoint, by whichever process next asks for one.

    Args:
        config: all settings.
        allow_code: whether they may name a function that is imported.

    Raises:
        FewShotError: Optuna is missing, several processes were launched as one run, there is no meta-validation, the
            storage holds another search under this name, no trial came to its end, or the disk is full.
    """
    try:
        return _search(config, allow_code)
    except Exception as error:
        if isinstance(error, FewShotError) or not is_full(error):
            raise
        raise FewShotError(
            f"The study in {config.storage or config.output_dir} cannot be written: the disk is full. Finished trials "
            "and checkpoints stay; make room and start the search again."
        ) from error


def _search(config: SearchConfig, allow_code: bool) -> SearchResult:
    base = _base(config)
    if not allow_code:
        without_code(base)
    key = "val_loss" if base.validation.best_by == "loss" else TASKS.get(base.task).primary_metric
    study = _study(config, base, "minimize" if base.validation.best_by == "loss" else "maximize")
    while len(_counted(study)) < config.n_trials:
        trial = study.ask()
        if "folder" not in trial.user_attrs:  # else it was stopped by a signal
            trial.set_user_attr("folder", str(Path(config.output_dir) / f"trial-{trial.number:04d}"))
        values = Space(config.space).suggest(trial)
        logger.info("Trial %d: %s.", trial.number, canonical_json(values))
        _settle(study, trial, trial_config(base, values, _folder(config, trial)), key)
    finished = [trial for trial in _counted(study) if trial.state.name == "COMPLETE"]
    if not finished:
        raise FewShotError(
            f"None of {len(_counted(study))} trials came to its end: all were pruned or diverged. Narrow the space."
        )
    best = study.best_trial
    made = trial_config(base, Space(config.space).values(best.params), _folder(config, best))
    _write_best(config, made, best)
    return SearchResult(
        folder=user_path(made.run.output_dir) / "best",
        config=made,
        values=Space(config.space).values(best.params),
        figure=float(best.value),
        trials=len(_counted(study)),
    )


def _folder(config: SearchConfig, trial: Any) -> str:
    """Where a trial's run is: in this search's folder, unless another process with its own folder has made it."""
    made = user_path(trial.user_attrs["folder"])
    here = user_path(config.output_dir) / made.name
    return str(made if made.exists() and not here.exists() else here)


def trial_config(base: MetaTrainConfig, values: Mapping[str, Json], folder: str) -> MetaTrainConfig:
    """The settings of a trial: the base's, with values put at their paths."""
    return changed(base, {**values, "run.output_dir": folder})


def _base(config: SearchConfig) -> MetaTrainConfig:
    """The settings that all trials share; how meta-validation episodes are drawn is among them."""
    plain = parse_config(["--config", config.base, "--allow-code"])
    base = trial_config(plain, config.settings, plain.run.output_dir)
    if not base.validation.sources and not base.validation.class_fraction:
        raise FewShotError(
            f"A search compares trials by meta-validation, but {config.base} has neither validation.sources "
            "nor validation.class_fraction."
        )
    base = changed(base, {"validation.sampler": base.validation.sampler or base.data.sampler})
    for values in Space(config.space).corners():
        trial_config(base, values, base.run.output_dir)
    return base


def _study(config: SearchConfig, base: MetaTrainConfig, direction: str) -> Any:
    from accelerate import Accelerator  # type: ignore[import-untyped]

    try:
        import optuna
        from optuna.storages.journal import JournalStorage
    except ImportError as error:
        raise FewShotError('A search needs Optuna: python -m pip install "fewshot-nlp[search]".') from error
    processes = Accelerator().num_processes
    if processes > 1:
        raise FewShotError(
            f"A trial is a run of one process, but {processes} were launched together. Start the search once for each "
            "process instead, with one storage: they share the trials."
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = user_path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    storage = config.storage or str(folder / "study.journal")
    storage = storage if "://" in storage else str(user_path(storage))
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials),
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
        "none": optuna.pruners.NopPruner,
    }
    study = optuna.create_study(
        storage=_database(storage) if "://" in storage else JournalStorage(_journal(storage)),
        sampler=proposing_sampler(config.seed, config.startup_trials),
        pruner=pruners[config.pruner](),
        study_name=config.study,
        direction=direction,
        load_if_exists=True,
    )
    anywhere = changed(base, {"run.output_dir": "-"})
    what = {"base": anywhere.to_dict(), "space": config.space, "seed": config.seed}
    digest = sha256(canonical_json(what))
    if study.user_attrs.get("search", digest) != digest:
        raise FewShotError(
            f"{storage} holds another search under the name {config.study!r}; give this one another study or storage."
        )
    study.set_user_attr("search", digest)
    return study


def _journal(path: str) -> Any:
    """The storage in a file; a last line that a full disk cut short is taken away, since it would spoil the next."""
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(path)
    backend = JournalFileBackend(path, lock_obj=lock)
    lock.acquire()
    try:
        with Path(path).open("rb+") as file:
            end = file.read().rfind(b"\n") + 1
            file.truncate(end)
    finally:
        lock.release()
    return backend


def _database(url: str) -> Any:
    """The storage in a database; processes that start together may collide while they make its tables."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DatabaseError

    for _ in range(9):
        try:
            return RDBStorage(url)
        except DatabaseError as error:
            logger.info("%s is not ready (%s); trying again.", url, type(error).__name__)
            time.sleep(1)
    return RDBStorage(url)


def _counted(study: Any) -> list[Any]:
    """Trials that count: those that came to an end or were pruned, not those of processes that were killed."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.name in ("COMPLETE", "PRUNED")]


class _Told(Callback):
    """Tells Optuna each meta-validation after the start, and ends a run that falls behind."""

    def __init__(self, trial: Any, key: str) -> None:
        self._trial, self._key = trial, key

    def on_validation(self, record: Record) -> bool:
        """Reports, and raises `optuna.TrialPruned` where the pruner says so."""
        import optuna

        if record["step"]:  # before the first step all trials are alike
            self._trial.report(record[self._key], record["step"])
            if self._trial.should_prune():
                raise optuna.TrialPruned
        return False


def _settle(study: Any, trial: Any, config: MetaTrainConfig, key: str) -> None:
    """Runs a trial and tells the study how it ended."""
    import optuna

    state = optuna.trial.TrialState
    try:
        history = meta_train(config, [_Told(trial, key)]).history
        figures = [r[key] for r in history if "val_loss" in r and r["step"]]
        value = min(figures) if config.validation.best_by == "loss" else max(figures)
    except optuna.TrialPruned:
        study.tell(trial, state=state.PRUNED)
        logger.info("Trial %d was pruned.", trial.number)
    except ScienceError as error:
        study.tell(trial, state=state.PRUNED)
        logger.warning("Trial %d diverged: %s", trial.number, error)
    except BaseException as error:
        study.tell(trial, state=state.FAIL)
        if not isinstance(error, Exception):  # a signal: the run has left a checkpoint
            study.enqueue_trial(trial.params, user_attrs={"folder": trial.user_attrs["folder"]})
        raise
    else:
        study.tell(trial, value)
        logger.info("Trial %d: %g.", trial.number, value)


def _write_best(config: SearchConfig, made: MetaTrainConfig, best: Any) -> None:
    path = user_path(config.output_dir) / "best.yaml"
    again = changed(made, {"run.output_dir": str(Path(config.output_dir) / "again")})
    looks = made.validation
    head = f"# Trial {best.number} of the study {config.study!r}: {looks.best_by} of {looks.n_episodes} " \
           f"meta-validation episodes {best.value:g}. Its model is in {made.run.output_dir}/best.\n" \
           f"# Again: accelerate launch recipes/meta_train.py --config {path}\n"  # fmt: skip
    with atomic_write(path) as part:
        part.write_text(
            head + yaml.safe_dump(again.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
