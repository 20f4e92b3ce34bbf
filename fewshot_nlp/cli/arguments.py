"""From what stands on the command line to what the package takes."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from fewshot_nlp.models.base import FewShotModel
    from fewshot_nlp.persistence.storage import Saved


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """``["a=1", "b=x"]`` as a dictionary.

    Raises:
        FewShotError: for a text without ``=``, and for a key given twice.
    """
    result: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise FewShotError(f"{option} takes name=value, but was given {text!r}.")
        if key in result:
            raise FewShotError(f"{option} names {key!r} twice: {result[key]!r} and {value!r}.")
        result[key] = value
    return result


def settings(texts: Iterable[str], option: str) -> dict[str, Any]:
    """As `pairs`, with values read as what they look like: 3, 0.5, true, null, a JSON list, or a text."""
    return {key: _value(text) for key, text in pairs(texts, option).items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        pass
    if text.lower() in ("none", "null"):
        return None
    try:  # 5e-4 is JSON, but .5 is not
        return float(text)
    except ValueError:
        return text


def n_way(text: str | None) -> int | None:
    """A number of labels; None for "all".

    Raises:
        FewShotError: for anything else.
    """
    if text is None or text == "all":
        return None
    if not re.fullmatch(r"[1-9]\d*", text):
        raise FewShotError(f"--n-way is {text!r}, but must be a whole number of at least 1, or 'all'.")
    return int(text)


def read_labels(path: Path, task: str) -> list[str] | dict[str, str]:
    """Label names, or names with descriptions, from YAML or JSON.

    Args:
        path: a list of names; a mapping of names to descriptions (null for none); or a mapping of tasks to
            one of these.
        task: the task to take from a mapping of tasks.

    Raises:
        FewShotError: no such file, not YAML, or neither of these forms.
    """
    import yaml

    if not path.is_file():
        raise FewShotError(f"There is no file of labels at {path}.")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FewShotError(f"{path} is neither YAML nor JSON: {error}") from error
    if isinstance(value, dict) and task in value and isinstance(value[task], dict | list):
        value = value[task]
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return value
    if isinstance(value, dict) and value:
        words = {name: text or "" for name, text in value.items()}
        if all(isinstance(t, str) for pair in words.items() for t in pair):
            return words
    raise FewShotError(f"{path} must hold a list of label names, or a mapping of names to descriptions.")


def facade(task: str) -> "type[FewShotModel]":
    """The model class of a task.

    Raises:
        FewShotError: for an unknown task, naming the nearest.
    """
    from fewshot_nlp import models
    from fewshot_nlp.registry import Registry

    known: Registry[type[FewShotModel]] = Registry("task", "fewshot_nlp.models")
    for name in models.__all__:
        kind = getattr(models, name)
        known.register(kind.task_name)(kind)
    return known.get(task)


def load_model(name: str) -> "FewShotModel":
    """A model that was saved, whatever its task; argument and errors as for `load_saved`."""
    saved = load_saved(name)
    kind = facade(saved.pipeline.task.name)
    return kind(saved.pipeline, model=saved.model, descriptions=saved.descriptions, extra=saved.extra)


def load_saved(name: str) -> "Saved":
    """What a model folder holds.

    Args:
        name: a folder, or "user/name" on the Hub.

    Raises:
        FewShotError: there is none, or it is damaged.
    """
    from fewshot_nlp.persistence.hub import download_model_folder
    from fewshot_nlp.persistence.storage import load

    folder = Path(name)
    if not folder.exists():
        on_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not folder.parent.is_dir()
        fetched = download_model_folder(name) if on_hub else None
        if fetched is None:
            also = ", nor a model of this package on the Hub" if on_hub else ""
            raise FewShotError(f"There is no model folder {name!r} (looked for {folder.absolute()}){also}.")
        folder = fetched
    return load(folder)
