"""A component of spaCy that writes ``doc.ents`` or ``doc.cats``, from a folder that `save_pretrained` wrote."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.storage import load, save
from fewshot_nlp.pipeline import TaskModel

NAME = "fewshot_nlp"


class FewShotComponent:
    """Predicts the entities or the categories of documents.

    Args:
        model: adapted to entities or to labels of texts; None until `from_disk`.
    """

    def __init__(self, model: TaskModel | None = None) -> None:
        self.model = model

    def __call__(self, doc: Any) -> Any:
        """The document with what is predicted for it."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Any], *, batch_size: int = 128) -> Iterator[Any]:
        """As `__call__`, for many documents at once."""
        if self.model is None:
            raise FewShotError(f'The component {NAME} has no model; give config={{"folder": ...}}.')
        documents = iter(stream)
        while part := list(islice(documents, batch_size)):
            queries = self.model.pipeline.task.queries([doc.text for doc in part])
            for doc, prediction in zip(part, self.model.predict(queries), strict=True):
                yield self._written(doc, prediction)

    def _written(self, doc: Any, prediction: dict[str, Any]) -> Any:
        from spacy.util import filter_spans

        assert self.model is not None
        if "entities" in prediction:
            spans = [
                doc.char_span(e["start"], e["end"], e["entity_group"], alignment_mode="expand")
                for e in prediction["entities"]
            ]
            doc.ents = filter_spans([span for span in spans if span is not None])
        else:
            doc.cats = dict(
                zip(map(str, self.model.labels), map(float, prediction["probabilities"]), strict=True)
            )
        return doc

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Writes the model's folder."""
        if self.model is not None:
            save(path, self.model.pipeline, self.model)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "FewShotComponent":
        """Reads what `to_disk` wrote."""
        self.model = _checked(load(path).model)
        return self


def make(nlp: Any, name: str, folder: str | None) -> FewShotComponent:
    """The component of a folder that `save_pretrained` wrote; without one it is read from the pipeline's own files."""
    return FewShotComponent(None if folder is None else _checked(load(folder).model))


def _checked(model: TaskModel | None) -> TaskModel:
    if model is None or not model.pipeline.task.has_labels:
        found = "a model that is not adapted" if model is None else f"a model for {model.pipeline.task.name}"
        raise FewShotError(f"The folder holds {found}; spaCy takes entities, or labels of texts.")
    return model


if find_spec("spacy") is not None:
    import_module("spacy.language").Language.factory(NAME, func=make, default_config={"folder": None})


def write_spacy(model: TaskModel, folder: Path) -> None:
    """Writes a pipeline with the one component, for ``spacy.load(folder)``."""
    try:
        import spacy
    except ImportError as error:
        raise FewShotError('spaCy is not installed: pip install "fewshot_nlp[spacy]".') from error
    nlp = spacy.blank("xx")
    nlp.add_pipe(NAME).model = _checked(model)
    nlp.to_disk(folder)
