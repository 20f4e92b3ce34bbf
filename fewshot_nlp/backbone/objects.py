"""Models that a user holds in memory, as a folder that loading reads: of sentence-transformers or transformers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fewshot_nlp.backbone.loading import hub_answers
from fewshot_nlp.errors import FewShotError, quoted
from fewshot_nlp.persistence.disk import first_line


def name_of(model: Any) -> str:
    """A model's name: as it was given, or as the model calls itself."""
    return str(
        model
        if isinstance(model, str | Path)
        else getattr(model, "name_or_path", None) or type(model).__name__
    )


@contextmanager
def as_folder(model: Any) -> Iterator[Path]:
    """A folder with a model's files and its tokenizer's, for as long as the context lasts; the model stays as it is.

    Args:
        model: a `SentenceTransformer`, or a model of transformers, whose tokenizer is found by its ``name_or_path``.

    Raises:
        FewShotError: something else, or a model without a tokenizer.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, "encoder")
        if _is_a(model, "sentence_transformers", "SentenceTransformer"):
            model.save_pretrained(str(folder), create_model_card=False)
        elif _is_a(model, "transformers", "PreTrainedModel"):
            _tokenizer(model).save_pretrained(folder)
            model.save_pretrained(folder)
        else:
            raise FewShotError(
                f"The encoder is a {type(model).__name__}, but must be a folder, a Hub name, a SentenceTransformer, or "
                "a model of transformers such as AutoModel gives."
            )
        yield folder


def _is_a(model: Any, library: str, name: str) -> bool:
    """Whether a model is of a class of a library; nobody can hold one of a library that is not imported."""
    return library in sys.modules and isinstance(model, getattr(sys.modules[library], name))


def _tokenizer(model: Any) -> Any:
    from transformers import AutoTokenizer

    source = str(model.name_or_path)
    here = Path(source).exists() or not hub_answers(source, None)
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=here)
    except Exception as error:
        raise FewShotError(
            f"The {type(model).__name__} has name_or_path {quoted(model.name_or_path)}, where no tokenizer is found "
            f"({first_line(error)[:80]}); save both into a folder with save_pretrained, and name the folder."
        ) from error
