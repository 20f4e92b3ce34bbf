"""The files of a model folder, read with suspicion: every damage is one clear line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fewshot_nlp.episode import Example
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import first_line
from fewshot_nlp.rows import Label, as_label

CONFIG = "fewshot_nlp.json"
TENSORS = "model.safetensors"
SUPPORT = "support.json"
FORMAT = 1
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")

_FORM: dict[str, Any] = {
    "task": str,
    "task_options": dict,
    "learner": str,
    "learner_config": dict,
    "labels": list | None,
    "descriptions": dict,
    "extra": dict,
    "tensors": dict,
    "encoder": dict,
}
_ENCODER_FORM: dict[str, Any] = {
    "name": str | None,
    "revision": str | None,
    "fingerprint": str,
    "dtype": str,
    "adapter": dict | None,
    "top_layers": int | None,
    "depth": int | None,
    "head": dict | None,
}
"""The keys of a model folder's JSON and their types; the encoder has its own settings beside."""


def read_config(path: Path) -> dict[str, Any]:
    """The JSON of a model folder, its keys and their types checked."""
    if not path.is_file():
        raise FewShotError(f"{path.parent} is no model folder of this package: it has no {CONFIG}.")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        number = config["format"]
    except OSError as error:
        raise FewShotError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FewShotError(
            f"{path} is damaged ({type(error).__name__}); save the model again, or fetch it again."
        ) from error
    if number != FORMAT:
        raise FewShotError(
            f"{path} has format {number}, this version reads format {FORMAT}; load it with the version that wrote it."
        )
    check_form(config, _FORM, path)
    check_form(config["encoder"], _ENCODER_FORM, path)
    return config


def check_form(config: Mapping[str, Any], form: Mapping[str, Any], path: Path) -> None:
    """Some keys must be there, with values of the given types."""
    wrong = next(
        (key for key, kind in form.items() if key not in config or not isinstance(config[key], kind)), None
    )
    if wrong is not None:
        state = "missing" if wrong not in config else f"a {type(config[wrong]).__name__}"
        raise FewShotError(f"{path} is damaged: {wrong} is {state}; save the model again, or fetch it again.")


def read_tensors(path: Path, shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a model folder, which must be those that its JSON lists."""
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in PICKLES)
        found = (
            f" Pickles such as {pickles[0]} are refused: they can run code when loaded." if pickles else ""
        )
        raise FewShotError(f"{path.parent} has no {TENSORS}.{found} Save the model again, or fetch it again.")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FewShotError(
            f"{path} is damaged ({first_line(error)}); save the model again, or fetch it again."
        ) from error
    check_shapes(tensors, shapes, path.parent)
    return tensors


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Any], folder: Path) -> None:
    """Tensors must have the expected names and shapes."""
    found: dict[str, Any] = {name: list(tensor.shape) for name, tensor in tensors.items()}
    odd = sorted(set(found) ^ set(expected)) or sorted(n for n in expected if found[n] != expected[n])
    if odd:
        raise FewShotError(
            f"{folder / TENSORS} does not fit its {CONFIG}: the tensor {odd[0]} is "
            f"{found.get(odd[0], 'missing')}, but {expected.get(odd[0], 'none')} was expected; "
            "save the model again, or fetch it again."
        )


def support_to_json(examples: Sequence[Example], labels: Sequence[Label]) -> str:
    """The support set as the text of a file beside the model."""
    value = {"format": FORMAT, "labels": list(labels), "examples": [e.to_json() for e in examples]}
    return json.dumps(value) + "\n"


def read_support(path: Path) -> tuple[list[Example], tuple[Label, ...]]:
    """Examples and given labels that `support_to_json` wrote; none where there is no such file."""
    if not path.is_file():
        return [], ()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        number = value["format"]
        examples = [Example.from_json(row) for row in value["examples"]]
        labels = tuple(as_label(label, "a label") for label in value["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewShotError(
            f"{path} is damaged ({first_line(error) or type(error).__name__}); save the model again, or remove the "
            "file: the model then predicts, but cannot extend or explain what it remembers."
        ) from error
    if number != FORMAT:
        raise FewShotError(
            f"{path} has format {number}, this version reads format {FORMAT}; load it with the version that wrote it."
        )
    return examples, labels
