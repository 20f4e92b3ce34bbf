"""What is said of a text, in the form that annotation tools take."""

from collections.abc import Sequence
from typing import NamedTuple

from fewshot_nlp.rows import Label


class Annotation(NamedTuple):
    """A text with what an annotator, or a model, said of it.

    Args:
        text: the whole text.
        spans: first character, character after the last, and label, in order.
        labels: of the whole text.
        words: the text's words, where they have tags.
        tags: BIO tags of the words.
        marks: whether the task is to mark spans, of which there may be none.
        score: how sure it is, in [0, 1]; None where that is not known.
    """

    text: str
    spans: Sequence[tuple[int, int, Label]] = ()
    labels: Sequence[Label] = ()
    words: Sequence[str] = ()
    tags: Sequence[str] | None = None
    marks: bool = False
    score: float | None = None
