"""From the configuration's sources to two streams of episodes: to train on, and to choose the best by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_nlp.episode import Example, Json, TaskDataset, canonical_json, input_key
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.sampling import SAMPLERS, Mixture, split_classes
from fewshot_nlp.settings import hints_of
from fewshot_nlp.sources import RowsMissingError, card_names, load_card, load_rows, read_rows
from fewshot_nlp.tasks import Task
from fewshot_nlp.training.config import MetaTrainConfig, SamplerSettings, Source
from fewshot_nlp.training.diversity import in_words, mixture_diversity
from fewshot_nlp.training.leakage import without_leaks, without_targets
from fewshot_nlp.training.selection import SelectedTasks, stages

DOCUMENT = "document"
"""The column of a file that says which rows are from one document."""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """What a run draws from.

    Args:
        train: training episodes.
        val: meta-validation episodes; None when there are none.
        fingerprints: SHA-256 of each source's rows, by name, so that a resumed run meets the same episodes.
        diversity: of the training mixture; None where it was not to be measured.
    """

    train: SelectedTasks
    val: Mixture | None
    fingerprints: dict[str, str]
    diversity: dict[str, Json] | None


def make_streams(config: MetaTrainConfig, task: Task) -> Streams:
    """Reads the sources and puts samplers on them.

    Rows whose input, as `input_key` says it, is among the targets' rows are left out of all sources, and those among
    the meta-validation rows out of training sources; with a leakage guard, those that share n-grams with these, too.

    Raises:
        FewShotError: a source or target of another task, one that weights to ship may not be trained on, too few rows
            for the sampler, or an unknown knob of it.
    """
    for source in config.data.sources:
        _check_licence(source, config.data.ship)
    train = {source.name: read_source(source, task) for source in config.data.sources}
    val = {source.name: read_source(source, task) for source in config.validation.sources}
    targets = _target_rows(config.data.targets, task)
    if targets:
        apart = without_targets(train | val, targets)
        train, val = {name: apart[name] for name in train}, {name: apart[name] for name in val}
    if config.validation.class_fraction:
        shares = (1 - config.validation.class_fraction, config.validation.class_fraction, 0.0)
        parts = {
            name: split_classes(data, shares, seed=config.validation.seed) for name, data in train.items()
        }
        train = {name: part.meta_train for name, part in parts.items()}
        val = {name: part.meta_val for name, part in parts.items()}
    elif val:
        seen = {input_key(example.inputs) for data in val.values() for example in data.examples}
        train = {
            name: data.without(seen, "they are among the meta-validation rows")
            for name, data in train.items()
        }
    if config.data.selection.leakage_ngram is not None:
        train = _guarded(config, task, train, val)
    fingerprints = {f"train.{name}": data.fingerprint for name, data in train.items()}
    fingerprints |= {f"val.{name}": data.fingerprint for name, data in val.items()}
    val_settings = config.validation.sampler or config.data.sampler
    weights = config.data.mixture
    if isinstance(weights, dict):  # not of sources that the guard left out
        out = {source.name for source in config.data.sources} - train.keys()
        weights = {name: weight for name, weight in weights.items() if name not in out}
    mixtures = stages(
        config.data.selection.curriculum,
        config.data.sampler,
        list(train),
        lambda settings: _mixture(
            train, settings, weights, config.data.temperature, config.run.seed, task.sampler
        ),
    )
    stream = SelectedTasks(
        mixtures, config.data.selection, meta_batch=config.outer.meta_batch, outer_steps=config.outer.steps
    )
    return Streams(
        train=stream,
        diversity=_diversity(config.data.selection.diversity_rows, train, stream.shares(config.outer.steps)),
        val=_mixture(val, val_settings, "uniform", None, config.validation.seed, task.sampler)
        if val
        else None,
        fingerprints=fingerprints,
    )


def _guarded(
    config: MetaTrainConfig, task: Task, train: Mapping[str, TaskDataset], val: Mapping[str, TaskDataset]
) -> dict[str, TaskDataset]:
    """The sources without what is too near the targets or, where they are other data sets, the validation.sources."""
    measured = {name: read_source(_measured_part(name), task).examples for name in config.data.targets}
    if config.validation.sources:
        measured |= {name: data.examples for name, data in val.items()}
    return without_leaks(
        train,
        measured,
        n=config.data.selection.leakage_ngram or 1,
        max_share=config.data.selection.leakage_max_share,
        drop_sources=config.data.selection.leakage_drop_sources,
    )


def _measured_part(name: str) -> Source:
    """All splits of a target but "train", unless it has no other."""
    splits = [split for split in load_card(name).splits if split != "train"] if name in card_names() else []
    return Source(name=name, split="+".join(splits) or "train")


def _target_rows(names: Sequence[str], task: Task) -> dict[str, tuple[Example, ...]]:
    """All rows of the targets, but for cards whose rows are not here; the logger names these."""
    found = {}
    for name in names:
        splits = load_card(name).splits if name in card_names() else ["train"]
        try:
            found[name] = read_source(Source(name=name, split="+".join(splits)), task).examples
        except RowsMissingError as error:
            logger.warning("data.targets: only the name of %s is kept out. %s", name, error)
        except FewShotError as error:
            raise FewShotError(f"data.targets: {error}") from None
    return found


def _diversity(
    rows: int, train: Mapping[str, TaskDataset], shares: Mapping[str, float]
) -> dict[str, Json] | None:
    if not rows:
        return None
    found = mixture_diversity(train, shares, rows)
    logger.info("%s", in_words(found))
    return found


def read_source(source: Source, task: Task) -> TaskDataset:
    """The rows of a source as a data set; of rows with one input and different targets the first is kept."""
    domain, group = "general", source.group_column
    if source.name in card_names():
        card = load_card(source.name)
        if card.task != task.name:
            raise FewShotError(
                f"The source {source.name!r} is for the task {card.task}, the run for {task.name}."
            )
        domain, group = card.domain, group or card.group_column
        rows = [row for split in source.split.split("+") for row in load_rows(source.name, split)]
    elif user_path(source.name).exists():
        rows = read_rows(source.name, task_name=task.name)
        group = group or (DOCUMENT if all(DOCUMENT in row for row in rows) else task.group_column)
    else:
        raise FewShotError(f"The source {source.name!r} is neither a file nor the name of a data set card.")
    lacking = next((i for i, row in enumerate(rows, start=1) if group is not None and group not in row), None)
    if lacking is not None:
        raise FewShotError(
            f"The source {source.name!r}: row {lacking} has no column {group!r} (group_column)."
        )
    try:
        data = task.dataset(_consistent(rows, task, source.name), source.name, domain, group_column=group)
    except FewShotError as error:
        raise FewShotError(f"The source {source.name!r}: {error}") from None
    return data if source.labels is None else data.keep_labels(source.labels)


def _consistent(rows: Sequence[Mapping[str, Any]], task: Task, name: str) -> list[Mapping[str, Any]]:
    """Rows without those that contradict an earlier one; bad rows stay, for `Task.dataset` to name."""
    seen: dict[str, str] = {}
    kept: list[Mapping[str, Any]] = []
    for row in rows:
        try:
            example = task.example(row)
        except FewShotError:
            kept.append(row)
            continue
        target = canonical_json(example.target)
        if seen.setdefault(canonical_json(example.inputs), target) == target:
            kept.append(row)
    if len(kept) < len(rows):
        logger.warning(
            "%s: %d of %d rows contradict an earlier row and are left out.",
            name,
            len(rows) - len(kept),
            len(rows),
        )
    return kept


def _check_licence(source: Source, ship: bool) -> None:
    if source.name not in card_names():
        if ship:
            logger.warning(
                "%s has no data set card: see to it that its licence allows weights to be given away.",
                source.name,
            )
        return
    card = load_card(source.name)
    if card.may_train_weights:
        return
    told = f"The source {source.name!r} has a licence of the class {card.licence_class!r}"
    if ship:
        raise FewShotError(
            f"{told}, on which weights that ship may not be trained; leave it out, or set ship: false."
        )
    logger.warning("%s: do not give away what is trained on it.", told)


def _mixture(
    data: Mapping[str, TaskDataset],
    settings: SamplerSettings,
    weights: Any,
    temperature: float | None,
    seed: int,
    usual: str,
) -> Mixture:
    """One sampler for each source and k_shot; a source's weight is shared out evenly among its k_shots.

    In the draw a file goes by its rows, so that a file that was moved draws the same episodes.
    """
    samplers = {
        f"{name}/{k}": _sampler(dataset, settings, k, seed, usual)
        for name, dataset in data.items()
        for k in settings.k_shots
    }
    if isinstance(weights, Mapping):
        if sorted(weights) != sorted(data):
            given, known = ", ".join(sorted(weights)), ", ".join(sorted(data))
            raise FewShotError(f"mixture has weights for {given}; the sources are {known}.")
        weights = {name: weights[name.rpartition("/")[0]] for name in samplers}
    cards = card_names()
    keys = {
        f"{name}/{k}": f"{name if name in cards else dataset.fingerprint}/{k}"
        for name, dataset in data.items()
        for k in settings.k_shots
    }
    return Mixture(samplers, weights, temperature=temperature, seed=seed, keys=keys)


def _sampler(dataset: TaskDataset, settings: SamplerSettings, k: int, seed: int, usual: str) -> Any:
    name = settings.name or usual
    make = SAMPLERS.get(name)
    values: dict[str, Any] = {"k_shot": k, "n_query": settings.n_query, "seed": seed, **settings.options}
    if "n_way" in hints_of(make.config_class):
        enough = settings.n_way is None or settings.n_way <= len(dataset.label_names)
        values["n_way"] = settings.n_way if enough else None
        if not enough:
            logger.info(
                "%s has %d labels: its episodes are %d-way.", dataset.name, *[len(dataset.label_names)] * 2
            )
    try:
        return make(dataset, **values)
    except FewShotError as error:
        raise FewShotError(f"The source {dataset.name!r}: {error}") from None
