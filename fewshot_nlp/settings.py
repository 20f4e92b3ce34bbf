"""Bounds of settings."""

from typing import Any

from fewshot_nlp.errors import FewShotError


def check(config: Any, name: str, low: float, high: float) -> None:
    """A numeric setting must be in its range, ends included."""
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise FewShotError(f"{name} is {value!r}, but must be a number from {low:g} to {high:g}.")


def check_choice(config: Any, name: str, *known: str) -> None:
    """A setting must be one of the known words."""
    if getattr(config, name) not in known:
        raise FewShotError(f"{name} is {getattr(config, name)!r}, but must be one of: {', '.join(known)}.")
