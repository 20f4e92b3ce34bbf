"""What a task is: columns to examples, examples to slots, scores to predictions, predictions to metrics."""

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
from fewshot_nlp.slots import Scores, SlotBatch
from fewshot_nlp.tasks.defaults import Defaults, Usage
from fewshot_nlp.tokenization.windows import WindowTokenizer

Row = Mapping[str, Any]
Prediction = dict[str, Any]
"""A prediction: ``"target"`` in the form of `Example.target`, and what else the task tells of it."""


TASKS: "Registry[type[Task]]" = Registry("task", "fewshot_nlp.tasks")
"""All tasks by name."""


class Task(ABC):
    """One task. A subclass is one file in this folder; it knows nothing of models or learners.

    A subclass names itself in its class line, ``class NER(Task, name="ner")``, and is then registered.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[tuple[str, ...], ...]]
    """The sets of columns that a labelled row may have; the first is the usual one."""
    target_columns: ClassVar[tuple[str, ...]] = ()
    """Those of `columns` that rows to predict on lack."""
    label_column: ClassVar[str | None] = None
    """The column whose values are label names, which a data set may give as numbers."""
    word_tags: ClassVar[bool] = False
    """Whether a target is one tag for each word of "tokens", as CoNLL files hold it."""
    primary_metric: ClassVar[str]
    """The metric by which models of this task are compared; higher is better."""
    has_labels: ClassVar[bool] = True
    """Whether targets are made of a closed set of label names."""
    backbone: ClassVar[str] = "encoder"
    """The kind of model that gives the features: a key of `fewshot_nlp.backbone.BACKBONES`."""
    sampler: ClassVar[str] = "k_shot"
    """The sampler that is usual in the literature: a name in `fewshot_nlp.sampling.SAMPLERS`."""
    usual_ways: ClassVar[int | None] = None
    """Labels in an episode where nothing else is asked for; None for all."""
    augmentations: ClassVar[frozenset[str]] = frozenset()
    """Changes of `fewshot_nlp.training.Augmentation` under which a target stays right."""
    default_learner: ClassVar[str] = "prototypical"
    """The learner that is taken where none is named."""
    defaults: ClassVar[Mapping[str, Defaults]] = {}
    """A learner's name to its settings for this task, where they differ from the learner's own."""
    ships: ClassVar[bool] = False
    """Whether a trained start for the task ships with the package."""
    usage: ClassVar[Usage] = Usage()
    """How a model card shows the task."""

    def __init_subclass__(cls, *, name: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if name is not None:
            cls.name = name
            TASKS.register(name)(cls)

    @property
    def options(self) -> dict[str, Json]:
        """The options that the task was made with."""
        return dict(vars(self))

    @classmethod
    def of_languages(cls, languages: Sequence[str]) -> Self:
        """The task for rows of some languages, before it meets a backbone.

        Args:
            languages: codes as in a data card; for translation the source's, then the target's.
        """
        return cls()

    def bind(self, tokenizer: Any) -> None:  # noqa: B027 - most tasks take nothing
        """Takes from the backbone's tokenizer what was not given; called when the task meets a backbone."""

    @abstractmethod
    def example(self, row: Row) -> Example:
        """Checks one row and brings it to the task's normal form.

        Raises:
            FewShotError: what is wrong with the row (without its number, which `examples` adds).
        """

    @abstractmethod
    def query(self, value: Any) -> Query:
        """Checks one input to predict on: a text, or a row whose target is missing or ignored.

        Raises:
            EmptyInputError: the input has no visible character.
            FewShotError: it is no input at all.
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
        """The target without all labels but the given ones."""

    def rename(self, target: Json, names: Mapping[Label, Label]) -> Json:
        """The target with other names for its labels; two labels may get the same one."""
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
            labels: label names the scores are wanted for, sorted.
            tokenizer: the encoder's.
            with_targets: whether to put the items' targets into the batch.
            descriptions: label to words that say what it is; adds anchor slots for these labels.
        """

    def calibrates_on_scores(self, support: SlotBatch) -> bool:
        """Whether `calibrate` wants the adapted model's scores of the support set, which cost a forward pass."""
        return False

    def calibrate(self, support: SlotBatch, scores: Tensor | None = None) -> dict[str, Tensor]:
        """Whatever of the decoding is learned from the support set; passed to `decode` as ``decoding_parameters``.

        Args:
            support: the support set.
            scores: of its slots by the adapted model, where `calibrates_on_scores` says so.
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
        self,
        scores: Scores,
        batch: SlotBatch,
        decoding_parameters: Mapping[str, Tensor] | None = None,
    ) -> list[Prediction]:
        """One prediction for each item of a batch."""

    @abstractmethod
    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[Label]
    ) -> dict[str, float]:
        """Scores of predicted targets against gold targets, each under a name that says its definition."""

    def shown(self, prediction: Prediction) -> Any:
        """What `FewShotModel.predict` gives of a prediction."""
        return prediction["target"]

    def output(self, prediction: Prediction, labels: Sequence[Label], row: Row) -> dict[str, Any]:
        """The columns that a prediction adds to a row, in a file of predictions.

        Args:
            prediction: for the row.
            labels: label names that the model predicts, sorted.
            row: what was predicted on.
        """
        return {"predicted": prediction["target"]}

    def examples(self, rows: Iterable[Row]) -> list[Example]:
        """Checks rows and brings them to the task's normal form.

        Args:
            rows: dictionaries, or a `datasets.Dataset`.

        Raises:
            FewShotError: naming the first bad row.
        """

        def read(row: Any) -> Example:
            if not isinstance(row, Mapping):
                raise FewShotError(
                    f"it is {shown(row)}, but rows are dictionaries with the columns {', '.join(self.columns[0])}."
                )
            return self.example(row)

        return read_each(rows, read)

    def queries(self, values: Iterable[Any], what: str = "Input") -> list[Query | None]:
        """Checks inputs to predict on; None for one without a visible character, of which the log tells.

        Args:
            values: as for `query`.
            what: what messages call an input.

        Raises:
            FewShotError: naming the first bad input.
        """

        def read(value: Any) -> Query | None:
            try:
                return self.query(value)
            except EmptyInputError:
                return None

        found = read_each(values, read, what)
        empty = [number for number, query in enumerate(found, start=1) if query is None]
        if empty:
            logger.warning(
                "%s %s: empty, so nothing is predicted (%d of %d).", what, some(empty), len(empty), len(found)
            )
        return found

    def suited(self, examples: Sequence[Example]) -> "tuple[Task, list[Example]]":
        """The task as a support set wants it, and the set's examples in its form; most tasks stay as they are."""
        return self, list(examples)

    def check_conflicts(self, examples: Sequence[Example]) -> None:
        """Refuses two examples of the same input with different targets, naming both."""
        seen: dict[str, tuple[int, str]] = {}
        for number, example in enumerate(examples, start=1):
            key, target = canonical_json(example.inputs), canonical_json(example.target)
            first, known = seen.setdefault(key, (number, target))
            if known != target:
                raise FewShotError(
                    f"Rows {first} and {number} have the same input but different targets, {known[:80]} and "
                    f"{target[:80]}; keep one of them. The input begins: {key[:60]}."
                )

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Refuses a set of labels that nothing can be learned from."""
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
        """Rows as the data set that samplers draw episodes from.

        Of rows with the same input the first is kept; the log says how many others had another target.

        Args:
            rows: as for `examples`.
            name: the data set's name, part of the task ids.
            domain: for domain-disjoint splits.
            group_column: a column (a document's id) whose rows must not be divided between support and query.
        """
        rows = list(rows)
        unique: dict[str, int] = {}
        examples = self.examples(rows)
        contradictions = 0
        for index, example in enumerate(examples):
            first = unique.setdefault(canonical_json(example.inputs), index)
            contradictions += examples[first].target != example.target
        if contradictions:
            logger.info(
                "%s: %d of %d rows repeat an input with another target; left out.",
                name,
                contradictions,
                len(rows),
            )
        kept = list(unique.values())
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
        example: a right value, as JSON.

    Raises:
        MissingColumnError: naming those that are there, and the one that may be it.
        FewShotError: it has another type.
    """
    if column not in row:
        raise MissingColumnError(column, row, example)
    value = row[column]
    if kind is list:
        value = as_list(value)
    if not isinstance(value, kind):
        raise FewShotError(f"the column {column!r} holds {shown(row[column])}, but must look like {example}.")
    return value
