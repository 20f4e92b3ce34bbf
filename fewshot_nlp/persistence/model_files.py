"""The files of a model folder, read with suspicion: every damage is one clear line.

A folder is sealed: its JSON holds the SHA-256 of each file that is read, and of its own values. So a folder that was
damaged or edited is refused. A seal is no signature: whoever makes a folder can seal it, so what a sealed one asks for
is checked as well, before memory is taken.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot_nlp.episode import Example, Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import first_line
from fewshot_nlp.rows import Label, as_label

CONFIG = "fewshot_nlp.json"
TENSORS = "model.safetensors"
SUPPORT = "support.json"
ENCODER = "encoder"
FORMAT = 1
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
JSON_BYTES = 1 << 26
"""Largest size of a JSON file."""
NESTING = 64
"""Deepest nesting of its values."""
AGAIN = "save the model again, or fetch it again"
MAY_BE_INFINITE = "decoding_parameters."
"""Tensors with infinite values: a transition that cannot be, a threshold that nothing reaches."""

_FORM: dict[str, Any] = {
    "format": int,
    "version": str,
    "task": str,
    "task_options": dict,
    "learner": str,
    "learner_config": dict,
    "labels": list | None,
    "descriptions": dict,
    "extra": dict,
    "tensors": dict,
    "encoder": dict,
    "files": dict,
    "sha256": str,
}
"""The keys of a model folder's JSON and their types."""


def read_config(path: Path) -> dict[str, Any]:
    """The JSON of a model folder: its keys, their types and the seal checked.

    Raises:
        FewShotError: it is damaged, or it or a file beside it is not what was saved.
    """
    if not path.is_file():
        raise FewShotError(f"{path.parent} is no model folder of this package: it has no {CONFIG}.")
    config = read_json(path)
    number = config.get("format") if isinstance(config, dict) else None
    if type(number) is not int:
        raise FewShotError(f"{path} is damaged (it has no format); {AGAIN}.")
    if number != FORMAT:
        raise FewShotError(
            f"{path} has format {number}, this version reads format {FORMAT}; load it with the version that wrote it."
        )
    check_form(config, _FORM, path)
    labels = [as_label(label, "a label") for label in config["labels"] or ()]
    if len(set(labels)) < len(labels):
        raise FewShotError(f"{path} is damaged: a label is there twice; {AGAIN}.")
    if not all(isinstance(words, str) for words in config["descriptions"].values()):
        raise FewShotError(f"{path} is damaged: a description is no text; {AGAIN}.")
    _check_seal(config, path)
    return dict(config)


def read_json(path: Path) -> Any:
    """The value of a JSON file, of at most `JSON_BYTES` bytes and `NESTING` levels."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES + 1)
        if len(data) > JSON_BYTES:
            raise FewShotError(f"{path} is damaged: it has over {JSON_BYTES >> 20} MiB; {AGAIN}.")
        value = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise FewShotError(f"{path} cannot be read: {error.strerror}.") from error
    except FewShotError:
        raise
    except (ValueError, RecursionError) as error:
        raise FewShotError(f"{path} is damaged ({type(error).__name__}); {AGAIN}.") from error
    level = [value]
    for _ in range(NESTING):
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [item for items in inner for item in items]
    if level:
        raise FewShotError(f"{path} is damaged: it is nested over {NESTING} levels; {AGAIN}.")
    return value


def check_form(config: Mapping[str, Any], form: Mapping[str, Any], path: Path) -> None:
    """The keys must be those of a form, with values of the given types."""
    for key, kind in form.items():
        value = config.get(key)
        if key not in config or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            state = "missing" if key not in config else f"a {type(value).__name__}"
            raise FewShotError(f"{path} is damaged: {key} is {state}; {AGAIN}.")
    odd = next((key for key in config if key not in form), None)
    if odd is not None:
        raise FewShotError(f"{path} is damaged: it has an unknown key, {odd[:40]!r}; {AGAIN}.")


def sealed(config: Mapping[str, Json], folder: Path) -> dict[str, Json]:
    """The JSON's values with the SHA-256 of the folder's files, and of these values."""
    values = {key: value for key, value in config.items() if key not in ("files", "sha256")}
    values["files"] = {name: _digest(folder / name) for name in _files(folder)}
    return values | {"sha256": sha256(canonical_json(values))}


def config_text(config: Mapping[str, Json]) -> str:
    """The text of a JSON file of a model folder.

    Raises:
        FewShotError: values that are no JSON, or more than `read_json` reads.
    """
    try:
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise FewShotError(
            f"The model has settings that are no JSON: {error}. Give plain Python values."
        ) from error
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):  # no UTF-8 of their own
        text = json.dumps(config, indent=1) + "\n"
    if len(text.encode()) > JSON_BYTES:
        raise FewShotError(
            f"The model's JSON has over {JSON_BYTES >> 20} MiB; take what is long out of extra."
        )
    return text


def seal(folder: Path) -> None:
    """Seals a folder again whose files or JSON were changed by hand.

    Raises:
        FewShotError: the folder has no JSON that can be read.
    """
    config = sealed(read_json(folder / CONFIG), folder)
    (folder / CONFIG).write_text(config_text(config), encoding="utf-8")


def _files(folder: Path) -> list[str]:
    """The files that loading reads, beside the JSON; hidden ones are not read."""
    encoder = (path for path in (folder / ENCODER).rglob("*") if not path.name.startswith("."))
    paths = (folder / TENSORS, folder / SUPPORT, *encoder)
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_seal(config: Mapping[str, Any], path: Path) -> None:
    folder, saved, found = path.parent, config["files"], _files(path.parent)
    if config["sha256"] != sha256(canonical_json({k: v for k, v in config.items() if k != "sha256"})):
        raise FewShotError(f"{path} is damaged: its values are not those that were saved; {AGAIN}.")
    for name in (TENSORS, *saved):
        if name not in found and name != SUPPORT:  # without it a model predicts, but cannot explain or extend
            where = (folder / name).parent
            pickles = sorted(p.name for p in where.glob("*") if p.suffix in PICKLES)
            told = (
                f" Pickles such as {pickles[0]} are refused: they can run code when loaded."
                if pickles
                else ""
            )
            raise FewShotError(f"{folder} has no {name[:80]}.{told} {AGAIN[0].upper()}{AGAIN[1:]}.")
    for name in found:
        # An adapter's configuration would name another model to load.
        if name not in saved or name == f"{ENCODER}/adapter_config.json":
            raise FewShotError(
                f"{folder} has a file {name[:80]} that is not the model's; remove it, or {AGAIN}."
            )
        if _digest(folder / name) != saved[name]:
            raise FewShotError(
                f"{folder / name} is damaged (its SHA-256 is not the one that was saved); {AGAIN}."
            )


def read_tensors(path: Path, shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a model folder, which must be those that its JSON lists, without NaN."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            check_shapes(
                {name: list(file.get_slice(name).get_shape()) for name in names}, shapes, path.parent
            )
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise FewShotError(f"{path} is damaged ({first_line(error)}); {AGAIN}.") from error
    for name, tensor in tensors.items():
        sound = ~tensor.isnan() if name.startswith(MAY_BE_INFINITE) else tensor.isfinite()
        if not bool(torch.all(sound)):
            raise FewShotError(f"{path} is damaged: {name} has values that are no numbers; {AGAIN}.")
    return tensors


def tensor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Json]:
    """Shapes of tensors by name."""
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def check_shapes(found: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Tensors must have the expected names and shapes."""
    odd = sorted(set(found) ^ set(expected)) or sorted(n for n in expected if found[n] != expected[n])
    if odd:
        raise FewShotError(
            f"{folder / TENSORS} does not fit its {CONFIG}: the tensor {odd[0]} is "
            f"{found.get(odd[0], 'missing')}, but {expected.get(odd[0], 'none')} was expected; {AGAIN}."
        )


def support_to_json(examples: Sequence[Example], labels: Sequence[Label]) -> str:
    """The support set as the text of a file beside the model."""
    value = {"format": FORMAT, "labels": list(labels), "examples": [e.to_json() for e in examples]}
    return json.dumps(value) + "\n"


def read_support(path: Path) -> tuple[list[Example], tuple[Label, ...]]:
    """Examples and given labels that `support_to_json` wrote; none where there is no such file."""
    if not path.is_file():
        return [], ()
    value = read_json(path)
    try:
        number = value["format"]
        examples = [Example.from_json(row) for row in value["examples"]]
        labels = tuple(as_label(label, "a label") for label in value["labels"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FewShotError(
            f"{path} is damaged ({first_line(error) or type(error).__name__}); {AGAIN}."
        ) from error
    if number != FORMAT:
        raise FewShotError(
            f"{path} has format {number}, this version reads format {FORMAT}; load it with the version that wrote it."
        )
    return examples, labels
