"""Type checker for jaxtyping's import hook: array annotations alone are executed, mypy sees to the others."""

import inspect
from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

import beartype
from jaxtyping import AbstractArray


def _is_array(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return len(parts) < len(get_args(hint)) and len(parts) == 1 and _is_array(parts[0])
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arrays' shapes and dtypes checked at every call."""
    if inspect.isclass(function):
        return function
    every = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in every.items() if _is_array(hint)}
    checked: Callable[..., Any] = beartype.beartype(function) if function.__annotations__ else function
    function.__annotations__ = checked.__annotations__ = every
    return checked
