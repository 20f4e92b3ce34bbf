"""Words of labels: readable names and descriptions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewshot_nlp.errors import FewShotError, clipped, quoted
from fewshot_nlp.rows import Label, as_label, as_text, joined, shown

Labels = Sequence[Label] | Mapping[str, str] | Mapping[int, str] | Mapping[Label, str]
"""Labels, or their descriptions by label."""


def readable(label: Label) -> str:
    """A label's name as words: "card_payment" and "CardPayment" become "card payment"."""
    words = []
    for part in str(label).replace("_", " ").replace("-", " ").split():
        piece = ""
        for before, char in zip(" " + part, part, strict=False):
            piece += " " + char if char.isupper() and before.islower() else char
        words.append(piece)
    return " ".join(words).lower() or str(label)


def says_nothing(words: str) -> bool:
    """Whether a label's words have no meaning: a single letter, or no letter at all ("z", "3", "-")."""
    return re.fullmatch(r"[a-z]|[\W\d_]+", words) is not None


def check_descriptions(descriptions: Mapping[Label, str] | None, labels: Sequence[Label]) -> None:
    """Raises `FewShotError` unless every described label is known and every description is a text."""
    for label, text in (descriptions or {}).items():
        if label not in labels:
            raise FewShotError(
                f"There is a description of {quoted(label)}, but the labels are: {joined(labels)}."
            )
        as_text(text, f"description of {clipped(str(label))}")


def given_labels(labels: Any) -> Labels | None:
    """Labels that were given, as a list or a mapping.

    Raises:
        FewShotError: they are neither.
    """
    if labels is None or isinstance(labels, Mapping):
        return labels
    if (
        isinstance(labels, Iterable)
        and not isinstance(labels, str | bytes)
        and getattr(labels, "ndim", 1) == 1
    ):
        return list(labels)
    raise FewShotError(
        f"labels is {shown(labels)}, but must be a list of labels, or map labels to descriptions."
    )


def described(labels: Mapping[Any, Any]) -> dict[Label, str]:
    """The descriptions of labels, without those that are None or empty."""
    return {
        as_label(label, "a given label"): as_text(words, f"description of {clipped(str(label))}")
        for label, words in labels.items()
        if words is not None and not (isinstance(words, str) and not words.strip())
    }
