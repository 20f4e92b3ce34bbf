"""Model folders: ``fewshot_nlp.json`` says what was adapted, ``model.safetensors`` holds the tensors.

The encoder is named, not copied, where it is the bundled one or on the Hub; one that came from a folder, or
whose weights were trained, is copied into ``encoder/``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fewshot_nlp.backbone import BACKBONES, Backbone
from fewshot_nlp.backbone.adapters import adapter_from_json, adapter_to_json
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.episode import Example, Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, Adapted, LearnerConfig
from fewshot_nlp.learners import learner_config as config_of
from fewshot_nlp.persistence.disk import atomic_folder, first_line, opened, user_path
from fewshot_nlp.persistence.model_files import (
    CONFIG,
    FORMAT,
    SUPPORT,
    TENSORS,
    check_form,
    check_shapes,
    read_config,
    read_support,
    read_tensors,
    support_to_json,
)
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.rows import Label
from fewshot_nlp.tasks import TASKS, Task

# A plain import of the package would count, for import-linter, as one of all that it names.
VERSION: str = import_module("fewshot_nlp").__version__


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

    Raises:
        FewShotError: the folder is something else, or cannot be written; it stays as it was.
    """
    folder = user_path(folder)
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not is_model_folder(target))):
        raise FewShotError(f"{folder} exists and is no model folder; name a new one, nothing was written.")
    tensors = _tensors(pipeline, model, half)
    texts = {CONFIG: _config(pipeline, model, tensors, descriptions, extra), **(files or {})}
    if examples is not None:
        texts[SUPPORT] = support_to_json(examples, named)
    with atomic_folder(target, own=(CONFIG, TENSORS, SUPPORT, "README.md", "encoder")) as new:
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        save_file(tensors, new / TENSORS)
        if pipeline.learner.encoder.public_name is None:
            _save_encoder(pipeline.learner.encoder, new / "encoder")
    return folder


def load(
    folder: str | Path,
    *,
    learner: str | None = None,
    learner_config: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
    **encoder_options: Any,
) -> Saved:
    """Reads a model folder.

    Args:
        folder: what `save` wrote.
        learner: another learner than the saved one, on the same encoder and adapter; for models that are not adapted.
        learner_config: settings of the learner that differ from the saved ones, or of the other learner.
        task_config: options of the task that differ.
        encoder_options: `dtype`, `device_map`, `attn_implementation` for the encoder, and `layers`, the layers whose
            output is read, frozen or trained ones; for models that are not adapted.

    Raises:
        FewShotError: a damaged or foreign folder, or an encoder that is not the one it was adapted on.
    """
    folder = user_path(folder)
    with opened(folder) as place:
        try:
            saved = _load(place, learner, learner_config, task_config, encoder_options)
        except FewShotError as error:
            raise FewShotError(str(error).replace(str(place), str(folder))) from error
        encoder = saved.pipeline.learner.encoder
        if encoder.name.startswith(str(place)):
            encoder.name = str(folder.resolve() / "encoder")
    return saved


def _load(
    folder: Path,
    learner: str | None,
    learner_config: Mapping[str, Any] | None,
    task_config: Mapping[str, Any] | None,
    encoder_options: dict[str, Any],
) -> Saved:
    layers = encoder_options.pop("layers", None)
    fixed = sorted(set(encoder_options) - {"dtype", "device_map", "attn_implementation"})
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
    encoder = _encoder_from_json(config["task"], config["encoder"], folder, encoder_options)
    if config["encoder"]["head"] is not None:
        encoder.head = head = _head_from_json(config["encoder"]["head"], encoder, folder)
        _copy(_under("head.", tensors), head.state_dict(), folder)
    if layers is not None:
        _choose_layers(encoder, layers, folder)
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
        adapted = Adapted(pipeline.learner, state)
        model = TaskModel(pipeline, tuple(config["labels"]), adapted, _under("decoding_parameters.", tensors))
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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _config(
    pipeline: Pipeline,
    model: TaskModel | None,
    tensors: Mapping[str, Tensor],
    descriptions: Mapping[Label, str] | None,
    extra: Mapping[str, Json] | None,
) -> str:
    config = {
        "format": FORMAT,
        "version": VERSION,
        "task": pipeline.task.name,
        "task_options": pipeline.task.to_dict(),
        "learner": pipeline.learner.name,
        "learner_config": pipeline.learner.config.to_dict(),
        "encoder": _encoder_to_json(pipeline.learner.encoder),
        "labels": None if model is None else list(model.labels),
        "descriptions": {str(label): words for label, words in (descriptions or {}).items()},
        "extra": dict(extra or {}),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }
    try:
        return json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise FewShotError(
            f"The model has settings that are no JSON: {error}. Give plain Python values."
        ) from error


def _encoder_to_json(encoder: Backbone) -> dict[str, Json]:
    name = encoder.public_name
    return {
        "name": name,
        "revision": None if name is None else encoder.revision,
        "fingerprint": encoder.fingerprint,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        **encoder.settings,
        "adapter": None if encoder.adapter_config is None else adapter_to_json(encoder.adapter_config),
        "top_layers": encoder.top_layers,
        "depth": int(encoder.model.config.num_hidden_layers) if "layers" in encoder.settings else None,
        "head": encoder.head.settings if isinstance(encoder.head, LabelNameHead) else None,
    }


def _head_from_json(values: Mapping[str, Any], encoder: Backbone, folder: Path) -> LabelNameHead:
    check_form(values, {"layer": int, "width": int}, folder / CONFIG)
    n_layers = int(encoder.model.config.num_hidden_layers)
    if not (1 <= values["layer"] <= n_layers and 1 <= values["width"] <= 1 << 16):
        raise FewShotError(
            f"{folder / CONFIG} is damaged: its head reads layer {values['layer']} in width {values['width']}, but the "
            f"encoder has {n_layers} layers; save the model again, or fetch it again."
        )
    return (
        LabelNameHead(int(encoder.model.config.hidden_size), **values)
        .requires_grad_(False)
        .to(encoder.device, encoder.feature_dtype)
    )


def _choose_layers(encoder: Backbone, layers: Any, folder: Path) -> None:
    choose = getattr(encoder, "choose_layers", None)
    if choose is None:
        raise FewShotError(
            f"{folder} holds a sequence-to-sequence model, whose layers cannot be chosen; leave layers out."
        )
    choose(layers)


def _encoder_from_json(
    task: str, config: Mapping[str, Any], folder: Path, options: Mapping[str, Any]
) -> Backbone:
    saved_dtype = getattr(torch, config["dtype"], None)
    dtype = options.get("dtype") or saved_dtype
    fixed = ("name", "revision", "fingerprint", "dtype", "adapter", "top_layers", "depth", "head")
    settings = {key: value for key, value in config.items() if key not in fixed}
    backbone = BACKBONES[TASKS.get(task).backbone]
    check_form(config, backbone.setting_types, folder / CONFIG)
    view = settings.get("layers")
    if view is not None and config["depth"] is not None:  # all layers that were there, whichever are read
        settings["layers"] = [config["depth"]]
    encoder: Backbone = backbone.from_pretrained(
        config["name"] or folder / "encoder",
        revision=config["revision"],
        **{**settings, **options, "dtype": dtype},
    )
    if view is not None:
        _choose_layers(encoder, view, folder)
    if encoder.model.dtype == saved_dtype and encoder.fingerprint != config["fingerprint"]:
        raise FewShotError(
            f"{folder} was adapted on an encoder with fingerprint {config['fingerprint'][:12]}..., but "
            f"{encoder.name} has {encoder.fingerprint[:12]}...: its weights have changed. Adapt again."
        )
    if config["adapter"] is not None:
        try:
            adapter = adapter_from_json(config["adapter"])
        except (TypeError, ValueError, KeyError) as error:
            raise FewShotError(
                f"{folder / CONFIG} has an adapter that this version of peft does not know "
                f"({first_line(error)}); upgrade peft."
            ) from error
        encoder.attach(adapter, config["top_layers"])
    return encoder


def _save_encoder(encoder: Backbone, folder: Path) -> None:
    """The base weights under the names that transformers knows, without the adapter's; tied ones once."""
    shared = {name for name, _ in encoder.model.named_parameters(remove_duplicate=False)} - set(
        encoder.parameters()
    )
    tensors = {
        name.replace(".base_layer.", "."): tensor.detach().cpu().contiguous()
        for name, tensor in encoder.model.state_dict().items()
        if name not in encoder.adapter and name not in shared
    }
    folder.mkdir()
    encoder.model.config.save_pretrained(folder)
    if encoder.vocabulary is not None:
        encoder.model.generation_config.save_pretrained(folder)
    encoder.tokenizer.tokenizer.save_pretrained(folder)
    save_file({n: t.clone() for n, t in tensors.items()}, folder / TENSORS, metadata={"format": "pt"})


def _copy(given: Mapping[str, Tensor], into: Mapping[str, Tensor], folder: Path) -> None:
    check_shapes(given, {name: list(tensor.shape) for name, tensor in into.items()}, folder)
    with torch.no_grad():
        for name, tensor in given.items():
            into[name].copy_(tensor)
