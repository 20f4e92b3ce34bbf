"""Base of tasks: rows to examples, examples to slots, scores to predictions, predictions to metrics."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor

from fewshot_nlp.episode import Example, Json, Query, TaskDataset, canonical_json
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.registry import Registry
from fewshot_nlp.rows import (
    EmptyInputError,
    Label,
    MissingColumnError,
    as_list,
    read_each,
    shown,
    some,
    sorted_labels,
)
from fewshot_nlp.settings import Settings
from fewshot_nlp.slots import Scores, SlotBatch
from fewshot_nlp.tasks.annotation import Annotation
from fewshot_nlp.tasks.conflicts import Conflicts, without_conflicts
from fewshot_nlp.tasks.defaults import Defaults, Usage
from fewshot_nlp.tokenization.windows import WindowTokenizer

Row = Mapping[str, Any]
Prediction = dict[str, Any]
"""A prediction: ``"target"`` in the form of `Example.target`, and further keys of the task, such as scores."""
TASKS: "Registry[type[Task]]" = Registry("task", "fewshot_nlp.tasks")
"""All tasks by name."""


class Task(Settings, ABC):
    """Base of all tasks. A subclass does not depend on models or learners.

    A subclass gives its name in its class line, ``class NER(Task, name="ner")``, and is then registered. A task is the
    settings of itself: its options are fields, with their bounds (see `fewshot_nlp.settings`).
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    """What else people call the task: a message about an unknown name then tells this one's."""
    columns: ClassVar[tuple[tuple[str, ...], ...]]
    """Alternative sets of columns of a labelled row; the first is the usual one."""
    target_columns: ClassVar[tuple[str, ...]] = ()
    """The columns that hold the target; inputs to predict on do not have them."""
    label_column: ClassVar[str | None] = None
    """The column with label names, which a `datasets.Dataset` may store as class indices."""
    group_column: ClassVar[str | None] = None
    """The column whose equal values make rows belong together (one context), where a file has no "document"."""
    document_column: ClassVar[str | None] = None
    """The input column that several rows share, such as the text that questions are about."""
    word_tags: ClassVar[bool] = False
    """Whether a target is one tag for each word of "tokens", as in CoNLL files."""
    primary_metric: ClassVar[str]
    """Name of the main metric; higher is better."""
    has_labels: ClassVar[bool] = True
    """Whether targets consist of a closed set of label names."""
    backbone: ClassVar[str] = "encoder"
    """The kind of model that computes features: a key of `fewshot_nlp.backbone.BACKBONES`."""
    sampler: ClassVar[str] = "k_shot"
    """Default sampler, the usual one in the literature: a name in `fewshot_nlp.sampling.SAMPLERS`."""
    usual_ways: ClassVar[int | None] = None
    """Default number of labels in an episode; None for all."""
    augmentations: ClassVar[frozenset[str]] = frozenset()
    """Augmentations of `fewshot_nlp.training.Augmentation` under which targets stay correct."""
    default_learner: ClassVar[str] = "prototypical"
    """The learner that is used where none is named."""
    defaults: ClassVar[Mapping[str, Defaults]] = {}
    """Settings of learners for this task, by learner name, where they differ from the learner's own."""
    ships: ClassVar[bool] = False
    """Whether a trained model for the task ships with the package."""
    usage: ClassVar[Usage] = Usage()
    """How a model card shows the task."""

    def __init_subclass__(cls, *, name: str | None = None) -> None:
        super().__init_subclass__()
        if name is not None:
            cls.name = name
            TASKS.add(name, cls)

    @classmethod
    def of_languages(cls, languages: Sequence[str]) -> Self:
        """The task for rows of some languages, before it meets a backbone.

        Args:
            languages: codes as in a data card; for translation the source's, then the target's.
        """
        return cls()

    def bind(self, tokenizer: Any) -> Self:
        """The task with missing options from the backbone's tokenizer; called when task and backbone are combined."""
        return self

    @abstractmethod
    def example(self, row: Row) -> Example:
        """Checks one row and converts it to the task's normal form.

        Raises:
            FewShotError: the row is not valid (`examples` adds its number).
        """

    @abstractmethod
    def query(self, value: Any) -> Query:
        """Checks one input to predict on: a text, or a row whose target is missing or ignored.

        Raises:
            EmptyInputError: the input has no visible character.
            FewShotError: the value is not an input of this task.
        """

    def abstained(self, labels: Sequence[Label]) -> Prediction:
        """The prediction for an input without a visible character: no label, no entity, no answer, no text.

        Raises:
            FewShotError: the task has no such prediction.
        """
        raise FewShotError(f"an input is empty, for which {self.name} has no prediction; leave it out.")

    @abstractmethod
    def labels_of(self, example: Example) -> Mapping[Label, int]:
        """How often each label occurs in an example."""

    @abstractmethod
    def restrict(self, target: Json, labels: frozenset[Label]) -> Json:
        """The target restricted to the given labels."""

    def rename(self, target: Json, names: Mapping[Label, Label]) -> Json:
        """The target with renamed labels; two labels may get the same name."""
        if self.has_labels:
            raise FewShotError(f"The task {self.name} cannot give its labels other names.")
        return target

    @abstractmethod
    def collate(
        self,
        items: Sequence[Query],
        labels: Sequence[Label],
        tokenizer: WindowTokenizer,
        *,
        with_targets: bool,
        descriptions: Mapping[Label, str] | None = None,
    ) -> SlotBatch:
        """Slots of some examples or queries.

        Args:
            items: examples, or queries when ``with_targets`` is False.
            labels: label names to be scored, sorted.
            tokenizer: the encoder's.
            with_targets: whether the batch gets the items' targets.
            descriptions: label to description; adds label slots for these labels.
        """

    def calibrates_on_scores(self, support: SlotBatch) -> bool:
        """Whether `calibrate` needs the adapted model's scores of the support set, which cost a forward pass."""
        return False

    def calibrate(self, support: SlotBatch, scores: Tensor | None = None) -> dict[str, Tensor]:
        """Estimates parameters of decoding on the support set; `decode` gets them as ``decoding_parameters``.

        ``scores`` are the adapted model's of its slots if `calibrates_on_scores`; else None.
        """
        return {}

    def generation_options(
        self, batch: SlotBatch, tokenizer: Any, decoding_parameters: Mapping[str, Tensor] | None = None
    ) -> dict[str, Any] | None:
        """Options of `VocabularyHead.generate` where predictions are generated; None where slots are scored."""
        return None

    def read_tokens(
        self, tokens: Sequence[Sequence[int]], batch: SlotBatch, tokenizer: Any
    ) -> list[Prediction]:
        """One prediction for each item of a batch, from generated tokens; see `generation_options`."""
        raise NotImplementedError

    @abstractmethod
    def decode(
        self, scores: Scores, batch: SlotBatch, decoding_parameters: Mapping[str, Tensor] | None = None
    ) -> list[Prediction]:
        """One prediction for each item of a batch."""

    @abstractmethod
    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[Label]
    ) -> dict[str, float]:
        """Metrics of predicted targets against gold targets, by name."""

    def highlights(self, example: Example) -> tuple[str, list[tuple[int, int, str]], str]:
        """How an example is shown to people: a text, its marked spans (start, end, name) in order, and a note."""
        return " | ".join(map(str, example.inputs.values())), [], str(example.target)

    def shown(self, prediction: Prediction) -> Any:
        """The part of a prediction that `FewShotModel.predict` returns."""
        return prediction["target"]

    def confidence(self, prediction: Prediction) -> float | None:
        """The probability, in [0, 1], that a prediction of one label gives it; None for other predictions."""
        return None

    def mistakes(self, gold: Json, predicted: Json) -> list[tuple[str, str]]:
        """What is wrong with a predicted target: kinds of mistakes, each with what it is about; empty if nothing."""
        return [] if gold == predicted else [("wrong", "")]

    def annotation(self, query: Query, prediction: Prediction) -> Annotation:
        """A prediction as an annotation of its text, for annotation tools.

        Raises:
            FewShotError: the task has no such form.
        """
        raise FewShotError(
            f"Annotation tools take spans or labels of a text, which {self.name} does not give."
        )

    def output(self, prediction: Prediction, labels: Sequence[Label], row: Row) -> dict[str, Any]:
        """The columns that a file of predictions gets for a row; ``labels`` are all that the model predicts, sorted."""
        return {"predicted": prediction["target"]}

    def examples(self, rows: Iterable[Row]) -> list[Example]:
        """Checks rows, or a `datasets.Dataset`, and converts them to the task's normal form.

        Raises:
            FewShotError: a row is not valid; the message has its number.
        """

        def read(row: Any) -> Example:
            if not isinstance(row, Mapping):
                raise FewShotError(
                    f"it is {shown(row)}, but rows are dictionaries with the columns {', '.join(self.columns[0])}."
                )
            return self.example(row)

        return read_each(rows, read)

    def queries(self, values: Iterable[Any], *, refuse_empty: bool = False) -> list[Query | None]:
        """Checks inputs to predict on, each as for `query`; None for one without a visible character, which is logged.

        Raises:
            FewShotError: an input is not valid, or empty with ``refuse_empty``; the message has its number.
        """

        def read(value: Any) -> Query | None:
            try:
                return self.query(value)
            except EmptyInputError:
                if refuse_empty:
                    raise
                return None

        found = read_each(values, read, "Input")
        empty = [number for number, query in enumerate(found, start=1) if query is None]
        if empty:
            told = "Input %s: empty, so nothing is predicted (%d of %d)."
            logger.warning(told, some(empty), len(empty), len(found))
        return found

    def suited(self, examples: Sequence[Example]) -> "tuple[Task, list[Example]]":
        """The task with options that fit a support set, and the examples in its form; most tasks return themselves."""
        return self, list(examples)

    def asked(self, example: Example) -> Query:
        """What a model is given of an example when it predicts."""
        return example.query

    def paired(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> tuple[list[Json], list[Json]]:
        """Gold and predicted targets of examples in one form, for `metrics`; predictions are of what is `asked`."""
        return [e.target for e in examples], [p["target"] for p in predictions]

    def settled(self, examples: Sequence[Example], conflicts: Conflicts = "refuse") -> list[Example]:
        """The examples, of which no two have the same input and different targets; see `without_conflicts`."""
        inputs = [canonical_json(self.asked(e).inputs) for e in examples]
        kept = without_conflicts(inputs, [canonical_json(e.target) for e in examples], conflicts)
        return [examples[i] for i in kept]

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Raises `FewShotError` for a set of labels from which nothing can be learned."""
        if self.has_labels and not labels:
            raise FewShotError("The support set has no label at all; give at least one labelled example.")

    def labels(self, examples: Iterable[Example]) -> tuple[Label, ...]:
        """All labels that occur, in their natural order."""
        return sorted_labels(label for example in examples for label in self.labels_of(example))

    def dataset(
        self,
        rows: Iterable[Row],
        name: str = "rows",
        domain: str = "general",
        group_column: str | None = None,
    ) -> TaskDataset:
        """Rows as a data set for samplers.

        Of rows with the same input the first is kept; the number of others with another target is logged.

        Args:
            rows: as for `examples`.
            name: the data set's name, part of the task ids.
            domain: for domain-disjoint splits.
            group_column: a column, such as a document's id; rows with equal values stay together in support or query
                set.
        """
        rows = list(rows)
        examples = self.examples(rows)
        first: dict[str, int] = {}
        origins = [first.setdefault(canonical_json(self.asked(e).inputs), i) for i, e in enumerate(examples)]
        other = sum(e.target != examples[i].target for e, i in zip(examples, origins, strict=True))
        if other:
            told = "%s: %d of %d rows repeat an input with another target; left out."
            logger.info(told, name, other, len(rows))
        kept = list(first.values())
        return TaskDataset(
            name=name,
            task=self.name,
            examples=tuple(examples[i] for i in kept),
            label_counts=tuple(dict(self.labels_of(examples[i])) for i in kept),
            domain=domain,
            groups=tuple(str(rows[i][group_column]) for i in kept) if group_column else (),
            restrict=self.restrict,
        )


def need_column(row: Row, column: str, kind: type | tuple[type, ...], example: str) -> Any:
    """The value of a column, checked for its type.

    Args:
        row: a row.
        column: its name.
        kind: the type; `list` takes arrays too and gives a list.
        example: a valid value, as JSON.

    Raises:
        MissingColumnError: there is no such column; the message names the existing ones.
        FewShotError: the value has another type.
    """
    if column not in row:
        raise MissingColumnError(column, row, example)
    value = row[column]
    if kind is list:
        value = as_list(value)
    if not isinstance(value, kind):
        raise FewShotError(f"the column {column!r} holds {shown(row[column])}, but must look like {example}.")
    return value
