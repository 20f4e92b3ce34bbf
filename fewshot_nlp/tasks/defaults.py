"""Declarations of a task: default settings of learners, and usage for model cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewshot_nlp.episode import Json


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Default settings of one learner for one task, chosen by measurement; a user's settings override them.

    Args:
        learner: settings of the learner.
        bundled: further settings of the learner on the model that ships.
        task: options of the task.
        encoder: options of `Encoder.from_pretrained`, such as ``layers``.
    """

    learner: Mapping[str, Json] = field(default_factory=dict)
    bundled: Mapping[str, Json] = field(default_factory=dict)
    task: Mapping[str, Json] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a model of the task is used, for the Hub and the example in a model card.

    Args:
        title: the task in words; empty for its name.
        pipeline_tag: the Hub's name for the task; None where it has none.
        model_class: name of the class in `fewshot_nlp` that users import.
        rows: labelled rows of a small example.
        inputs: inputs to predict on.
    """

    title: str = ""
    pipeline_tag: str | None = None
    model_class: str = "FewShotModel"
    rows: Sequence[Mapping[str, Json]] = ()
    inputs: Sequence[Json] = ()
