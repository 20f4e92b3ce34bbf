"""What the demonstration shows of a task: one `Section` each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewshot_nlp.episode import Example
from fewshot_nlp.models.base import FewShotModel

DOMAINS = ("medical", "legal", "finance")
K_SHOT = 5
ADAPTED, NO_EXAMPLE = "adapted", "no example"
"""Rows of a table of scores that are no `Baseline`."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a shown text; with a tag it is highlighted.

    Args:
        text: the stretch.
        tag: what it was found to be; None for the text between.
        score: confidence in the tag, in (0, 1].
    """

    text: str
    tag: str | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One input with what the model made of it.

    Args:
        pieces: the input's text.
        question: what was asked of it.
        answers: what is said of the whole input, likeliest first, each with its confidence, where it has one.
    """

    pieces: tuple[Piece, ...]
    question: str = ""
    answers: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A learner on features of the frozen encoder.

    Args:
        learner: its name.
        learner_config: its settings; without label names unless they say otherwise.
        task_config: options of the task; the section's choice is what suits the learner best.
    """

    learner: str
    learner_config: Mapping[str, Any] = field(default_factory=lambda: {"label_names": 0.0})
    task_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A task in the demonstration.

    Args:
        model: the class that users import.
        title: heading.
        support: what the support set holds, in words.
        card: name of the data set card, with ``{domain}`` in it.
        knobs: of the task's sampler, which draws support sets; its queries are not used.
        row: an example as a row for `adapt`.
        inputs: domain to new inputs, for which nobody wrote down an answer.
        show: predictions for some inputs.
        baselines: name to a method on the frozen encoder that the default is compared with.
        learner: what is adapted; None for the task's default.
        layers: the encoder's layers that the baselines read, as in `Encoder.from_pretrained`; None for the last.
        before: the row of the table that says what there is without adapting or training.
        note: what the baselines are, in words.
        most_seeds: at most so many support sets for each score; None for all.
        best: the greatest value of the metric.
    """

    model: type[FewShotModel]
    title: str
    support: str
    card: str
    knobs: Mapping[str, Any]
    row: Callable[[Example], dict[str, Any]]
    inputs: Mapping[str, Sequence[Any]]
    show: Callable[[Any, Sequence[Any]], list[Shown]]
    baselines: Mapping[str, Baseline]
    learner: str | None = None
    layers: tuple[float, ...] | None = None
    before: str = NO_EXAMPLE
    note: str
    most_seeds: int | None = None
    best: float = 1.0
