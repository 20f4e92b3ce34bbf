"""What the demonstration shows of a task: one `DemoTask` each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_nlp.comparison.page import Marked
from fewshot_nlp.episode import Example
from fewshot_nlp.models.base import FewShotModel

DOMAINS = ("medical", "legal", "finance")
K_SHOT = 5
ADAPTED, NO_EXAMPLE = "adapted", "no example"
"""Rows of a table of scores that are no baseline on the frozen encoder."""
N_COLOURS = 7
"""Of marks on the page."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoTask:
    """A task in the demonstration.

    Args:
        model: the class that users import.
        title: heading.
        support: what the support set holds, in words.
        card: name of the data set card, with ``{domain}`` in it.
        k_shot: size of the support sets: examples of each label, or rows where a task has no labels.
        row: an example as a row for `adapt`.
        inputs: domain to new inputs, for which nobody wrote down an answer.
        show: some inputs with what the model makes of them.
        baselines: name to options of `FewShotModel.from_pretrained`, on the frozen encoder.
        before: the row of the table that says what there is without adapting or training.
        note: what the baselines are, in words.
        learner: what is adapted; None for the task's default.
        repeats: support sets that are scored.
    """

    model: type[FewShotModel]
    title: str
    support: str
    card: str
    k_shot: int
    row: Callable[[Example], dict[str, Any]]
    inputs: Mapping[str, Sequence[Any]]
    show: Callable[[Any, Sequence[Any]], list[Marked]]
    baselines: Mapping[str, Mapping[str, Any]]
    before: str = NO_EXAMPLE
    note: str
    learner: str | None = None
    repeats: int = 5


def marked(words: str, told: str, index: int = 0) -> tuple[str, str, str]:
    """A mark in the colour of a label, by its number."""
    return words, f"c{index % N_COLOURS}", told
