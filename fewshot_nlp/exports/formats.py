"""The formats by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, did_you_mean
from fewshot_nlp.exports.adapter import write_peft
from fewshot_nlp.exports.onnx_graph import write_onnx
from fewshot_nlp.exports.sentence_encoder import write_sentence_transformer
from fewshot_nlp.exports.task_model import write_transformers
from fewshot_nlp.persistence.disk import atomic_folder, user_path
from fewshot_nlp.pipeline import TaskModel


def _write_spacy(model: TaskModel, folder: Path) -> None:
    from fewshot_nlp.exports.spacy_component import write_spacy

    write_spacy(model, folder)


FORMATS: Mapping[str, Callable[..., None]] = {
    "transformers": write_transformers,
    "peft": write_peft,
    "sentence-transformers": write_sentence_transformer,
    "onnx": write_onnx,
    "spacy": _write_spacy,
}
"""What writes a format into an empty folder."""


def export(model: TaskModel, folder: str | Path, format: str, **options: Any) -> Path:
    """Writes an adapted model in the format of another tool.

    Args:
        model: task, learner, and the state that it was adapted to.
        folder: new or empty.
        format: a name in `FORMATS`.
        options: of the format: ``int8`` of "onnx".

    Raises:
        FewShotError: an unknown format, a folder that is in use, a library that is missing, or a learner whose scores
            the format cannot express.
    """
    if format not in FORMATS:
        raise FewShotError(
            f"format is {format!r}, but must be one of: {', '.join(FORMATS)}.{did_you_mean(format, FORMATS)}"
        )
    if model.pipeline.learner.encoder.vocabulary is not None:
        raise FewShotError(
            f"{model.pipeline.task.name} is done by a sequence-to-sequence model, which is not exported; "
            "save_pretrained writes it, and its folder encoder/ is what transformers and optimum read."
        )
    target = user_path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FewShotError(f"{folder} exists and is not empty; name a new folder, nothing was written.")
    with atomic_folder(target.resolve()) as new:
        FORMATS[format](model, new, **options)
    return target
