"""What the models of all tasks share: load, adapt, predict, evaluate, save, push."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

from fewshot_nlp.episode import Example, Json, Query
from fewshot_nlp.errors import FewShotError, logger, quoted
from fewshot_nlp.memory.store import MemoryStore
from fewshot_nlp.models.interfaces import Interfaces
from fewshot_nlp.models.loading import load_parts
from fewshot_nlp.models.memory import ModelMemory, has_memory
from fewshot_nlp.models.pickling import Picklable
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.persistence.model_card import model_card
from fewshot_nlp.persistence.storage import Base, save
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.predictions import PredictOptions
from fewshot_nlp.rows import Label, as_label, joined, records, sorted_labels
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks.base import Prediction
from fewshot_nlp.tasks.conflicts import Conflicts
from fewshot_nlp.tasks.label_words import Labels, described, given_labels


class FewShotModel(Picklable, Interfaces):
    """A task, an encoder and a learner; adapted to a support set by `adapt`.

    Make one with `from_pretrained`. This class serves every task that is registered; its subclasses add what only one
    task has.

    Examples:
        >>> model = FewShotModel.from_pretrained(task="translation")
        >>> model.predict(["Wo ist der Bahnhof?"])
        ['Where is the station?']
    """

    task_name: ClassVar[str] = ""
    """The task of a subclass; empty for any."""

    def __init__(
        self,
        pipeline: Pipeline | None,
        *,
        model: TaskModel | None = None,
        descriptions: Mapping[Label, str] | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> None:
        self._pipeline: Pipeline | None = pipeline
        self.descriptions: dict[Label, str] = dict(descriptions or {})
        self.extra = dict(extra or {})
        self._model = model
        self._unadapted: TaskModel | None = None
        self._examples: list[Example] = []
        self._named: tuple[Label, ...] = ()  # labels that were given, whether or not an example has them
        self._store: MemoryStore | None = None

    @classmethod
    def of(cls, pipeline: Pipeline, **rest: Any) -> Self:
        """A model from its parts; arguments as for `FewShotModel`."""
        model = cls.__new__(cls)
        FewShotModel.__init__(model, pipeline, **rest)
        return model

    @property
    def pipeline(self) -> Pipeline:
        """Task and learner; loaded at first use where only settings were given."""
        if self._pipeline is None:
            self._pipeline = self._load()
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def _load(self) -> Pipeline:
        raise FewShotError(f"{type(self).__name__} is made by from_pretrained.")

    @classmethod
    def from_pretrained(
        cls,
        name: Any = None,
        *,
        task: str | None = None,
        learner: str | None = None,
        learner_config: Mapping[str, Any] | None = None,
        task_config: Mapping[str, Any] | None = None,
        adapter: Any = None,
        top_layers: int | None = None,
        device: str | None = None,
        **encoder_options: Any,
    ) -> Self:
        """Loads an encoder to adapt, or a model that was adapted or meta-trained.

        Whatever moved in meta-training is the encoder's: any learner can be put on it, reading any of its layers.

        Args:
            name: None for the bundled encoder, with the meta-trained adapter that ships for some tasks; a folder
                or Hub name of an encoder, or of a model that `save_pretrained` or meta-training wrote; or an encoder
                in memory, a `SentenceTransformer` or a model of transformers, of which a copy is taken.
            task: name of the task; None for the class's own, or the saved model's.
            learner: name of the learner; None for the model's own, or the default, chosen by measurement (see
                docs/learners.md).
            learner_config: the learner's settings; others are those that suit it for the task (`Task.defaults`), else
                its own.
            task_config: the task's options.
            adapter: a `peft.PeftConfig` to put into the encoder.
            top_layers: put the adapter into the last k layers only.
            device: "cpu", "cuda", "cuda:1", ...; short for ``device_map``.
            encoder_options: as for `Encoder.from_pretrained`: revision, dtype, attn_implementation,
                device_map, layers, pooling, max_length; and for a saved model ``base``, the folder of its encoder.

        Raises:
            FewShotError: an unknown learner or setting, or files that are missing, damaged or unsafe.
        """
        if device is not None:
            encoder_options["device_map"] = device
        choice = {"learner": learner, "learner_config": learner_config, "task_config": task_config}
        saved = load_parts(name, task or cls.task_name, choice, adapter, top_layers, encoder_options)
        model = cls.of(saved.pipeline, model=saved.model, descriptions=saved.descriptions, extra=saved.extra)
        model._examples, model._named = saved.examples, saved.named
        return model

    @property
    def labels(self) -> list[Any]:
        """The labels that the model predicts, in their natural order; empty before adapting."""
        return [] if self._model is None else list(self._model.labels)

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` was called, or the model was loaded so."""
        return self._model is not None

    def adapt(
        self,
        rows: Any,
        labels: Labels | None = None,
        *,
        column_mapping: Mapping[str, str] | None = None,
        conflicts: Conflicts = "refuse",
    ) -> Self:
        """Adapts to a support set, in place of whatever the model was adapted to before.

        Args:
            rows: a list of rows, a `datasets.Dataset`, a table of pandas or pyarrow, or a file (JSONL, CSV,
                CoNLL); may be empty where labels are given.
            labels: all label names, or label to a description of it; labels without a row are predicted
                from their names or descriptions.
            column_mapping: your column's name to the task's name for it.
            conflicts: what becomes of rows with the same input and different labels: an error ("refuse"), the
                "first" of them counts, or "drop" all.

        Returns:
            The model itself.

        Raises:
            FewShotError: empty support, too few labels, a bad row (named), rows that contradict each other.
        """
        labels = given_labels(labels)
        examples = self._read(rows, column_mapping)
        return self._adapt(examples, labels, tuple(labels or ()), conflicts)

    def add(
        self, rows: Any, labels: Labels | None = None, *, column_mapping: Mapping[str, str] | None = None
    ) -> Self:
        """Extends the support set by more rows, and perhaps more labels; the rest as for `adapt`.

        A model that was loaded from a folder knows its state, not its examples, and can only be adapted anew, unless
        its learner remembers them.
        """
        return self._extend(self._read(rows, column_mapping), given_labels(labels))

    def _extend(self, more: list[Example], labels: Labels | None) -> Self:
        if self._model is None or not (self._examples or self.descriptions):
            raise FewShotError(
                "add() extends a support set, but this model has none in memory; call adapt() first."
            )
        words = labels if isinstance(labels, Mapping) else dict.fromkeys(labels or (), "")
        return self._adapt_again([*self._examples, *more], self._model.labels, words)

    def _adapt_again(
        self, examples: list[Example], labels: Iterable[Label], more: Mapping[Any, str] | None = None
    ) -> Self:
        """Adapts to other examples: labels and descriptions that were given stay, and more may come."""
        known = dict.fromkeys([*labels, *self.pipeline.task.labels(examples)], "")
        words = {**known, **self.descriptions, **(more or {})}
        return self._adapt(examples, words or None, named=(*self._named, *(more or {})))

    @property
    def memory(self) -> ModelMemory:
        """The examples as a memory: add to it, forget, and tell which of them a prediction rests on.

        Raises:
            FewShotError: the learner is another than ``nearest_neighbour``, which alone remembers examples.
        """
        return ModelMemory(self)

    def grow(self) -> Self:
        """Keeps what the model is adapted to: the next `adapt` learns another task on top of it (Progressive Networks).

        Save the model before: the folder of each task predicts that task, and the last one holds all columns.

        Raises:
            FewShotError: the learner is not one that grows, or the model is not adapted.
        """
        self.pipeline.learner.grow(self._adapted().adapted.state)
        return self

    def predict(self, inputs: Iterable[Any], **options: Unpack[PredictOptions]) -> list[Any]:
        """A prediction for each input, in the form that the task gives it (`Task.shown`).

        Args:
            inputs: texts, or whatever else the task takes.
            options: ``refuse_empty``: refuse an input without a visible character; else nothing is predicted for it
                (`Task.abstained`), and the log tells of it. ``batch_size``: inputs that are computed at once (2048);
                fewer take less memory. ``show_progress_bar``: True or False; else where it takes over two seconds.

        Raises:
            FewShotError: a bad input, with its number; or the model is not adapted.
        """
        return [self.pipeline.task.shown(p) for p in self.predictions(inputs, **options)]

    def __call__(self, inputs: Iterable[Any], **options: Any) -> list[Any]:
        """As `predict`."""
        return self.predict(inputs, **options)

    def predictions(
        self, inputs: Iterable[Any], model: TaskModel | None = None, **options: Unpack[PredictOptions]
    ) -> list[Prediction]:
        """All that the task tells of each input; `predict` gives the part of it that most callers want.

        Args:
            inputs: as for `predict`.
            model: an adapted model to take instead of this one's.
            options: as for `predict`.
        """
        model = model or self._adapted()
        queries = self._queries(inputs, options.get("refuse_empty", False))
        return model.predict(queries, options.get("show_progress_bar"), options.get("batch_size"))

    def _queries(self, inputs: Iterable[Any], refuse_empty: bool = False) -> list[Query | None]:
        return self.pipeline.task.queries(self._inputs(inputs, "predict"), refuse_empty=refuse_empty)

    def _inputs(self, inputs: Any, what: str) -> Iterable[Any]:
        if isinstance(inputs, str | Mapping) or not isinstance(inputs := records(inputs), Iterable):
            raise FewShotError(
                f"{what} takes a list of inputs, but was given one {type(inputs).__name__}; put it in [ ]."
            )
        return inputs

    def evaluate(self, rows: Any, *, column_mapping: Mapping[str, str] | None = None) -> dict[str, float]:
        """Scores predictions for labelled rows; the names of the metrics say their definitions.

        Raises:
            FewShotError: a row has a label that the model was not adapted to.
        """
        model = self._adapted()
        examples = self._read(rows, column_mapping)
        if not examples:
            raise FewShotError("There are no rows to evaluate.")
        unknown = [label for label in self.pipeline.task.labels(examples) if label not in model.labels]
        if unknown:
            raise FewShotError(
                f"The rows have the label {quoted(unknown[0])}, which the support set had not ({len(unknown)} such "
                f"labels). Known: {joined(model.labels)}. Adapt with examples of it, or leave its rows out."
            )
        task = self.pipeline.task
        predicted = model.predict([task.asked(e) for e in examples], progress=None)
        return task.metrics(*task.paired(examples, predicted), model.labels)

    def save_pretrained(self, folder: str | Path, *, examples: bool = True, base: Base | None = None) -> Path:
        """Writes the model to a folder, which `from_pretrained` reads; with a model card.

        Args:
            folder: new, empty, or a model's.
            examples: with a learner that remembers, write the examples too, so that the loaded model can extend,
                forget and explain. `push_to_hub` never does.
            base: "copy" writes the encoder's weights into the folder, "reference" does not: `from_pretrained` is
                then given their folder as ``base``. None copies what is not to be had from the Hub.
        """
        return self._save(user_path(folder), user_path(folder).resolve().name, examples, base)

    def _save(self, folder: Path, name: str, examples: bool = False, base: Base | None = None) -> Path:
        kept = examples and self._model is not None and self._examples and has_memory(self.pipeline)
        return save(
            folder,
            self.pipeline,
            self._model,
            self.descriptions,
            self.extra,
            {"README.md": model_card(self, name)},
            examples=self._examples if kept else None,
            named=self._named,
            base=base,
        )

    def _read(self, rows: Any, column_mapping: Mapping[str, str] | None) -> list[Example]:
        return self.pipeline.task.examples(read_rows(rows, self.pipeline.task.name, column_mapping))

    def _adapt(
        self,
        examples: list[Example],
        labels: Labels | None,
        named: tuple[Label, ...],
        conflicts: Conflicts = "refuse",
    ) -> Self:
        task, examples = self.pipeline.task.suited(examples)
        examples = task.settled(examples, conflicts)
        found = task.labels(examples)
        given = [as_label(label, "a given label") for label in labels or ()]
        names = list(found) if labels is None else list(sorted_labels(given))
        missing = [label for label in found if label not in names]
        if missing:
            raise FewShotError(
                f"The rows have the label {quoted(missing[0])}, which is not among the given labels: {joined(names)}."
            )
        if not examples and labels is None and self.pipeline.unadapted() is None:
            raise FewShotError(
                "The support set is empty; give at least one row, or labels={name: description}."
            )
        task.check_labels(names)
        words = described(labels) if isinstance(labels, Mapping) else {}
        pipeline = replace(self.pipeline, task=task)
        self._model = pipeline.adapt(examples, names, words)
        self._pipeline = pipeline
        self._examples, self._named, self.descriptions, self._store = examples, named, words, None
        if "n_episodes" not in self.extra.get("scores", {}):  # unlike a report, of the old support set
            self.extra.pop("scores", None)
        self.extra["support_size"] = len(examples)
        logger.info("%s adapted to %s.", self.pipeline.learner.name, self._size())
        return self

    def _adapted(self) -> TaskModel:
        if self._model is not None:
            return self._model
        self._unadapted = self._unadapted or self.pipeline.unadapted()
        if self._unadapted is None:
            raise FewShotError("The model is not adapted yet; call adapt(rows) first.")
        return self._unadapted
