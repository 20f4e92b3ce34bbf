"""What jaxtyping's import hook puts around functions: array annotations alone are executed, mypy sees to the others.

jaxtyping's own wrapper binds the arguments of every function and checks parameters twice, a third of the tests' time.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from types import UnionType
from typing import Any, Union, get_args, get_origin

import beartype
import jaxtyping
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import AbstractArray, TypeCheckError

_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """From now on the hook decorates by `check`."""
    jaxtyping.jaxtyped = lambda function=None, *, typechecker: check


def check(function: Any) -> Any:
    """The function with its arrays' shapes and dtypes checked at every call; unchanged where it has none.

    Raises:
        TypeCheckError: at a call, with the parameter's or the result's name, shape and annotation.
    """
    if inspect.isclass(function):
        if is_dataclass(function):
            function.__init__ = check(function.__init__)  # type: ignore[misc]
        return function
    if isinstance(function, classmethod | staticmethod):
        return type(function)(check(function.__func__))
    if isinstance(function, property):
        return property(function.fget and check(function.fget))
    every = function.__annotations__
    arrays = {name: hint for name, hint in every.items() if _is_array(hint)}
    return _checked(function, every, arrays) if arrays else function


def _checked(
    function: Callable[..., Any], every: dict[str, Any], arrays: dict[str, Any]
) -> Callable[..., Any]:
    function.__annotations__ = arrays
    strict = beartype.beartype(function)
    function.__annotations__ = strict.__annotations__ = every

    @wraps(function)
    def checked(*args: Any, **keywords: Any) -> Any:
        with _jaxtyped("context"):  # one value a dimension's name
            try:
                return strict(*args, **keywords)
            except BeartypeCallHintViolation as error:
                raise TypeCheckError(str(error)) from error

    return checked


def _is_array(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return len(parts) < len(get_args(hint)) and len(parts) == 1 and _is_array(parts[0])
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)
