"""A bound on the memory that a folder of another's making may ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import first_line

SLACK = 1 << 24
"""Numbers that may be made beside those of the files: masks, positions, permutations of adapters."""
_SIZES = ("size", "n", "m", "end", "steps")
"""Arguments of torch's functions that say how large a new tensor is."""


class BoundedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context in which new tensors hold a bounded count of numbers in all; a larger one is refused before it is made.

    Args:
        folder: what is read, for the message.
        numbers: the bound, without `SLACK`.
    """

    def __init__(self, folder: Path, numbers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folder, self._bound = folder, numbers + SLACK
        self._made = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Counts what a function is about to make."""
        kwargs = kwargs or {}
        self._made += _new_numbers(function, args, kwargs)
        if self._made > self._bound:
            raise FewShotError(
                f"{self._folder} asks for tensors of {self._made:,} numbers, but its files account for "
                f"{self._bound:,} at most; it is damaged: save the model again, or fetch it again."
            )
        return function(*args, **kwargs)


def _new_numbers(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many numbers a factory makes; 0 for functions of tensors, and for tensors without memory."""
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == "meta":
        return 0
    given = next((a for a in args if isinstance(a, torch.Tensor)), None)
    if given is not None and device is not None and given.is_meta:  # empty_like and its kin
        return given.numel()
    if given is not None and not str(function).startswith("aten.new_"):
        return 0
    names = (argument.name for argument in function._schema.arguments)
    sizes = [v for n, v in (*zip(names, args, strict=False), *kwargs.items()) if n in _SIZES]
    return int(prod(abs(n) for size in sizes for n in (size if isinstance(size, list | tuple) else [size])))


@contextmanager
def foreign(folder: Path) -> Iterator[None]:
    """Whatever a library raises over a folder of another's making becomes one line."""
    try:
        yield
    except FewShotError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of the Rust libraries
        if not (panic or isinstance(error, Exception)):
            raise
        raise FewShotError(
            f"{folder} does not fit together ({type(error).__name__}: {first_line(error)[:120]}); save the model "
            "again, or fetch it again."
        ) from error
