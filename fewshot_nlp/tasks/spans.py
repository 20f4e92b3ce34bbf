"""Entity spans in characters: checked, and read off BIO tags."""

from collections.abc import Mapping
from typing import Any

from fewshot_nlp.episode import Example
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import as_list, as_name, as_offset, shown
from fewshot_nlp.tasks.tags import tag_spans
from fewshot_nlp.tokenization.words import place_words

SPAN_KEYS = ("start", "end", "label")


def checked_spans(value: Any) -> list[dict[str, Any]]:
    """Spans in normal form: integer offsets, labels as texts.

    Args:
        value: a list of mappings, or a mapping of lists, which is how `datasets` stores a sequence of them.

    Raises:
        FewShotError: a span is not valid; the message names it.
    """
    if isinstance(value, Mapping):
        columns = [as_list(value.get(key)) for key in SPAN_KEYS]
        if None in columns or len({len(c) for c in columns if c is not None}) != 1:
            raise FewShotError(
                f"'spans' is {shown(value)}, but must have equally long lists 'start', 'end', 'label'."
            )
        value = [dict(zip(SPAN_KEYS, cells, strict=True)) for cells in zip(*columns, strict=True)]
    spans = as_list(value)
    if spans is None:
        raise FewShotError(f"'spans' is {shown(value)}, but must be a list of spans.")
    result = []
    for number, span in enumerate(spans, start=1):
        if not isinstance(span, Mapping) or set(SPAN_KEYS) - set(span):
            raise FewShotError(f"span {number} is {shown(span)}, but must have 'start', 'end' and 'label'.")
        ends = {key: as_offset(span[key], f"{key!r} of span {number}") for key in ("start", "end")}
        result.append({**ends, "label": as_name(span["label"], f"'label' of span {number}")})
    return result


def spans_of(example: Example) -> list[dict[str, Any]]:
    """The entities of a text in characters."""
    offsets = place_words(example.inputs["tokens"], example.inputs["text"])[1]
    return [
        {"start": offsets[first][0], "end": offsets[last - 1][1], "label": label}
        for label, first, last in tag_spans(example.target)
    ]
