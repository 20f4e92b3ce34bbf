"""Rows as annotation tools and other libraries write them, told by their keys: each in the form of a task's rows.

Label Studio (JSON and JSON-MIN), doccano (old and new), Prodigy, spaCy (pairs and the JSON of version 2), GLiNER, BioC
and SQuAD with its paragraphs. What a tool says was not accepted is left out and counted. Keys that are not known are
passed over.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_nlp.errors import FewShotError, listed, logger, quoted
from fewshot_nlp.rows import as_list
from fewshot_nlp.sources.bioc import bioc_rows, is_bioc

Row = dict[str, Any]
Read = Callable[[Any], Iterator[Row]]
"""From one item of a file to its rows; of one that was not accepted a row with its text alone."""


@dataclass(frozen=True)
class Shape:
    """How a tool writes an item.

    Args:
        name: the tool, for the log.
        fits: whether an item has this shape; told by the keys alone.
        read: its rows.
        bare: whether an item may stand among those that fit: one in which nothing is annotated.
        known: keys of an item, parted by blanks; others are passed over, and told. Empty where any may stand.
    """

    name: str
    fits: Callable[[Any], bool]
    read: Read
    bare: Callable[[Any], bool] = lambda item: False
    known: str = ""


def converted(items: Sequence[Any], where: str, labelled: bool = True, kind: str = "") -> list[Any]:
    """Items of a known tool as rows; others as they are.

    Args:
        items: rows, or what a file held.
        where: the file, for messages.
        labelled: leave out what was not accepted.
        kind: of the file, for the log.

    Raises:
        FewShotError: an item of another shape than the others, or one that lacks what its tool writes, by number.
    """
    if not len(items):
        return list(items)
    items = _with_lists(items)
    shape, like = next(((s, n) for s in SHAPES if (n := _first(s, items))), (None, 0))
    if shape is None:
        if kind:
            logger.info("%s: read as %s, %d rows.", where, kind, len(items))
        return list(items)
    rows: list[Row] = []
    left_out = 0
    for number, item in enumerate(items, start=1):
        if not (shape.fits(item) or shape.bare(item)):
            raise FewShotError(
                f"{where}: item {like} is of {shape.name}, but item {number} is not: {quoted(item)}."
            )
        try:
            for row in shape.read(item):
                accepted = not labelled or row.keys() != {"text"}
                rows += [row] if accepted else []
                left_out += not accepted
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FewShotError(
                f"{where}: item {number} is not as {shape.name} writes it ({type(error).__name__}: {error})."
            ) from None
    counted = f"; {left_out} left out that were not accepted" if left_out else ""
    new = sorted({key for item in items for key in item} - set(shape.known.split())) if shape.known else []
    counted += f"; keys that are not known are passed over: {listed(new)}" if new else ""
    level = logging.WARNING if left_out or shape is UNCHECKED else logging.INFO
    logger.log(level, "%s: read as %s, %d rows%s.", where, shape.name, len(rows), counted)
    if not rows:
        raise FewShotError(f"{where}: none of the {len(items)} items of {shape.name} was accepted.")
    return rows


def _first(shape: Shape, items: Sequence[Any]) -> int:
    """The number of the first item that has a shape, where those before it may stand among such; else 0."""
    for number, item in enumerate(items, start=1):
        if shape.fits(item):
            return number
        if not shape.bare(item):
            return 0
    return 0


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda item: isinstance(item, Mapping) and all(key in item for key in keys)


def _has_parts(key: str) -> Callable[[Any], bool]:
    """Whether an item has paragraphs, the first of which has a key."""

    def fits(item: Any) -> bool:
        parts = item.get("paragraphs") if isinstance(item, Mapping) else None
        return isinstance(parts, list) and bool(parts) and _has(key)(parts[0])

    return fits


def _no_parts(item: Any) -> bool:
    """Whether an item is an article without paragraphs."""
    return isinstance(item, Mapping) and item.get("paragraphs") == []


def _span(start: Any, end: Any, label: Any) -> Row:
    return {"start": start, "end": end, "label": label}


def _label_studio(item: Any) -> Iterator[Row]:
    """A task with its annotations; the last one that was not cancelled counts."""
    done = [a for a in item.get("annotations", ()) if not a.get("was_cancelled")]
    yield _marked(item["data"], done[-1]["result"]) if done else {"text": _text_of(item["data"])}


def _label_studio_predicted(item: Any) -> Iterator[Row]:
    """A task with predictions alone, as one is imported into Label Studio; the last one counts."""
    yield _marked(item["data"], item["predictions"][-1]["result"])


def _marked(data: Mapping[str, Any], result: Sequence[Any]) -> Row:
    """The row of a task's columns and the parts of a result that have a value."""
    values = [r["value"] for r in result if isinstance(r.get("value"), Mapping)]
    odd = next((key for value in values for key in value if key.endswith("labels") and key != "labels"), None)
    if odd is not None:
        raise ValueError(f"{odd} mark parts of a page, whose places in the text it does not tell")
    spans = [_span(v["start"], v["end"], label) for v in values for label in v.get("labels", [])]
    choices = [choice for value in values for choice in value.get("choices", [])]
    return {"text": _text_of(data), "spans": spans, "labels": choices}


_OF_THE_TOOL = {"annotator", "agreement", "created_at", "updated_at"}
"""Columns that Label Studio adds and whose values are texts."""


def _text_of(columns: Mapping[str, Any]) -> str:
    """The text of a task: the column "text", else the longest one."""
    texts = {k: v for k, v in columns.items() if isinstance(v, str) and k not in _OF_THE_TOOL}
    if not texts:
        raise ValueError("no column of it holds a text")
    return str(texts.get("text") or max(texts.values(), key=len))


def _with_lists(items: Sequence[Any]) -> Sequence[Any]:
    """The columns of JSON-MIN that hold several choices in some row as lists in all; a single one as "labels"."""
    if not all(isinstance(item, Mapping) for item in items):
        return items
    several = sorted({key for item in items for key, value in item.items() if _has("choices")(value)})
    if not several:
        return items

    def chosen(value: Any) -> list[Any]:
        if isinstance(value, Mapping):
            return list(value["choices"])
        return [] if value is None else [value]

    names = {key: "labels" if len(several) == 1 else key for key in several}
    return [{**item, **{names[key]: chosen(item.get(key)) for key in several}} for item in items]


def _label_studio_min(item: Any) -> Iterator[Row]:
    """JSON-MIN: columns of the data beside those of the annotation, which holds lists with "labels"."""
    found: list[Any] = next((value for value in item.values() if _is_min(value)), [])
    yield {
        "text": _text_of(item),
        "spans": [_span(v["start"], v["end"], label) for v in found for label in v["labels"]],
    }


def _has_min(item: Any) -> bool:
    return isinstance(item, Mapping) and any(map(_is_min, item.values()))


def _is_min(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and _has("start", "end", "labels")(value[0])


def _is_unmarked(item: Any) -> bool:
    """Whether an item has texts and numbers only, as JSON-MIN writes one without an annotation."""
    return isinstance(item, Mapping) and not any(isinstance(v, list | Mapping) for v in item.values())


def _doccano(item: Any) -> Iterator[Row]:
    """``label`` (old) or ``entities`` (new): categories, lists of start, end and label, or objects with offsets."""
    marks = _marks(item) or []
    yield {
        "text": item.get("text", item.get("data")),
        "spans": [
            _span(*s[:3]) if isinstance(s, list) else _span(s["start_offset"], s["end_offset"], s["label"])
            for s in marks
            if not isinstance(s, str)
        ],
        "labels": [mark for mark in marks if isinstance(mark, str)],
    }


def _is_predicted(item: Any) -> bool:
    """Whether an item has entities with offsets, as this package, transformers or GLiNER predict them."""
    found = item.get("entities") if _has("entities")(item) else None
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, Mapping) and {"start", "end"} <= first.keys() and bool(_TYPE & first.keys())


_TYPE = {"entity_group", "type", "label"}
"""Keys that hold an entity's type."""


def _predicted(item: Any) -> Iterator[Row]:
    """A text with its entities, or words with their predicted tags."""
    if "text" not in item:
        yield {"tokens": item["tokens"], "ner_tags": item["predicted_tags"]}
        return
    spans = [_span(e["start"], e["end"], next(e[k] for k in e if k in _TYPE)) for e in item["entities"]]
    yield {"text": item["text"], "spans": spans}


def _marks(item: Any) -> list[Any] | None:
    """What doccano says of a text, as a list; None for what is no item of it."""
    if not isinstance(item, Mapping) or not ({"text", "data"} & item.keys()):
        return None
    found = next((item[key] for key in ("entities", "label", "labels") if key in item), None)
    return found if isinstance(found, list) else None


def _is_doccano(item: Any) -> bool:
    marks = _marks(item)
    if not marks:
        return marks is not None and "entities" in item
    first = marks[0]
    if isinstance(first, str):
        return "label" in item
    return _has("start_offset", "end_offset", "label")(first) or (
        isinstance(first, list)
        and len(first) >= 3
        and isinstance(first[0], int | float)
        and isinstance(first[2], str)
    )


def _prodigy(item: Any) -> Iterator[Row]:
    """A task with an answer: spans, and a label or the accepted options."""
    if item["answer"] != "accept":
        yield {"text": item["text"]}
        return
    spans = [_span(s["start"], s["end"], s["label"]) for s in item.get("spans", [])]
    chosen = item.get("accept", [item["label"]] if "label" in item else [])
    yield {"text": item["text"], "spans": spans, "labels": list(chosen)}


def _spacy_pair(item: Any) -> Iterator[Row]:
    """``(text, {"entities": [(start, end, label)]})`` or ``{"cats": {label: 1.0}}``."""
    text, notes = item
    chosen = [label for label, value in notes.get("cats", {}).items() if value >= 0.5]
    spans = [_span(*entity[:3]) for entity in notes.get("entities", [])]
    yield {"text": text, "spans": spans, "labels": chosen}


def _spacy_json(item: Any) -> Iterator[Row]:
    """The JSON of spaCy 2: documents, paragraphs, sentences, tokens with BILUO tags."""
    for paragraph in item["paragraphs"]:
        for sentence in paragraph["sentences"]:
            tokens = sentence["tokens"]
            yield {"tokens": [t["orth"] for t in tokens], "ner_tags": [t.get("ner", "O") for t in tokens]}


def _gliner(item: Any) -> Iterator[Row]:
    """Words, and entities by their first and last word."""
    words = list(item["tokenized_text"])
    tags = ["O"] * len(words)
    for first, last, label in item["ner"]:
        if not 0 <= first <= last < len(words) or any(tag != "O" for tag in tags[first : last + 1]):
            raise ValueError(
                f"the entity {label!r} from word {first} to {last} of {len(words)} overlaps or is outside"
            )
        tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
    yield {"tokens": words, "ner_tags": tags}


def _squad(item: Any) -> Iterator[Row]:
    """An article: paragraphs with their questions; an impossible one has no answer."""
    for paragraph in item["paragraphs"]:
        for question in paragraph["qas"]:
            row = {"id": question.get("id"), "title": item.get("title")}
            row |= {"question": question["question"], "context": paragraph["context"]}
            if "answers" in question or question.get("is_impossible"):
                answers = [] if question.get("is_impossible") else question["answers"]
                texts, starts = ([a[key] for a in answers] for key in ("text", "answer_start"))
                row["answers"] = {"text": texts, "answer_start": starts}
            yield row


def _is_spacy_pair(item: Any) -> bool:
    pair = as_list(item)
    return (
        pair is not None
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], Mapping)
        and bool({"entities", "cats"} & pair[1].keys())
    )


def _is_predicted_task(item: Any) -> bool:
    """Whether an item is a task of Label Studio with predictions, which no annotator has seen."""
    return _is_task(item) and bool(item.get("predictions")) and "annotations" not in item


_TASK = (
    "id data annotations predictions drafts meta file_upload created_at updated_at allow_skip inner_id project "
    "updated_by total_annotations cancelled_annotations total_predictions comment_count unresolved_comment_count "
    "last_comment_updated_at comment_authors"
)
"""Keys of a task of Label Studio 1."""


def _is_task(item: Any) -> bool:
    return _has("data")(item) and isinstance(item["data"], Mapping)


UNCHECKED = Shape(
    "Label Studio, predictions that nobody has checked", _is_predicted_task, _label_studio_predicted
)
SHAPES: Sequence[Shape] = (
    UNCHECKED,
    Shape("Label Studio", _is_task, _label_studio, known=_TASK),
    Shape("Prodigy", _has("text", "answer"), _prodigy),
    Shape("SQuAD", _has_parts("qas"), _squad, bare=_no_parts),
    Shape("spaCy 2", _has_parts("sentences"), _spacy_json, bare=_no_parts),
    Shape("GLiNER", _has("tokenized_text", "ner"), _gliner),
    Shape("spaCy", _is_spacy_pair, _spacy_pair),
    Shape("predicted entities", _is_predicted, _predicted, bare=lambda item: _has("entities")(item)),
    Shape("BioC", is_bioc, bioc_rows),
    Shape("doccano", _is_doccano, _doccano, bare=lambda item: _marks(item) == []),
    Shape("Label Studio (JSON-MIN)", _has_min, _label_studio_min, bare=_is_unmarked),
)
"""The shapes that are known; the first that an item fits is taken."""
