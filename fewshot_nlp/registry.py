"""Names to things: one registry for tasks, one for learners; an unknown name suggests the nearest."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Generic, TypeVar

from fewshot_nlp.errors import FewShotError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a public name to an object; the package that fills it is imported on the first look.

    Args:
        kind: what is registered, for messages ("learner").
        package: importing this package registers everything in it.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers the decorated object under ``name``."""

        def add(item: T) -> T:
            if name in self._items:
                raise FewShotError(f"The {self.kind} {name!r} is registered already; choose another name.")
            self._items[name] = item
            return item

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        import_module(self._package)
        return sorted(self._items)

    def get(self, name: str) -> T:
        """The object registered under ``name``.

        Raises:
            FewShotError: naming the nearest known name and all known names.
        """
        known = self.names()
        if name not in self._items:
            near = get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FewShotError(f"There is no {self.kind} {name!r}.{hint} Known: {', '.join(known)}.")
        return self._items[name]
