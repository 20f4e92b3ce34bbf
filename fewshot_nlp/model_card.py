"""The model card of a saved model."""

from typing import Any


def model_card(model: Any, name: str) -> str:
    """A card in Markdown for a `FewShotModel`."""
    return f"# {name}\n"
