"""What `from_pretrained` finds: what ships, a model folder, or an encoder with the settings that suit its task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot_nlp.backbone import BACKBONES, Backbone
from fewshot_nlp.backbone.bundled import resolve, shipped_folder
from fewshot_nlp.backbone.objects import as_folder, name_of
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.hub import download_model_folder
from fewshot_nlp.persistence.storage import Saved, is_model_folder, load, new_pipeline
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tasks.defaults import Defaults


def load_parts(
    name: Any,
    task: str,
    choice: Mapping[str, Any],
    adapter: Any,
    top_layers: int | None,
    encoder_options: dict[str, Any],
) -> Saved:
    """The parts of a model.

    Args:
        name: as for `FewShotModel.from_pretrained`.
        task: name of the task; empty for the saved model's.
        choice: ``learner``, ``learner_config`` and ``task_config``, each None for the model's own or the default.
        adapter: a `peft.PeftConfig`, or None.
        top_layers: where it goes.
        encoder_options: of the backbone.

    Raises:
        FewShotError: as `FewShotModel.from_pretrained`.
    """
    kind = TASKS.get(task) if task else None
    if kind is not None and kind.ships and name is None and adapter is None:
        folder: Path | None = shipped_folder(kind.name)
    else:
        held = name is not None and not isinstance(name, str | Path)
        folder = None if held else _find_model_folder(name, encoder_options.get("revision"))
    if folder is not None:
        if adapter or top_layers:
            raise FewShotError(
                f"{name or 'What ships'} is a trained model, whose adapter cannot be chosen; leave adapter and "
                "top_layers out, or name an encoder."
            )
        encoder_options.pop("revision", None)
        saved = load(folder, **choice, **encoder_options)
        if task and task != saved.pipeline.task.name:
            raise FewShotError(f"{name} is a model for {saved.pipeline.task.name}, not for {task}.")
        return saved
    if "base" in encoder_options:
        raise FewShotError(
            f"base names the encoder of a saved model, but {name_of(name) if name else 'the default'} is an encoder "
            "itself; leave base out."
        )
    if kind is None:
        raise FewShotError(
            f"{'The bundled encoder' if name is None else name_of(name)} is an encoder, which any task can take; "
            f"pass task=. Known: {', '.join(TASKS.names())}."
        )
    learner = choice["learner"] or kind.default_learner
    usual = kind.defaults.get(learner, Defaults())
    learner_config = {
        **usual.learner,
        **(usual.bundled if name is None else {}),
        **(choice["learner_config"] or {}),
    }
    encoder = _backbone(kind.backbone, name, {**usual.encoder, **encoder_options})
    if adapter is not None:
        encoder.attach(adapter, top_layers)
    elif top_layers is not None:
        raise FewShotError("top_layers says where the adapter goes, but adapter is not given.")
    options = {**usual.task, **(choice["task_config"] or {})}
    pipeline = new_pipeline(kind.name, options, encoder, learner, learner_config)
    return Saved(pipeline=pipeline, model=None, descriptions={}, extra={}, examples=[], named=())


def _backbone(kind: str, name: Any, options: Mapping[str, Any]) -> Backbone:
    if name is None or isinstance(name, str | Path):
        found: Backbone = BACKBONES[kind].from_pretrained(name, **options)
        return found
    with as_folder(name) as folder:
        found = BACKBONES[kind].from_pretrained(folder, **options)
    found.name = name_of(name)
    found.mark_trained()  # its weights may be no others'
    return found


def _find_model_folder(name: str | Path | None, revision: str | None) -> Path | None:
    source = resolve(None if name is None else str(name))
    if Path(source).exists():
        return Path(source) if is_model_folder(source) else None
    return download_model_folder(source, revision)
