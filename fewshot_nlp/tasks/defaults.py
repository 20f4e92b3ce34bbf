"""What a task says of itself beside its methods: the settings that suit a learner, and how people use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewshot_nlp.episode import Json


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings of one learner for one task, chosen by measurement; whatever a user gives goes before them.

    Args:
        learner: of the learner.
        bundled: of the learner, on the encoder that ships.
        task: the task's options.
        encoder: options of `Encoder.from_pretrained`, such as the layers that are read.
    """

    learner: Mapping[str, Json] = field(default_factory=dict)
    bundled: Mapping[str, Json] = field(default_factory=dict)
    task: Mapping[str, Json] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a model of the task is used: for the Hub, and for the example in a model card.

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
