"""Words of labels: readable names and descriptions."""

import re
from collections.abc import Mapping, Sequence

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import Label, as_text, clipped, joined, quoted


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
