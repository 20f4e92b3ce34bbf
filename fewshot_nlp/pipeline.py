"""A task and a learner: from examples to predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fewshot_nlp.episode import Episode, Example, Query, canonical_json
from fewshot_nlp.errors import FewShotError, quoted
from fewshot_nlp.learners import Adapted, Learner
from fewshot_nlp.progress import progress_bar
from fewshot_nlp.rows import ItemError, Label
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.tasks import Task
from fewshot_nlp.tasks.base import Prediction
from fewshot_nlp.tasks.label_words import readable, says_nothing

CHUNK = 2048
"""Items tokenised and scored in one batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """A task and a learner."""

    task: Task
    learner: Learner

    def support(
        self,
        examples: Sequence[Example],
        labels: Sequence[Label],
        descriptions: Mapping[Label, str] | None = None,
    ) -> SlotBatch:
        """The support batch: slots of the examples, and one or more label slots for each label.

        Where the order of slots matters to the learner, the examples are sorted by their content, so that the order in
        which they are given does not.

        Args:
            examples: the support set; may be empty if labels are given.
            labels: sorted label names.
            descriptions: descriptions of some labels; the names of the others are used.
        """
        words: dict[Label, str] = {label: readable(label) for label in labels} | dict(descriptions or {})
        order = list(range(len(examples)))
        if not self.learner.order_free:
            order.sort(key=lambda i: canonical_json([examples[i].inputs, examples[i].target]))
        if self.learner.config.label_names == 0:
            seen = self.task.labels(examples)
            words = {label: text for label, text in words.items() if label not in seen}
        ordered, tokenizer = [examples[i] for i in order], self.learner.encoder.tokenizer
        try:
            return self.task.collate(ordered, labels, tokenizer, with_targets=True, descriptions=words)
        except ItemError as error:
            raise ItemError(order[error.index], error.reason) from None

    def _names(self, labels: Sequence[Label], descriptions: Mapping[Label, str] | None) -> SlotBatch | None:
        """Slots of the labels' names for the backbone's head.

        None where the backbone has no head, its weight is 0, or a label has neither a description nor a name with a
        meaning.
        """
        if self.learner.encoder.head is None or self.learner.config.head_weight == 0 or not labels:
            return None
        words: dict[Label, str] = {label: readable(label) for label in labels} | dict(descriptions or {})
        if any(map(says_nothing, words.values())):
            return None
        tokenizer = self.learner.encoder.tokenizer
        batch = self.task.collate((), labels, tokenizer, with_targets=True, descriptions=words)
        return batch if batch.normaliser == "classes" and batch.hints.label_slots is not None else None

    def queries(self, items: Sequence[Query], labels: Sequence[Label]) -> SlotBatch:
        """The batch of query items, without targets."""
        return self.task.collate(items, labels, self.learner.encoder.tokenizer, with_targets=False)

    def adapt(
        self,
        examples: Sequence[Example],
        labels: Sequence[Label],
        descriptions: Mapping[Label, str] | None = None,
    ) -> "TaskModel":
        """The model adapted to a support set; arguments as for `support`.

        Raises:
            FewShotError: there is no example, and no trained weights score the class of none of the labels.
        """
        unadapted = self.unadapted() if not examples else None
        if unadapted is not None:
            return unadapted
        support, names = self.support(examples, labels, descriptions), self._names(labels, descriptions)
        if not examples and names is None and not self.learner.knows_the_rest:
            self._need_all_named(
                support, {label: readable(label) for label in labels} | dict(descriptions or {})
            )
        adapted = self.learner.adapt(support, names)
        scores = adapted.scores(support) if self.task.calibrates_on_scores(support) else None
        return TaskModel(self, tuple(labels), adapted, self.task.calibrate(support, scores))

    def _need_all_named(self, support: SlotBatch, words: Mapping[Label, str]) -> None:
        """Raises `FewShotError` where a class, such as "no entity", has neither an example nor a name."""
        unnamed = support.target_matrix.sum(dim=0) == 0
        if support.normaliser != "classes" or not bool(unnamed.any()):
            return
        head = self.learner.encoder.head
        silent = [label for label, text in words.items() if says_nothing(text)]
        fix = "start from a model with a trained head of label names, such as the one that ships for entities"
        if head is not None:
            fix = "set head_weight above 0, so that the head of label names is read"
            if silent:
                fix = f"describe {quoted(silent[0])}, whose name says nothing, with labels={{name: description}}"
        name = quoted(str(support.classes[int(unnamed.nonzero()[0])]))
        raise FewShotError(
            f"Without an example nothing says what is {name}, none of the"
            f" {len(words)} labels: give at least one row, or {fix}."
        )

    def unadapted(self) -> "TaskModel | None":
        """The model without any example, for tasks without labels and learners with an initial state; else None."""
        state = None if self.task.has_labels else self.learner.initial_state()
        if state is None:
            return None
        return TaskModel(
            self, (), Adapted(self.learner, {k: v.detach().clone() for k, v in state.items()}), {}
        )

    def predict_episode(self, episode: Episode) -> list[Prediction]:
        """Adapts to an episode's support set and predicts its queries, without their targets."""
        model = self.adapt_suited(episode.support, episode.label_names)
        return model.predict([model.pipeline.task.asked(example) for example in episode.query])

    def adapt_suited(self, examples: Sequence[Example], labels: Sequence[Label]) -> "TaskModel":
        """`adapt`, with the task's options that fit the support set (`Task.suited`)."""
        task, support = self.task.suited(examples)
        return replace(self, task=task).adapt(support, labels)


@dataclass(frozen=True, slots=True, eq=False)
class TaskModel:
    """A pipeline adapted to one support set.

    Args:
        pipeline: task and learner.
        labels: sorted label names.
        adapted: the learner's result.
        decoding_parameters: of `Task.calibrate`: parameters of decoding, estimated on the support set.
    """

    pipeline: Pipeline
    labels: tuple[Label, ...]
    adapted: Adapted
    decoding_parameters: Mapping[str, Tensor]

    def to(self, device: Any) -> "TaskModel":
        """The model with its state on a device; the encoder is moved by itself."""
        state = {name: value.to(device) for name, value in self.adapted.state.items()}
        return replace(self, adapted=Adapted(self.pipeline.learner, state))

    def predict(
        self, queries: Sequence[Query | None], progress: bool | None = False, batch_size: int | None = None
    ) -> list[Prediction]:
        """Predicts each query.

        Args:
            queries: inputs; None for an empty one, for which the task abstains.
            progress: a bar: None where it takes over two seconds, True always, False never.
            batch_size: inputs that are tokenised and scored at once, from 1; None for 2048.

        Raises:
            FewShotError: the tokenizer refuses an input, with its number; or a ``batch_size`` below 1.
        """
        if not self.labels and self.pipeline.task.has_labels:
            raise FewShotError("There are no labels to predict; adapt the model first.")
        size = CHUNK if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise FewShotError(f"batch_size is {batch_size!r}, but must be a whole number from 1.")
        filled = [i for i, query in enumerate(queries) if query is not None]
        result: list[Prediction] = [{}] * len(queries)
        for i in set(range(len(queries))) - set(filled):
            result[i] = self.pipeline.task.abstained(self.labels)
        with progress_bar(total=len(filled), shown=progress, unit=" texts", leave=False) as bar:
            for start in range(0, len(filled), size):
                places = filled[start : start + size]
                try:
                    batch = self.pipeline.queries([q for i in places if (q := queries[i])], self.labels)
                except ItemError as error:
                    raise FewShotError(f"Input {places[error.index] + 1}: {error.reason}") from None
                for i, prediction in zip(places, self._decode(batch), strict=True):
                    result[i] = prediction
                bar.update(len(places))
        return result

    def measure(self, examples: Sequence[Example]) -> tuple[float, list[Prediction]]:
        """Mean loss of labelled examples, and their predictions, from the same scores unless generated."""
        task, tokenizer = self.pipeline.task, self.pipeline.learner.encoder.tokenizer
        batch = task.collate(examples, self.labels, tokenizer, with_targets=True)
        scores = self.adapted.scores(batch)
        asked = [task.asked(example) for example in examples]
        same = asked == [example.query for example in examples]
        if same and task.generation_options(batch, tokenizer) is None:
            return float(batch.loss(scores)), task.decode(scores, batch, self.decoding_parameters)
        return float(batch.loss(scores)), self.predict(asked)

    def _decode(self, batch: SlotBatch) -> list[Prediction]:
        task, tokenizer = self.pipeline.task, self.pipeline.learner.encoder.tokenizer
        options = task.generation_options(batch, tokenizer, self.decoding_parameters)
        if options is None:
            return task.decode(self.adapted.scores(batch), batch, self.decoding_parameters)
        return task.read_tokens(self.adapted.generate(batch, **options), batch, tokenizer)
