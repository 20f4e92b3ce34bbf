"""Settings from YAML files and from a command line, which names them by their path: ``--outer.steps=100``."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.settings import Settings, describe, takes_text

Kind = TypeVar("Kind", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML 1.2: 1e-3 is a number, and "no" a text (a language, for one), which YAML 1.1 has the other way round."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the parent
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":float"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


def load_yaml(text: str, where: str) -> Any:
    """What a YAML text says.

    Args:
        text: the text.
        where: what it is, for messages.

    Raises:
        FewShotError: it is not YAML.

    Examples:
        >>> load_yaml("[1e-3, no, true, 5]", "here")
        [0.001, 'no', True, 5]
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise FewShotError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        FewShotError: no such file, not YAML, or no mapping.
    """
    if not path.is_file():
        raise FewShotError(f"There is no file {str(path)!r}.")
    values = load_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise FewShotError(f"{path} holds {values!r}, but must hold settings: lines of name: value.")
    return values


def read_arguments(kind: type[Kind], arguments: Sequence[str], base: Mapping[str, Any] | None = None) -> Kind:
    """Settings from a command line; what comes later wins. ``--help`` prints what there is, and ends the program.

    Args:
        kind: the settings' class.
        arguments: ``--config file.yaml``, and ``--path.of.setting=value`` or two words, the value in YAML.
        base: settings that the arguments override.

    Raises:
        FewShotError: for all that is wrong, a line each.
    """
    values: dict[str, Any] = dict(base or {})
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            sys.stdout.write(overview(kind))
            raise SystemExit(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or rest):
            raise FewShotError(f"{word!r} is no setting; write --name=value. --help says which there are.")
        text = text if equals else rest.pop(0)
        if name == "config":
            values = merged(values, read_yaml(user_path(text)))
        else:
            value = text if takes_text(kind, name.split(".")) else load_yaml(text, f"--{name}")
            put(values, name, None if text == "null" else value)
    return kind.from_dict(values)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one, those within them too; the new one wins."""
    both = [key for key in new if isinstance(old.get(key), Mapping) and isinstance(new[key], Mapping)]
    return {**old, **new, **{key: merged(old[key], new[key]) for key in both}}


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Puts a value at its path ("outer.steps") into mappings within mappings, made where there are none.

    Raises:
        FewShotError: something on the way has no settings of its own.
    """
    *parents, last = path.split(".")
    at = values
    for depth, parent in enumerate(parents):
        if at.get(parent) is None:
            at[parent] = {}
        at = at[parent]
        if not isinstance(at, dict):
            raise FewShotError(f"{path!r}: {'.'.join(parents[: depth + 1])} has no settings of its own.")
    at[last] = value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their paths as mappings within mappings.

    Examples:
        >>> nested({"task": "ner", "outer.steps": 5, "outer.lr": 0.1})
        {'task': 'ner', 'outer': {'steps': 5, 'lr': 0.1}}
    """
    result: dict[str, Any] = {}
    for path, value in values.items():
        put(result, path, value)
    return result


def changed(settings: Kind, values: Mapping[str, Any]) -> Kind:
    """A copy of settings with other values at their paths; errors as for `put`, and for values that do not fit."""
    result = settings.to_dict()
    for path, value in values.items():
        put(result, path, value)
    return settings.from_dict(result)


def overview(kind: type[Settings]) -> str:
    """All settings of a class as text: path, values, default, and what each does."""
    lines = []
    for setting in describe(kind):
        default = "needed" if setting.required else f"default {setting.default!r}"
        lines.append(f"--{setting.name}  {setting.values}; {default}\n      {setting.about}\n")
    return "".join(lines)
