"""Types of predictions, and of the options of `predict`."""

from typing import NotRequired, TypedDict


class Entity(TypedDict):
    """An entity: its type, a score in (0, 1], its words, and its characters in the text (end exclusive)."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class SpanAnswer(TypedDict):
    """A span of the context, its probability, and its characters (end exclusive)."""

    answer: str
    score: float
    start: int
    end: int


class Answer(SpanAnswer):
    """What `FewShotQA.predict` gives; empty for no answer. With ``top_n`` also the likeliest answers."""

    no_answer_score: NotRequired[float]
    n_best: NotRequired[list[SpanAnswer]]


class PredictOptions(TypedDict, total=False):
    """Options of `FewShotModel.predict`."""

    refuse_empty: bool
    batch_size: int | None
    show_progress_bar: bool | None
