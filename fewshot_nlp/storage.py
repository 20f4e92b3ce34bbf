"""Model folders: ``fewshot_nlp.json`` says what was adapted, ``model.safetensors`` holds the tensors.

The encoder is named, not copied, where it is the bundled one or on the Hub; one that came from a folder, or
whose weights were trained, is copied into ``encoder/``.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.adapters import adapter_from_json, adapter_to_json
from fewshot_nlp.backbone.bundled import HUB_NAME, bundled_folder
from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, Adapted, Learner
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.tasks import TASKS

CONFIG = "fewshot_nlp.json"
TENSORS = "model.safetensors"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a model folder holds.

    Args:
        pipeline: task and learner.
        model: what it is adapted to; None for a model that was only meta-trained.
        descriptions: words for labels.
        extra: whatever else was saved (measured scores, sources).
    """

    pipeline: Pipeline
    model: TaskModel | None
    descriptions: dict[str, str]
    extra: dict[str, Json]


def is_model_folder(folder: str | Path) -> bool:
    """Whether a folder was written by `save`."""
    return (Path(folder) / CONFIG).is_file()


def save(
    folder: str | Path,
    pipeline: Pipeline,
    model: TaskModel | None = None,
    descriptions: Mapping[str, str] | None = None,
    extra: Mapping[str, Json] | None = None,
) -> Path:
    """Writes a model folder, whole or not at all: an earlier one of the same name is replaced at the end."""
    from safetensors.torch import save_file

    import fewshot_nlp

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not is_model_folder(folder))):
        raise FewShotError(f"{folder} exists and is no model folder; name a new one, nothing was written.")
    learner, encoder = pipeline.learner, pipeline.learner.encoder
    tensors = {f"encoder.{n}": p for n, p in encoder.adapter.items()}
    tensors |= {f"learner.{n}": p for n, p in learner.state_dict().items()}
    if model is not None:
        tensors |= {f"state.{n}": v for n, v in model.adapted.state.items()}
        tensors |= {f"rule.{n}": v for n, v in model.rule.items()}
    config = {
        "format": FORMAT,
        "version": fewshot_nlp.__version__,
        "task": pipeline.task.name,
        "task_options": pipeline.task.options,
        "learner": learner.name,
        "learner_config": learner.config.to_dict(),
        "encoder": _encoder_to_json(encoder),
        "labels": None if model is None else list(model.labels),
        "descriptions": dict(descriptions or {}),
        "extra": dict(extra or {}),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=folder.name + ".part", dir=folder.parent))
    except OSError as error:
        raise FewShotError(f"{folder} cannot be written: {error.strerror}.") from error
    try:
        (part / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, part / TENSORS)
        if config["encoder"]["name"] is None:  # type: ignore[index]
            _save_encoder(encoder, part / "encoder")
        part.chmod(0o755)
        if folder.exists():
            old = folder.with_name(folder.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old)
        else:
            part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FewShotError(f"{folder} cannot be written: {error.strerror}; nothing was changed.") from error
    return folder


def load(folder: str | Path, **encoder_options: Any) -> Saved:
    """Reads a model folder.

    Args:
        folder: what `save` wrote.
        encoder_options: `dtype`, `device_map`, `attn_implementation` for the encoder.

    Raises:
        FewShotError: a damaged or foreign folder, or an encoder that is not the one it was adapted on.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / TENSORS)
    encoder = _encoder_from_json(config["encoder"], folder, encoder_options)
    _copy(tensors, "encoder.", dict(encoder.adapter), folder)
    learner_class = LEARNERS.get(config["learner"])
    learner = learner_class(encoder, learner_class.config_class.from_dict(config["learner_config"]))
    _copy(tensors, "learner.", learner.state_dict(), folder)
    pipeline = Pipeline(TASKS.get(config["task"])(**config["task_options"]), learner)
    model = None
    if config["labels"] is not None:
        state = {n.removeprefix("state."): t.to(encoder.device) for n, t in tensors.items() if n.startswith("state.")}
        rule = {n.removeprefix("rule."): t for n, t in tensors.items() if n.startswith("rule.")}
        model = TaskModel(pipeline, tuple(config["labels"]), Adapted(learner, state), rule)
    return Saved(pipeline=pipeline, model=model, descriptions=config["descriptions"], extra=config["extra"])


def new_pipeline(
    task: str,
    task_options: Mapping[str, Any],
    encoder: Encoder,
    learner: str,
    learner_config: Mapping[str, Any] | None,
) -> Pipeline:
    """A pipeline from names and settings."""
    learner_class: type[Learner] = LEARNERS.get(learner)
    config = learner_class.config_class.from_dict(dict(learner_config or {}))
    try:
        made = TASKS.get(task)(**task_options)
    except TypeError as error:
        raise FewShotError(f"The task {task} has no such option: {str(error).split('argument')[-1].strip()}.") from error
    return Pipeline(made, learner_class(encoder, config))


def _encoder_to_json(encoder: Encoder) -> dict[str, Json]:
    bundled = bundled_folder()
    name: str | None = encoder.name
    if bundled is not None and name == str(bundled):
        name = HUB_NAME
    if name is not None and (encoder.trained or Path(name).exists()):
        name = None
    return {
        "name": name,
        "revision": encoder.revision,
        "fingerprint": encoder.fingerprint,
        "layers": list(encoder.layers),
        "pooling": encoder.pooling,
        "max_length": encoder.tokenizer.max_length,
        "adapter": None if encoder.adapter_config is None else adapter_to_json(encoder.adapter_config),
        "top_layers": encoder.top_layers,
    }


def _encoder_from_json(config: Mapping[str, Any], folder: Path, options: Mapping[str, Any]) -> Encoder:
    encoder = Encoder.from_pretrained(
        config["name"] or folder / "encoder",
        revision=config["revision"],
        layers=config["layers"],
        pooling=config["pooling"],
        max_length=config["max_length"],
        **options,
    )
    if options.get("dtype") in (None, torch.float32) and encoder.fingerprint != config["fingerprint"]:
        raise FewShotError(
            f"{folder} was adapted on an encoder with fingerprint {config['fingerprint'][:12]}..., but "
            f"{encoder.name} has {encoder.fingerprint[:12]}...: its weights have changed. Adapt again."
        )
    if config["adapter"] is not None:
        encoder.attach(adapter_from_json(config["adapter"]), config["top_layers"])
    return encoder


def _save_encoder(encoder: Encoder, folder: Path) -> None:
    """The base weights under the names that transformers knows, without the adapter's."""
    from safetensors.torch import save_file

    tensors = {
        name.replace(".base_layer.", "."): tensor.detach().cpu().contiguous()
        for name, tensor in encoder.model.state_dict().items()
        if name not in encoder.adapter
    }
    folder.mkdir()
    encoder.model.config.save_pretrained(folder)
    encoder.tokenizer.tokenizer.save_pretrained(folder)
    save_file({n: t.clone() for n, t in tensors.items()}, folder / TENSORS, metadata={"format": "pt"})


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FewShotError(f"{path.parent} is no model folder of this package: it has no {CONFIG}.")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        number = config["format"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise FewShotError(f"{path} is damaged ({type(error).__name__}); save the model again.") from error
    if number != FORMAT:
        raise FewShotError(f"{path} has format {number}, this version reads format {FORMAT}; upgrade fewshot-nlp.")
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".bin", ".pt", ".pkl", ".ckpt"))
        found = f" Pickles such as {pickles[0]} are refused: they can run code when loaded." if pickles else ""
        raise FewShotError(f"{path.parent} has no {TENSORS}.{found}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FewShotError(f"{path} is damaged ({str(error).split('.')[0]}); save or fetch the model again.") from error


def _copy(tensors: Mapping[str, Tensor], prefix: str, into: Mapping[str, Tensor], folder: Path) -> None:
    given = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if set(given) != set(into) or any(given[n].shape != into[n].shape for n in into):
        odd = sorted(set(given) ^ set(into)) or sorted(n for n in into if given[n].shape != into[n].shape)
        raise FewShotError(f"{folder / TENSORS} does not fit its {CONFIG}: {prefix}{odd[0]} differs.")
    with torch.no_grad():
        for name, tensor in given.items():
            into[name].copy_(tensor)
