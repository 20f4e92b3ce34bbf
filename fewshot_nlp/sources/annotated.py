"""Predictions as annotation tools read them, to be corrected there; `read_rows` reads what they give back."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fewshot_nlp.errors import FewShotError, did_you_mean
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.sources.conll import render_conll
from fewshot_nlp.sources.json_files import render_lines

if TYPE_CHECKING:
    from fewshot_nlp.tasks.annotation import Annotation


@dataclass(frozen=True)
class LabelStudio:
    """Names in a Label Studio project's labelling interface, which its template gives.

    Args:
        control: of ``<Labels>`` or ``<Choices>``.
        object: of ``<Text>``.
        column: of the data, ``$text`` in ``<Text>``.
    """

    control: str = "label"
    object: str = "text"
    column: str = "text"


def _label_studio(found: Sequence["Annotation"], names: LabelStudio) -> str:
    """Tasks with a prediction each, which an annotator accepts or corrects."""
    place = {"from_name": names.control, "to_name": names.object}

    def results(a: "Annotation") -> list[dict[str, Any]]:
        values = [
            {"start": s, "end": e, "text": a.text[s:e], "labels": [str(label)]} for s, e, label in a.spans
        ] or ([{"choices": list(map(str, a.labels))}] if a.labels else [])
        kind = "labels" if a.marks else "choices"
        return [{"id": f"r{i}", **place, "type": kind, "value": value} for i, value in enumerate(values, 1)]

    def prediction(a: "Annotation") -> dict[str, Any]:
        score = {} if a.score is None else {"score": a.score}
        return {"model_version": "fewshot_nlp", **score, "result": results(a)}

    tasks = [{"data": {names.column: a.text}, "predictions": [prediction(a)]} for a in found]
    return json.dumps(tasks, ensure_ascii=False, indent=1)


def _doccano(found: Sequence["Annotation"]) -> str:
    return render_lines(
        [{"text": a.text, "label": list(map(list, a.spans)) if a.marks else list(a.labels)} for a in found]
    )


def _prodigy(found: Sequence["Annotation"]) -> str:
    def answer(a: "Annotation") -> dict[str, Any]:
        if a.marks:
            return {"spans": [{"start": s, "end": e, "label": name} for s, e, name in a.spans]}
        return {"options": [{"id": x, "text": str(x)} for x in a.labels], "accept": list(a.labels)}

    return render_lines([{"text": a.text, **answer(a), "answer": "accept"} for a in found])


def _spacy(found: Sequence["Annotation"]) -> str:
    """Pairs of a text and its entities or categories."""
    pairs = [
        [
            a.text,
            {"entities": list(map(list, a.spans))} if a.marks else {"cats": {str(x): 1.0 for x in a.labels}},
        ]
        for a in found
    ]
    return json.dumps(pairs, ensure_ascii=False, indent=1)


def _conll(found: Sequence["Annotation"]) -> str:
    if any(a.tags is None for a in found):
        raise FewShotError(
            "CoNLL holds words and tags, which texts with labels have not; take another format."
        )
    return render_conll([{"tokens": a.words, "ner_tags": a.tags} for a in found if a.tags])


TOOLS: Mapping[str, tuple[Callable[..., str], str]] = {
    "label-studio": (_label_studio, ".json"),
    "doccano": (_doccano, ".jsonl"),
    "prodigy": (_prodigy, ".jsonl"),
    "spacy": (_spacy, ".json"),
    "conll": (_conll, ".conll"),
}
"""What writes the file of a tool, and how its name must end to be read again."""


def render_annotations(
    found: Sequence["Annotation"], format: str, options: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """The text of a tool's file.

    Args:
        found: what to write.
        format: a name in `TOOLS`.
        options: of "label-studio": those of `LabelStudio`.

    Raises:
        FewShotError: an unknown format or option, or a format that cannot hold the annotations.
    """
    if format not in TOOLS:
        raise FewShotError(
            f"format is {format!r}, but must be one of: {', '.join(TOOLS)}.{did_you_mean(format, TOOLS)}"
        )
    known = [field.name for field in fields(LabelStudio)] if format == "label-studio" else []
    for name in options:
        if name not in known:
            raise FewShotError(
                f"{format} has no option {name!r}; it has: {', '.join(known) or 'none'}.{did_you_mean(name, known)}"
            )
    return TOOLS[format][0](found, *([LabelStudio(**options)] if known else []))


def write_annotations(
    path: str | Path,
    found: Sequence["Annotation"],
    format: str,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Writes a tool's file; with "spacy" and the ending ``.spacy`` as spaCy's DocBin, which needs spaCy.

    Raises:
        FewShotError: as `render_annotations`, or a name with another ending than the tool's.
    """
    path = user_path(path)
    text = render_annotations(found, format, options)
    if format == "spacy" and path.suffix == ".spacy":
        with atomic_write(path) as part:
            part.write_bytes(_docbin(found))
        return path
    if path.suffix != TOOLS[format][1]:
        raise FewShotError(f"{path} ends in {path.suffix!r}, but a file of {format} in {TOOLS[format][1]!r}.")
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _docbin(found: Sequence["Annotation"]) -> bytes:
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError as error:
        raise FewShotError(
            'spaCy is not installed: pip install "fewshot_nlp[spacy]", or write .json.'
        ) from error
    nlp, bin_ = spacy.blank("xx"), DocBin()
    for a in found:
        doc = nlp.make_doc(a.text)
        spans = [doc.char_span(s, e, name, alignment_mode="expand") for s, e, name in a.spans]
        doc.ents = spacy.util.filter_spans([span for span in spans if span is not None])
        doc.cats = {str(label): 1.0 for label in a.labels}
        bin_.add(doc)
    data: bytes = bin_.to_bytes()
    return data
