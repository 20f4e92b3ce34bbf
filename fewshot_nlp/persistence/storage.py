"""Model folders: ``fewshot_nlp.json`` says what was adapted, ``model.safetensors`` holds the tensors.

The encoder is named, not copied, where it is the bundled one or on the Hub; one that came from a folder, or
whose weights were trained, is copied into ``encoder/``. A folder may also have neither: who loads it says where its
encoder is, and the fingerprint says whether it is that one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.episode import Example, Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, Adapted, LearnerConfig
from fewshot_nlp.learners import learner_config as config_of
from fewshot_nlp.persistence.bounded import BoundedMemory, foreign
from fewshot_nlp.persistence.disk import atomic_folder, opened, user_path, write_tensors
from fewshot_nlp.persistence.encoder_files import (
    bytes_of_tensors,
    choose_layers,
    encoder_from_json,
    encoder_to_json,
    save_encoder,
)
from fewshot_nlp.persistence.model_files import (
    AGAIN,
    CONFIG,
    ENCODER,
    FORMAT,
    SUPPORT,
    TENSORS,
    check_shapes,
    config_text,
    read_config,
    read_support,
    read_tensors,
    sealed,
    support_to_json,
    tensor_shapes,
)
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.rows import Label
from fewshot_nlp.tasks import TASKS, Task
from fewshot_nlp.version import VERSION

Base = Literal["reference", "copy"]
"""What becomes of the encoder's weights when a model is saved."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a model folder holds.

    Args:
        pipeline: task and learner.
        model: what it is adapted to; None for a model that was only meta-trained.
        descriptions: words for labels.
        extra: whatever else was saved (measured scores, sources).
        examples: the support set, where it was saved.
        named: labels that were given with it.
    """

    pipeline: Pipeline
    model: TaskModel | None
    descriptions: dict[Label, str]
    extra: dict[str, Json]
    examples: list[Example]
    named: tuple[Label, ...]


def is_model_folder(folder: str | Path) -> bool:
    """Whether a folder was written by `save`."""
    return (user_path(folder) / CONFIG).is_file()


def save(
    folder: str | Path,
    pipeline: Pipeline,
    model: TaskModel | None = None,
    descriptions: Mapping[Label, str] | None = None,
    extra: Mapping[str, Json] | None = None,
    files: Mapping[str, str] | None = None,
    examples: Sequence[Example] | None = None,
    named: Sequence[Label] = (),
    half: bool = False,
    base: Base | None = None,
) -> Path:
    """Writes a model folder, whole or not at all; in an earlier one of the same name its files are replaced.

    Args:
        folder: where to; new, empty, or a model folder.
        pipeline: task and learner.
        model: what it is adapted to, if it is.
        descriptions: words for labels.
        extra: whatever else belongs to the model, as JSON.
        files: names of further text files to their contents, such as a model card.
        examples: the support set, for a learner that remembers it.
        named: labels that were given with the support set.
        half: adapter and learner as float16, at half the size; they are float32 again when loaded.
        base: "copy" the encoder's weights, or leave them out ("reference"); None copies what the Hub does not have.

    Raises:
        FewShotError: the folder is something else, or cannot be written (it stays as it was), or weights that were
            trained are to be left out.
    """
    folder = user_path(folder)
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not is_model_folder(target))):
        raise FewShotError(f"{folder} exists and is no model folder; name a new one, nothing was written.")
    encoder = pipeline.learner.encoder
    copied = _copied(encoder, base)
    tensors = _tensors(pipeline, model, half)
    config = _config(pipeline, model, tensors, descriptions, extra, encoder_to_json(encoder, copied))
    config_text(config)  # what is no JSON is told before anything is written
    texts = dict(files or {})
    if examples is not None:
        texts[SUPPORT] = support_to_json(examples, named)
    with atomic_folder(target, own=(CONFIG, TENSORS, SUPPORT, "README.md", ENCODER)) as new:
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        write_tensors(tensors, new / TENSORS)
        if copied:
            save_encoder(encoder, new / ENCODER)
        (new / CONFIG).write_text(config_text(sealed(config, new)), encoding="utf-8")
    return folder


def load(
    folder: str | Path,
    *,
    learner: str | None = None,
    learner_config: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
    **encoder_options: Any,
) -> Saved:
    """Reads a model folder; its encoder, names and settings are taken as claims, and checked before memory is taken.

    Args:
        folder: what `save` wrote.
        learner: another learner than the saved one, on the same encoder and adapter; for models that are not adapted.
        learner_config: settings of the learner that differ from the saved ones, or of the other learner.
        task_config: options of the task that differ.
        encoder_options: `dtype`, `device_map`, `attn_implementation` for the encoder, and `base`, its folder, where the
            model neither names nor holds it; `layers`, the layers whose output is read, frozen or trained ones, for
            models that are not adapted.

    Raises:
        FewShotError: a damaged or foreign folder, or an encoder that is not the one it was adapted on.
    """
    folder = user_path(folder)
    with opened(folder) as place:
        try:
            saved = _load(place, learner, learner_config, task_config, encoder_options)
        except FewShotError as error:
            raise FewShotError(_short(str(error).replace(str(place), str(folder)))) from error
        encoder = saved.pipeline.learner.encoder
        if encoder.name.startswith(str(place)):
            encoder.name = str(folder.resolve() / ENCODER)
    return saved


def _load(
    folder: Path,
    learner: str | None,
    learner_config: Mapping[str, Any] | None,
    task_config: Mapping[str, Any] | None,
    encoder_options: dict[str, Any],
) -> Saved:
    layers = encoder_options.pop("layers", None)
    fixed = sorted(set(encoder_options) - {"base", "dtype", "device_map", "attn_implementation"})
    if fixed:
        raise FewShotError(f"{folder} is a model with its own settings of the encoder; leave {fixed[0]} out.")
    config = read_config(folder / CONFIG)
    tensors = read_tensors(folder / TENSORS, config["tensors"])
    own = learner in (None, config["learner"])
    changed = layers is not None or not own or learner_config or task_config
    if config["labels"] is not None and changed:
        raise FewShotError(
            f"{folder} is adapted to {len(config['labels'])} labels by {config['learner']} on layers "
            f"{config['encoder'].get('layers')}; another learner, other layers or other settings need a model "
            "that is only meta-trained, or an encoder to adapt."
        )
    if layers is not None and own and any(name.startswith("learner.") for name in tensors):
        raise FewShotError(
            f"{folder} has a trained part of {config['learner']} that reads layers "
            f"{config['encoder'].get('layers')}; leave layers out, or name another learner."
        )
    encoder = encoder_from_json(
        TASKS.get(config["task"]).backbone, config["encoder"], folder, encoder_options
    )
    if isinstance(encoder.head, LabelNameHead):
        _copy(_under("head.", tensors), encoder.head.state_dict(), folder)
    if layers is not None:
        choose_layers(encoder, layers, folder)
    with BoundedMemory(folder, 8 * bytes_of_tensors(folder)):
        pipeline = new_pipeline(
            config["task"],
            {**config["task_options"], **(task_config or {})},
            encoder,
            learner or config["learner"],
            {**(config["learner_config"] if own else {}), **(learner_config or {})},
        )
    _copy(_under("encoder.", tensors), encoder.adapter, folder)
    if own:
        _copy(_under("learner.", tensors), pipeline.learner.state_dict(), folder)
    model = None
    if config["labels"] is not None:
        state = {name: tensor.to(encoder.device) for name, tensor in _under("state.", tensors).items()}
        with foreign(folder):
            adapted = Adapted(pipeline.learner, state)
        model = TaskModel(pipeline, tuple(config["labels"]), adapted, _under("decoding_parameters.", tensors))
        _try(model, folder)
    words = config["descriptions"]
    descriptions = {label: words[str(label)] for label in config["labels"] or words if str(label) in words}
    examples, named = read_support(folder / SUPPORT)
    return Saved(
        pipeline=pipeline,
        model=model,
        descriptions=descriptions,
        extra=config["extra"],
        examples=examples,
        named=named,
    )


def new_pipeline(
    task: str,
    task_options: Mapping[str, Any] | Task,
    encoder: Backbone,
    learner: str,
    learner_config: Mapping[str, Any] | LearnerConfig | None,
) -> Pipeline:
    """A pipeline from names and settings."""
    config = config_of(learner, learner_config or {}, "learner_config")
    kind = TASKS.get(task)
    made = task_options if isinstance(task_options, Task) else kind.from_dict(task_options, "task_config")
    made = made.bind(encoder.tokenizer)
    return Pipeline(made, LEARNERS.get(learner)(encoder, config))


def _tensors(pipeline: Pipeline, model: TaskModel | None, half: bool) -> dict[str, Tensor]:
    """All tensors of a model but the encoder's base weights, under names that say whose they are."""
    learner = pipeline.learner
    head = learner.encoder.head
    parts: dict[str, Mapping[str, Tensor]] = {
        "encoder": learner.encoder.adapter,
        "head": head.state_dict() if isinstance(head, LabelNameHead) else {},
        "learner": learner.state_dict(),
    }
    if half:
        parts = {part: {n: t.half() for n, t in tensors.items()} for part, tensors in parts.items()}
    if model is not None:
        parts |= {"state": model.adapted.state, "decoding_parameters": model.decoding_parameters}
    return {
        f"{part}.{name}": tensor.detach().cpu().contiguous().clone()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def _copied(encoder: Backbone, base: Base | None) -> bool:
    if base not in (None, *get_args(Base)):
        raise FewShotError(f"base is {base!r}, but must be one of: {', '.join(get_args(Base))}; or left out.")
    if base == "reference" and encoder.trained:
        raise FewShotError(
            f"The weights of {encoder.name} were trained, or are in memory only, so no folder has them; leave "
            "base='reference' out, and they are copied."
        )
    return base == "copy" or (base is None and encoder.public_name is None)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _config(
    pipeline: Pipeline,
    model: TaskModel | None,
    tensors: Mapping[str, Tensor],
    descriptions: Mapping[Label, str] | None,
    extra: Mapping[str, Json] | None,
    encoder: dict[str, Json],
) -> dict[str, Json]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": pipeline.task.name,
        "task_options": pipeline.task.to_dict(),
        "learner": pipeline.learner.name,
        "learner_config": pipeline.learner.config.to_dict(),
        "encoder": encoder,
        "labels": None if model is None else list(model.labels),
        "descriptions": {str(label): words for label, words in (descriptions or {}).items()},
        "extra": dict(extra or {}),
        "tensors": tensor_shapes(tensors),
    }


def _copy(given: Mapping[str, Tensor], into: Mapping[str, Tensor], folder: Path) -> None:
    check_shapes(tensor_shapes(given), tensor_shapes(into), folder)
    with torch.no_grad():
        for name, tensor in given.items():
            into[name].copy_(tensor)


@torch.no_grad()
def _try(model: TaskModel, folder: Path) -> None:
    """Predicts on an input of the task's own, so that a state that does not fit its labels is found at loading."""
    pipeline, task = model.pipeline, model.pipeline.task
    if task.has_labels and not model.labels:
        return
    queries = [task.query(value) for value in task.usage.inputs]
    with foreign(folder), BoundedMemory(folder, 8 * bytes_of_tensors(folder)):
        if pipeline.learner.encoder.vocabulary is not None:
            examples = [Example(query.inputs, task.abstained(())["target"]) for query in queries]
            tokenizer = pipeline.learner.encoder.tokenizer
            batch = task.collate(examples, model.labels, tokenizer, with_targets=True)
        else:
            batch = pipeline.queries(queries, model.labels)
        scores = model.adapted.scores(batch)
        if scores.shape != (batch.n_slots, batch.n_classes) or scores.isnan().any():
            raise FewShotError(
                f"{folder} is damaged: its state gives scores {list(scores.shape)}, of them "
                f"{int(scores.isnan().sum())} NaN, for {batch.n_slots} slots and {batch.n_classes} classes; {AGAIN}."
            )
        if pipeline.learner.encoder.vocabulary is None:
            task.decode(scores, batch, model.decoding_parameters)


def _short(message: str) -> str:
    """An error on one line of at most 300 characters; what is cut is its middle."""
    line = " ".join(message.split())
    return line if len(line) <= 300 else f"{line[:190]} ... {line[-100:]}"
