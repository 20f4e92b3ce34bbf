"""Settings are declared once: fields of a class, with their bounds in the annotations.

The declaration checks values (strictly: no text for a number, no 2.0 for a whole number), reads YAML and JSON, and
describes itself. All that is wrong is told at once, a line each, with path, value and bounds.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from re import MULTILINE, findall
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from fewshot_nlp.errors import FewShotError, did_you_mean

T = TypeVar("T")

Share = Annotated[float, Field(ge=0, le=1)]
"""A probability, or a part of a whole."""
LearningRate = Annotated[float, Field(ge=1e-9, le=10)]
Scale = Annotated[float, Field(ge=1e-3, le=1e3)]
WeightDecay = Annotated[float, Field(ge=0, le=10)]
GradientNorm = Annotated[float, Field(ge=1e-6, le=1e6)]
Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Seed = Annotated[int, Field(ge=0)]
Several = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple, for which YAML and JSON have a list."""

Path = tuple[str | int, ...]
UNKNOWN = ("unexpected_keyword_argument", "no_such_attribute")
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class SettingsError(FewShotError):
    """What is wrong with settings, one line each.

    Args:
        problems: where in the settings, and what to say of it: " is 0, but must be above 0." or, of several settings
            together, ": low is above high."
        owner: name of the class, which stands for an empty path.
    """

    def __init__(self, problems: list[tuple[Path, str]], owner: str) -> None:
        lines = [(".".join(map(str, path)) or owner) + text for path, text in problems]
        super().__init__("\n".join(line.removeprefix(f"{owner}: ") for line in lines))
        self.problems = problems


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
class Settings:
    """Base of all settings: a subclass is a frozen dataclass whose values are checked; see the module.

    A rule between fields is a method under ``pydantic.model_validator(mode="after")`` that raises a `FewShotError`.

    Raises:
        SettingsError: values out of their bounds or of another type, and unknown settings: all of them at once.

    Examples:
        >>> class Steps(Settings):
        ...     number: Annotated[int, Field(ge=1, le=1000)] = 5
        >>> Steps(number=3)
        Steps(number=3)
        >>> Steps(number=2.5)
        Traceback (most recent call last):
        fewshot_nlp.settings.SettingsError: number is 2.5, but must be a whole number from 1 to 1000.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(cls, frozen=True, kw_only=True, config=STRICT)
        check = cls.__init__

        def init(self: Settings, **values: Any) -> None:
            try:
                check(self, **values)
            except ValidationError as error:
                raise SettingsError(list(_problems(cls, values, error)), cls.__name__) from None

        setattr(cls, "__init__", init)  # noqa: B010 - type checkers take the signature from the fields

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        schema: Any = handler(source)
        inner = schema
        while inner["type"] != "dataclass":
            inner = inner["schema"]
        inner["strict"] = False  # where it is a field, a mapping will do; its own fields stay strict
        return schema

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str = "") -> Self:
        """The settings of a mapping, as YAML and JSON give it.

        Args:
            values: names to values.
            path: where the mapping stands, for messages ("learner_config").
        """
        if not isinstance(values, Mapping):
            raise FewShotError(f"{path or cls.__name__} is {values!r}, but must be a mapping with settings.")
        try:
            return cls(**{str(key): value for key, value in values.items()})
        except SettingsError as error:
            raise SettingsError(_below((path,) if path else (), error), cls.__name__) from None

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return {key: _json(value) for key, value in dataclasses.asdict(self).items()}  # type: ignore[call-overload]


def check(name: str, value: Any, hint: Any) -> None:
    """Checks one value, an argument of a function for example, as a setting of this annotation would be.

    Raises:
        FewShotError: the value does not fit.

    Examples:
        >>> check("shared", "all", Literal["restrict", "drop"])
        Traceback (most recent call last):
        fewshot_nlp.errors.FewShotError: shared is 'all', but must be one of: restrict, drop.
    """
    try:
        TypeAdapter(hint, config=STRICT).validate_python(value)
    except ValidationError:
        raise FewShotError(f"{name} is {_shown(value)}, but must be {in_words(hint)}.") from None


class Setting(NamedTuple):
    """A setting, described for people.

    Args:
        name: its path ("outer.steps").
        values: what it may be, in words ("a whole number from 1 to 1000").
        default: its default; `dataclasses.MISSING` where it must be given.
        about: what it does.
    """

    name: str
    values: str
    default: Any
    about: str

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is dataclasses.MISSING


def describe(kind: type[Settings], prefix: str = "") -> list[Setting]:
    """All settings of a class, nested ones by their path, in the order of their declaration.

    Examples:
        >>> class Steps(Settings):
        ...     '''How many steps.
        ...
        ...     Args:
        ...         number: of steps.
        ...     '''
        ...     number: Annotated[int, Field(ge=1)] = 5
        >>> describe(Steps)
        [Setting(name='number', values='a whole number of at least 1', default=5, about='of steps.')]
    """
    result = []
    about, hints = _about(kind), hints_of(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint, name = hints[field.name], prefix + field.name
        if is_settings(hint):
            result += describe(hint, name + ".")
            continue
        make = field.default_factory
        default = field.default if make is dataclasses.MISSING else make()
        result.append(Setting(name, in_words(hint), default, about.get(field.name, "")))
    return result


def hints_of(kind: type[Settings]) -> dict[str, Any]:
    """The annotations of a class's fields, bounds included."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if ClassVar not in (hint, get_origin(hint))}


def takes_text(kind: type[Settings], path: list[str]) -> bool:
    """Whether the setting at a path is a text, whatever it looks like (a folder named "2024")."""
    _, found, hint, _ = _walk(kind, None, tuple(path))
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return len(found) == len(path) and set(members) <= {str, NoneType}


def is_settings(hint: Any) -> bool:
    """Whether an annotation is a class of settings."""
    return isinstance(hint, type) and issubclass(hint, Settings)


def in_words(hint: Any) -> str:
    """What values an annotation allows.

    Examples:
        >>> in_words(Share | None)
        'a number from 0 to 1, or None'
        >>> in_words(Several[Annotated[int, Field(ge=1)]])
        'a list, each item a whole number of at least 1'
    """
    told = [field.description for field in get_args(hint)[1:] if isinstance(field, FieldInfo)]
    if told and told[0]:
        return told[0]
    hint, bounds = _bare(hint)
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        *others, last = sorted(get_args(hint), key=lambda member: member is NoneType)
        return ", or ".join((", ".join(map(in_words, others)), in_words(last)))
    if origin is Literal:
        return "one of: " + ", ".join(map(str, get_args(hint)))
    if origin is tuple:
        return "a list" + _range(bounds) + ", each item " + in_words(get_args(hint)[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = get_args(hint)[1]
        return "a mapping" + _range(bounds) + ("" if value is Any else ", each value " + in_words(value))
    if is_settings(hint):
        return "settings" + (": " + ", ".join(hints_of(hint)) if hints_of(hint) else "")
    words = {bool: "true or false", str: "a text", NoneType: "None", int: "a whole number", float: "a number"}
    return words.get(hint, "a function" if callable(hint) else str(hint)) + _range(bounds)


def _bare(hint: Any) -> tuple[Any, list[Any]]:
    """An annotation without its bounds, and these."""
    if get_origin(hint) is not Annotated:
        return hint, []
    inner, *given = get_args(hint)
    return inner, [bound for field in given if isinstance(field, FieldInfo) for bound in field.metadata]


def _range(bounds: list[Any]) -> str:
    keys = ("min_length", "ge", "gt", "le", "lt")
    match {key: f"{getattr(bound, key):g}" for bound in bounds for key in keys if hasattr(bound, key)}:
        case {"min_length": _}:
            return " that is not empty"
        case {"ge": low, "le": high}:
            return f" from {low} to {high}"
        case {"ge": low, "lt": high}:
            return f" from {low} to below {high}"
        case {"gt": low, "le": high}:
            return f" above {low}, up to {high}"
        case {"gt": low, "lt": high}:
            return f" above {low} and below {high}"
        case {"ge": low}:
            return f" of at least {low}"
        case {"gt": low}:
            return f" above {low}"
        case {"le": high}:
            return f" of at most {high}"
    return ""


def _problems(kind: type[Settings], values: Any, error: ValidationError) -> Iterator[tuple[Path, str]]:
    """What pydantic found, in our words; of the members of a union the first stands for all."""
    seen: set[Path] = set()
    for found in error.errors(include_url=False):
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError):
            yield from _below(found["loc"], cause)
            continue
        owner, path, hint, value = _walk(kind, values, found["loc"])
        if any(told[: len(path)] == path for told in seen):  # an item's error makes the whole too short
            continue
        seen.add(path)
        if found["type"] in UNKNOWN:
            known = list(hints_of(owner))
            hint_text = did_you_mean(path[-1], known)
            yield path[:-1], f" has no setting {path[-1]!r}.{hint_text} It has: {', '.join(known) or 'none'}."
        elif found["type"] in MISSING:
            yield path, f" is missing; it must be {in_words(hint)}."
        elif cause is not None:
            yield path, f": {cause}"
        else:
            yield path, f" is {_shown(value)}, but must be {in_words(hint)}."


def _below(path: Path, error: SettingsError) -> list[tuple[Path, str]]:
    return [((*path, *inner), text) for inner, text in error.problems]


def _walk(kind: type[Settings], values: Any, steps: Path) -> tuple[type[Settings], Path, Any, Any]:
    """Follows a place into the settings; stops at a union, whose members have no name in a user's file.

    Returns:
        The settings class that the place belongs to, its path, annotation and value.
    """
    owner, hint, done = kind, kind, 0
    for step in steps:
        hint, _ = _bare(hint)
        members = [member for member in get_args(hint) if member is not NoneType]
        if get_origin(hint) in (Union, UnionType) and len(members) == 1:
            hint, _ = _bare(members[0])
        if is_settings(hint):
            owner = hint
            hint = hints_of(hint).get(str(step), Any)
        elif get_origin(hint) is tuple:
            hint = get_args(hint)[0]
        elif isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
            hint = get_args(hint)[1]
        else:
            break
        try:
            values = getattr(values, str(step)) if isinstance(values, Settings) else values[step]
        except (KeyError, IndexError, TypeError):
            values = None
        done += 1
    return owner, steps[:done], hint, values


def _about(kind: type[Settings]) -> dict[str, str]:
    """What the docstrings of a class and its parents say of each setting, under "Args:"."""
    result: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        _, _, text = cleandoc(owner.__dict__.get("__doc__") or "").partition("Args:\n")
        for names, words in findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", text.partition("\n\n")[0], MULTILINE):
            result[names] = " ".join(words.split())
    return result


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return [_json(item) for item in value] if isinstance(value, list | tuple) else value
