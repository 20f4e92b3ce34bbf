"""Names to classes: one registry for tasks, one for learners, one for samplers; each class names itself."""

import sys
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar

from fewshot_nlp.errors import FewShotError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a public name to a class. On the first look all that could register a class is imported.

    That is every module of ``package``, and every entry point of a group, so that an installed package of somebody else
    can add a class without an edit here.

    Args:
        kind: what is registered, for messages ("learner"); the group is ``fewshot_nlp.<kind>s``.
        package: the package whose modules are imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._group = f"fewshot_nlp.{kind}s"
        self._items: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, item: T) -> None:
        """Registers a class under ``name``."""
        if name in self._items:
            raise FewShotError(f"The {self.kind} {name!r} is registered already; choose another name.")
        self._items[name] = item

    def names(self) -> list[str]:
        """All registered names, sorted."""
        if not self._complete:
            self._import_all()
        return sorted(self._items)

    def get(self, name: str) -> T:
        """The class registered under ``name``.

        Raises:
            FewShotError: naming the nearest known name and all known names.
        """
        known = self.names()
        if name not in self._items:
            also = [n for n in known if name in getattr(self._items[n], "aliases", ())]
            raise FewShotError(f"There is no {self.kind} {name!r}.{nearest(next(iter(also), name), known)}")
        return self._items[name]

    def _import_all(self) -> None:
        for module in iter_modules(import_module(self._package).__path__):
            import_module(f"{self._package}.{module.name}")
        for point in entry_points(group=self._group):
            try:
                point.load()
            except Exception as error:
                package = point.dist.name if point.dist else "an installed package"
                raise FewShotError(
                    f"{package} offers the {self.kind} {point.name!r}, but it cannot be imported: {error}. "
                    "Upgrade or uninstall it."
                ) from error
        self._complete = True


def about(kind: type) -> str:
    """What a registered class is: the first line of the file that it is in, else of its own docstring."""
    return (sys.modules[kind.__module__].__doc__ or kind.__doc__ or "").strip().split("\n")[0]


def nearest(name: object, known: list[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, where one is near, and all of them."""
    return f"{did_you_mean(name, known)} Known: {', '.join(known)}."
