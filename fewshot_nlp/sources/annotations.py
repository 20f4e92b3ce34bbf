"""Rows as annotation tools and other libraries write them, told by their keys: each in the form of a task's rows.

Label Studio (JSON and JSON-MIN), doccano (old and new), Prodigy, spaCy (pairs and the JSON of version 2), GLiNER, SQuAD
with its paragraphs, and pairs of languages in columns. What a tool says was not accepted is left out and counted. Keys
that are not known are passed over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_nlp.errors import FewShotError, logger, quoted
from fewshot_nlp.rows import as_list

Row = dict[str, Any]
Read = Callable[[Any], Iterator[Row | None]]
"""From one item of a file to its rows; None for one that was not accepted."""


@dataclass(frozen=True)
class Shape:
    """How a tool writes an item.

    Args:
        name: the tool, for the log.
        fits: whether an item has this shape; told by the keys alone.
        read: its rows.
    """

    name: str
    fits: Callable[[Any], bool]
    read: Read


def converted(items: Sequence[Any], where: str, task_name: str | None = None) -> list[Any]:
    """Items of a known tool as rows; others as they are.

    Args:
        items: rows, or what a file held.
        where: the file, for messages.
        task_name: the task that the rows are for.

    Raises:
        FewShotError: an item of another shape than the first, or one that lacks what its tool writes, by number.
    """
    if not len(items):
        return list(items)
    shape = next((s for s in SHAPES if s.fits(items[0])), None)
    if task_name == "translation" and shape is None:
        shape = _languages(items[0])
    if shape is None:
        return list(items)
    rows: list[Row] = []
    left_out = 0
    for number, item in enumerate(items, start=1):
        if not shape.fits(item):
            raise FewShotError(
                f"{where}: item 1 is of {shape.name}, but item {number} is not: {quoted(item)}."
            )
        try:
            for row in shape.read(item):
                rows.append(row) if row is not None else None
                left_out += row is None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FewShotError(
                f"{where}: item {number} is not as {shape.name} writes it ({type(error).__name__}: {error})."
            ) from None
    counted = f"; {left_out} left out that were not accepted" if left_out else ""
    logger.info("%s: read as %s, %d rows%s.", where, shape.name, len(rows), counted)
    if not rows:
        raise FewShotError(f"{where}: none of the {len(items)} items of {shape.name} was accepted.")
    return rows


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda item: isinstance(item, Mapping) and all(key in item for key in keys)


def _has_parts(key: str) -> Callable[[Any], bool]:
    """Whether an item has paragraphs, the first of which has a key."""

    def fits(item: Any) -> bool:
        parts = item.get("paragraphs") if isinstance(item, Mapping) else None
        return isinstance(parts, list) and bool(parts) and _has(key)(parts[0])

    return fits


def _span(start: Any, end: Any, label: Any) -> Row:
    return {"start": start, "end": end, "label": label}


def _label_studio(item: Any) -> Iterator[Row | None]:
    """A task with its annotations; the last one that was not cancelled counts."""
    [name] = [key for key, value in item["data"].items() if isinstance(value, str)][:1] or ["text"]
    done = [a for a in item["annotations"] if not a.get("was_cancelled")]
    if not done:
        yield None
        return
    results = done[-1]["result"]
    values = [r["value"] for r in results if isinstance(r.get("value"), Mapping)]
    row: Row = {"text": item["data"][name]}
    choices = [choice for value in values for choice in value.get("choices", [])]
    spans = [_span(v["start"], v["end"], label) for v in values for label in v.get("labels", [])]
    yield row | _spans_or_choices(spans, choices)


def _spans_or_choices(spans: list[Row], choices: list[str]) -> Row:
    if not choices:
        return {"spans": spans}
    return {"label": choices[0]} if len(choices) == 1 else {"labels": choices}


def _label_studio_min(item: Any) -> Iterator[Row]:
    """JSON-MIN: columns of the data beside those of the annotation, which holds lists with "labels"."""
    text = next(value for key, value in item.items() if isinstance(value, str) and key in ("text", "data"))
    found = next(value for value in item.values() if _is_min(value))
    yield {
        "text": text,
        "spans": [_span(v["start"], v["end"], label) for v in found for label in v["labels"]],
    }


def _has_min(item: Any) -> bool:
    return isinstance(item, Mapping) and any(map(_is_min, item.values()))


def _is_min(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and _has("start", "end", "labels")(value[0])


def _doccano(item: Any) -> Iterator[Row]:
    """``label`` (old) or ``entities`` (new): lists of start, end and label, or objects with offsets."""
    spans = item.get("entities", item.get("label", item.get("labels")))
    yield {
        "text": item.get("text", item.get("data")),
        "spans": [
            _span(*s[:3]) if isinstance(s, list) else _span(s["start_offset"], s["end_offset"], s["label"])
            for s in spans
        ],
    }


def _is_doccano(item: Any) -> bool:
    if not isinstance(item, Mapping) or not ({"text", "data"} & item.keys()):
        return False
    spans = next((item[key] for key in ("entities", "label", "labels") if key in item), None)
    if not isinstance(spans, list) or not spans:
        return isinstance(spans, list) and not spans and "entities" in item
    first = spans[0]
    return _has("start_offset", "end_offset", "label")(first) or (
        isinstance(first, list)
        and len(first) >= 3
        and isinstance(first[0], int)
        and isinstance(first[2], str)
    )


def _prodigy(item: Any) -> Iterator[Row | None]:
    """A task with an answer: spans, a label, or the accepted options."""
    if item["answer"] != "accept":
        yield None
    elif "accept" in item:
        yield {"text": item["text"]} | _spans_or_choices([], list(item["accept"]) or [""])
    elif "spans" in item:
        yield {
            "text": item["text"],
            "spans": [_span(s["start"], s["end"], s["label"]) for s in item["spans"]],
        }
    elif "label" in item:
        yield {"text": item["text"], "label": item["label"]}
    else:
        yield {"text": item["text"], "spans": []}


def _spacy_pair(item: Any) -> Iterator[Row]:
    """``(text, {"entities": [(start, end, label)]})`` or ``{"cats": {label: 1.0}}``."""
    text, notes = item
    if "entities" in notes:
        yield {"text": text, "spans": [_span(*entity[:3]) for entity in notes["entities"]]}
        return
    chosen = [label for label, value in notes["cats"].items() if value >= 0.5]
    yield {"text": text} | ({"label": chosen[0]} if len(chosen) == 1 else {"labels": chosen})


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
            answers = [] if question.get("is_impossible") else question["answers"]
            yield {
                "id": question.get("id"),
                "title": item.get("title"),
                "question": question["question"],
                "context": paragraph["context"],
                "answers": {
                    "text": [a["text"] for a in answers],
                    "answer_start": [a["answer_start"] for a in answers],
                },
            }


def _languages(item: Any) -> Shape | None:
    """A row with two texts, a language a column; "source" and "target" where the task knows which they are."""
    if not isinstance(item, Mapping) or "translation" in item:
        return None
    pairs = [("source", "target"), ("src", "tgt")]
    codes = [k for k, v in item.items() if isinstance(k, str) and isinstance(v, str) and 2 <= len(k) <= 3]
    found = next((p for p in pairs if set(p) <= item.keys()), tuple(codes) if len(codes) == 2 else None)
    if found is None:
        return None
    return Shape(
        f"pairs in the columns {found[0]} and {found[1]}",
        _has(*found),
        lambda row: iter([{"translation": {name: row[name] for name in found}}]),
    )


def _is_spacy_pair(item: Any) -> bool:
    pair = as_list(item)
    return (
        pair is not None
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], Mapping)
        and bool({"entities", "cats"} & pair[1].keys())
    )


SHAPES: Sequence[Shape] = (
    Shape("Label Studio", _has("data", "annotations"), _label_studio),
    Shape("Prodigy", _has("text", "answer"), _prodigy),
    Shape("SQuAD", _has_parts("qas"), _squad),
    Shape(
        "spaCy 2",
        _has_parts("sentences"),
        _spacy_json,
    ),
    Shape("GLiNER", _has("tokenized_text", "ner"), _gliner),
    Shape("spaCy", _is_spacy_pair, _spacy_pair),
    Shape("doccano", _is_doccano, _doccano),
    Shape(
        "Label Studio (JSON-MIN)",
        _has_min,
        _label_studio_min,
    ),
)
"""The shapes that are known; the first that fits an item is taken."""
