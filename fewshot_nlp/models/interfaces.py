"""What other tools expect of a model: `to`, `encode`, a representation in notebooks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack, overload

import numpy as np
import torch
from jaxtyping import Float

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.evaluator import Report
from fewshot_nlp.exports import export
from fewshot_nlp.modules.state import fast_weights
from fewshot_nlp.persistence.hub import Upload, push_folder, would_push
from fewshot_nlp.predictions import PredictOptions
from fewshot_nlp.progress import progress_bar
from fewshot_nlp.sources import write_annotations
from fewshot_nlp.tasks import TASKS

if TYPE_CHECKING:
    from fewshot_nlp.episode import Example, Json, Query
    from fewshot_nlp.memory.store import MemoryStore
    from fewshot_nlp.pipeline import Pipeline, TaskModel

Spans = Sequence[tuple[int, int, str]]
"""First character, character after the last, and name of each marked span, in order."""
SHOWN = 5
"""Examples that a notebook shows of a model."""


def marked(text: str, spans: Spans, left: str = "[", right: str = "]") -> str:
    """A text with its spans between two marks, each with its name."""
    return _with_marks(text, spans, lambda words, name: f"{left}{f'{words} {name}'.strip()}{right}", str)


def marked_html(text: str, spans: Spans) -> str:
    """A text as HTML, escaped, with its spans highlighted."""

    def mark(words: str, name: str) -> str:
        return f"<mark>{escape(words)}{f' <b>{escape(name)}</b>' if name else ''}</mark>"

    return _with_marks(text, spans, mark, escape)


def _with_marks(text: str, spans: Spans, mark: Any, plain: Any) -> str:
    parts, at = [], 0
    for start, end, name in spans:
        if start >= at:  # answers may overlap
            parts += [plain(text[at:start]), mark(text[start:end], name)]
            at = end
    return "".join([*parts, plain(text[at:])])


class PushOptions(TypedDict, total=False):
    """Options of `push_to_hub`."""

    private: bool
    token: str | None
    revision: str | None
    create_pr: bool
    scores: "Mapping[str, Any] | Report | None"


class Shown(list[str]):
    """Marked texts, highlighted in a notebook.

    Args:
        texts: with marks.
        html: the same as HTML.
    """

    def __init__(self, texts: Iterable[str], html: Iterable[str]) -> None:
        super().__init__(texts)
        self._html = list(html)

    def _repr_html_(self) -> str:
        return "".join(f'<p style="white-space: pre-wrap">{text}</p>' for text in self._html)


class Interfaces:
    """The part of `FewShotModel` that other tools look for."""

    if TYPE_CHECKING:
        pipeline: Pipeline
        _model: TaskModel | None
        _unadapted: TaskModel | None
        _store: MemoryStore | None
        _examples: list[Example]
        extra: dict[str, Json]

        @property
        def labels(self) -> list[Any]:
            """As the model's."""

        @property
        def is_adapted(self) -> bool:
            """As the model's."""

        def _adapted(self) -> TaskModel: ...

        predict: Any

    def to(self, device: Any) -> Self:
        """Moves the model to a device, such as "cuda" or "cpu".

        Raises:
            FewShotError: the device is not here.
        """
        learner = self.pipeline.learner
        learner.encoder.to(device)
        learner.to(device)
        self._model = None if self._model is None else self._model.to(device)
        self._unadapted = self._store = None
        return self

    def encode(
        self, texts: Iterable[Any], *, batch_size: int = 2048, show_progress_bar: bool | None = None
    ) -> Float[np.ndarray, "n_texts d"]:
        """Embeddings of texts, as the adapted encoder gives them: its last layer, pooled; zeros for an empty text.

        Args:
            texts: texts, or pairs of texts.
            batch_size: texts that are tokenised and computed at once, from 1.
            show_progress_bar: True or False; None for a bar where it takes over two seconds.

        Raises:
            FewShotError: a bad text, with its number, or a model that translates.
        """
        learner = self.pipeline.learner
        if learner.encoder.vocabulary is not None:
            raise FewShotError("A sequence-to-sequence model gives no embeddings of texts; take an encoder.")
        reader = TASKS.get("classification")()
        queries = reader.queries(self._inputs(texts, "encode"))
        filled = [i for i, query in enumerate(queries) if query is not None]
        weights = fast_weights({} if self._model is None else self._model.adapted.state)
        found = np.zeros((len(queries), int(learner.encoder.model.config.hidden_size)), np.float32)
        with (
            torch.no_grad(),
            learner.encoder.as_loaded(),
            progress_bar(total=len(filled), shown=show_progress_bar, unit=" texts", leave=False) as bar,
        ):
            for start in range(0, len(filled), max(1, batch_size)):
                places = filled[start : start + max(1, batch_size)]
                some: list[Query] = [q for i in places if (q := queries[i]) is not None]
                batch = reader.collate(some, (), learner.encoder.tokenizer, with_targets=False)
                found[places] = learner.last_layer(learner.features(batch, weights)).float().cpu().numpy()
                bar.update(len(places))
        return found

    def predict_iter(
        self, inputs: Iterable[Any], chunk: int = 1024, **options: Unpack[PredictOptions]
    ) -> Iterator[Any]:
        """`predict` for a stream: reads ``chunk`` inputs at a time, and yields a prediction for each, in order.

        Raises:
            FewShotError: as `predict`, with the input's number in its chunk.
        """
        stream = iter(inputs)
        while part := list(islice(stream, chunk)):
            yield from self.predict(part, **options)

    def export(self, folder: str | Path, format: str, **options: Any) -> Path:
        """Writes the adapted model in the format of another tool; docs/exports.md says which learners have which.

        Args:
            folder: new or empty.
            format: "transformers", "peft", "sentence-transformers", "onnx" or "spacy".
            options: ``int8=True`` of "onnx".

        Raises:
            FewShotError: the format cannot express the learner's scores, or its library is missing.
        """
        return export(self._adapted(), folder, format, **options)

    def annotate(self, inputs: Iterable[Any], path: str | Path, format: str, **options: str) -> Path:
        """Writes predictions as an annotation tool reads them, to be corrected there and read again by `adapt`.

        Args:
            inputs: as for `predict`; empty ones are left out.
            path: the file: .json of "label-studio" and "spacy" (or .spacy), .jsonl of "doccano" and "prodigy", .conll
                of "conll".
            format: one of these.
            options: of "label-studio", the names in its interface: ``control`` ("label"), ``object`` ("text"),
                ``column`` ("text").

        Raises:
            FewShotError: another format, option or ending, or a task that marks or labels no texts.
        """
        queries = [q for q in self.pipeline.task.queries(self._inputs(inputs, "annotate")) if q is not None]
        pairs = zip(queries, self._adapted().predict(queries, progress=None), strict=True)
        found = [self.pipeline.task.annotation(q, p) for q, p in pairs]
        return write_annotations(path, found, format, options)

    @overload
    def push_to_hub(
        self, repo_id: str, *, dry_run: Literal[False] = False, **options: Unpack[PushOptions]
    ) -> str: ...
    @overload
    def push_to_hub(
        self, repo_id: str, *, dry_run: Literal[True], **options: Unpack[PushOptions]
    ) -> Upload: ...
    def push_to_hub(
        self, repo_id: str, *, dry_run: bool = False, **options: Unpack[PushOptions]
    ) -> str | Upload:
        """Uploads the model with its card to the Hugging Face Hub.

        Args:
            repo_id: "user/name".
            dry_run: send nothing, and need no network: tell what would be sent.
            options: as in huggingface_hub: ``private`` (a new repository is private), ``token`` (else the one that `hf
                auth login` stored), ``revision`` (a branch, made if needed; else main), ``create_pr`` (as a pull
                request). And ``scores`` for the card: what `evaluate` returned, perhaps with "n_rows", "seed" and
                "dataset" added, or the report of `evaluate_episodes`.

        Returns:
            The address of the uploaded commit, or of the pull request; for a dry run the files with their sizes.
        """
        scores = options.pop("scores", None)
        if scores is not None:
            given = scores.to_json() if isinstance(scores, Report) else scores
            self.extra["scores"] = {name: value for name, value in given.items() if name != "per_episode"}
        write = partial(self._save, name=repo_id)
        if dry_run:
            return would_push(write, repo_id, **options)  # type: ignore[misc]
        return push_folder(write, repo_id, **options)  # type: ignore[misc]

    def _save(self, folder: Path, name: str, examples: bool = False) -> Path:
        raise NotImplementedError

    def _inputs(self, inputs: Any, what: str) -> Iterable[Any]:
        raise NotImplementedError

    def _size(self) -> str:
        """Labels and examples in words."""
        return f"{len(self._examples)} examples" + (f" of {len(self.labels)} labels" if self.labels else "")

    def __repr__(self) -> str:
        state = f"adapted to {self._size()}" if self.is_adapted else "not adapted"
        return f"<{type(self).__name__}: {self.pipeline.task.name} by {self.pipeline.learner.name}, {state}>"

    def _repr_html_(self) -> str:
        """What the model is, and its first examples, with entities and answers highlighted."""
        rows = [self.pipeline.task.highlights(e) for e in self._examples[:SHOWN]] if self._examples else []
        listed = "".join(
            f'<li style="white-space: pre-wrap">{marked_html(text, spans)} <i>{escape(note)}</i></li>'
            for text, spans, note in rows
        )
        more = len(self._examples) - len(rows)
        rest = f"<li>... and {more} more</li>" if more > 0 else ""
        return f"<div>{escape(repr(self).strip('<>'))}<ul>{listed}{rest}</ul></div>"
