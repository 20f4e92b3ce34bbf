"""What the values of a row may be: labels, texts, lists, offsets; the one rule for all tasks and all doors.

Rows come from Python, JSON, pandas, pyarrow and `datasets`; each has its own numbers, arrays and missing values.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypeVar

from fewshot_nlp.errors import FewShotError, listed, logger, quoted

Label = str | int
"""A label: a text, or a whole number that comes back as a number."""
REPLACEMENT = "\ufffd"
"""The Unicode character for what cannot be represented; it takes one place, so offsets stay exact."""

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")


class EmptyInputError(FewShotError):
    """A text without a visible character: nothing can be predicted for it."""


class ItemError(FewShotError):
    """What is wrong with one of several inputs.

    Args:
        index: which of them, from 0.
        reason: what is wrong.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"Row {index + 1}: {reason}")
        self.index, self.reason = index, reason


class MissingColumnError(FewShotError):
    """A row lacks a column.

    Args:
        column: what is missing.
        row: what is there instead.
        like: an example of a right value, as JSON.
    """

    def __init__(self, column: str, row: Mapping[str, Any], like: str) -> None:
        self.column, self.candidate = column, likely_column(column, row, like)
        hint = "add it" if self.candidate is None else f"rename {quoted(self.candidate)} to {column!r}"
        there = listed(map(str, row)) or "nothing"
        super().__init__(f"there is no column {column!r}, only: {there}; {hint}.")

    @property
    def with_mapping(self) -> str:
        """The message where columns can be mapped."""
        if self.candidate is None:
            return str(self)
        return f"{str(self)[:-1]}, or pass column_mapping={{{quoted(self.candidate)}: {self.column!r}}}."


def shown(value: Any) -> str:
    """A wrong value and its type, for a message."""
    return f"{quoted(value)} of type {type(value).__name__}"


def as_label(value: Any, what: str) -> Label:
    """A label in its normal form: a plain `str` or `int`.

    Args:
        value: a text with a visible character, or a whole number, of Python or numpy.
        what: where it stands, for the message.

    Raises:
        FewShotError: anything else: None, NaN, a boolean, a number with a fraction part, an empty text, a list.
    """
    if isinstance(value, str) and value.strip():
        return _mended(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    raise FewShotError(
        f"{what} is {shown(value)}, but a label is a text that is not empty, or a whole number."
    )


def as_name(value: Any, what: str) -> str:
    """A label that must be a text, for tasks whose labels are parts of tags.

    Raises:
        FewShotError: anything that is no text, or an empty one.
    """
    label = as_label(value, what)
    if not isinstance(label, str):
        raise FewShotError(f"{what} is the number {label}, but must be a text; give the label's name.")
    return label


def as_labels(value: Any, what: str) -> list[Label]:
    """The sorted labels of a row that may have several.

    Raises:
        FewShotError: no list, a value that is no label, or the 0s and 1s of a multi-hot row.
    """
    found = as_list(value)
    if found is None:
        raise FewShotError(f"{what} is {shown(value)}, but must be a list of labels.")
    labels = [as_label(item, f"{what} {number}") for number, item in enumerate(found, start=1)]
    numbers = [label for label in labels if not isinstance(label, str)]
    if len(set(numbers)) < len(numbers):
        raise FewShotError(
            f"{what} is {shown(found)}: a number stands there twice, as in a multi-hot row; list the labels that "
            "apply instead, by their names."
        )
    return list(sorted_labels(labels))


def check_multi_hot(rows: Sequence[Sequence[Label]]) -> None:
    """Refuses label lists that are all the numbers 0 and 1, as multi-hot rows of two labels are.

    Raises:
        FewShotError: every row holds both 0 and 1 and nothing else.
    """
    if rows and all(list(row) == [0, 1] for row in rows):
        raise FewShotError(
            f"The labels of all {len(rows)} rows are the numbers 0 and 1, as in multi-hot rows; list the labels "
            "that apply instead, by their names."
        )


def sorted_labels(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Distinct labels in their natural order.

    Raises:
        FewShotError: texts stand beside numbers.
    """
    found = set(labels)
    texts = [label for label in found if isinstance(label, str)]
    if texts and len(texts) < len(found):
        number = min(label for label in found if not isinstance(label, str))
        raise FewShotError(
            f"Some labels are texts ({quoted(min(texts))}), others numbers ({number}); make all of them one kind."
        )
    return tuple(sorted(found, key=lambda label: (isinstance(label, str), label)))


def joined(labels: Iterable[Label]) -> str:
    """Labels for a message; numbers can be told from texts of digits."""
    found = list(labels)
    digits = any(isinstance(label, str) and label.strip().isdecimal() for label in found)
    return listed(repr(label) if digits else str(label) for label in found)


def as_text(value: Any, what: str) -> str:
    """A text with at least one visible character; half a surrogate pair becomes U+FFFD.

    Raises:
        FewShotError: no text.
        EmptyInputError: a text without a visible character.
    """
    if not isinstance(value, str):
        raise FewShotError(f"{what!r} is {shown(value)}, but must be a text.")
    if not value.strip():
        raise EmptyInputError(f"{what!r} is empty; leave such rows out.")
    return _mended(value)


def as_words(value: Any, what: str) -> list[str]:
    """The words of a text that comes in words.

    Raises:
        FewShotError: no list, or a word that is no text.
        EmptyInputError: no word has a visible character.
    """
    words = as_list(value)
    if words is None:
        raise FewShotError(f"{what!r} is {shown(value)}, but must be a list of words.")
    wrong = next((w for w in words if not isinstance(w, str)), "")
    if not isinstance(wrong, str):
        raise FewShotError(f"a token is {shown(wrong)}, but must be a text.")
    if not any(word.strip() for word in words):
        raise EmptyInputError(f"{what!r} is empty; leave such rows out.")
    return [_mended(word) for word in words]


def as_list(value: Any) -> list[Any] | None:
    """A list, tuple, or one-dimensional array of numpy, pandas or pyarrow as a list; None for anything else."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str | bytes | Mapping):
        return None
    convert = getattr(value, "tolist", None) or getattr(value, "to_pylist", None)
    found = convert() if callable(convert) and getattr(value, "ndim", 1) == 1 else None
    return found if isinstance(found, list) else None


def as_offset(value: Any, what: str) -> int:
    """A place in a text as a plain `int`.

    Args:
        value: a whole number, of Python or numpy; also as a float (4.0), which pandas makes of a column of whole
            numbers with a gap.
        what: where it stands, for the message.

    Raises:
        FewShotError: anything else.
    """
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool) or not whole:
        raise FewShotError(f"{what} is {shown(value)}, but must be a whole number of characters.")
    return int(value)


def is_missing(value: Any) -> bool:
    """Whether a cell is empty as tables say it: None, NaN, NaT or `pandas.NA`."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and bool(value != value)


def records(source: Any) -> Any:
    """A table of pandas, polars or pyarrow as a list of rows; anything else as it is."""
    if hasattr(source, "columns") and hasattr(source, "to_dict"):
        return source.to_dict("records") if hasattr(source, "iloc") else source.to_dicts()
    if hasattr(source, "column_names") and hasattr(source, "to_pylist"):
        return source.to_pylist()
    return source


def column_of(source: Any, what: str) -> list[Any]:
    """The values of a list, or of an array or table with one column.

    Raises:
        FewShotError: a table with several columns.
    """
    rows = records(source)
    if rows is source:
        return list(source)
    wide = next((row for row in rows if len(row) != 1), None)
    if wide is not None:
        raise FewShotError(
            f"{what} are a table with the columns {listed(map(str, wide))}; pass one column, as table['name']."
        )
    return [value for row in rows for value in row.values()]


_USUAL_NAMES = {
    "text": "sentence utterance content body review comment tweet query document message headline title input",
    "label": "labels intent category class target topic sentiment tag gold y output",
    "labels": "label intents categories classes targets topics tags",
    "tokens": "words token sentence",
    "ner_tags": "tags labels ner bio iob",
    "spans": "entities annotations ents labels label",
    "question": "query input",
    "context": "passage paragraph document text body",
    "answers": "answer",
}
"""Names that other people's files have for a column."""


def likely_column(column: str, row: Mapping[str, Any], like: str) -> str | None:
    """The column of a row that most likely holds what is wanted; None where none can.

    By its name, else by what else people call such a column, else the longest text (for a label the shortest).

    Args:
        column: the name that is wanted.
        row: a row without it.
        like: an example of a right value, as JSON.
    """
    kind = type(json.loads(like))
    found = [name for name, value in row.items() if isinstance(name, str) and _is_like(value, kind)]
    if column in ("label", "labels", "ner_tags", "spans", "answers"):
        found = [name for name in found if name not in ("text", "text_pair", "tokens", "question", "context")]
    near = get_close_matches(column, found, n=1)
    usual = [name for name in found if name.lower() in _USUAL_NAMES.get(column, "").split()]
    found.sort(key=lambda name: len(str(row[name])), reverse=column != "label")
    return next(iter([*near, *usual, *found]), None)


def _is_like(value: Any, kind: type) -> bool:
    if kind is list:
        return as_list(value) is not None
    return isinstance(value, Mapping if kind is dict else kind)


def read_each(values: Iterable[Any], read: Callable[[Any], T], what: str = "Row") -> list[T]:
    """Reads values one by one; tells the number of the one that cannot be read.

    Args:
        values: rows or inputs.
        read: from one of them to its normal form.
        what: what the message calls a value; where columns can be mapped, "Row".

    Raises:
        FewShotError: the first error of ``read``, with the value's number before it.
    """
    result: list[T] = []
    broken: list[int] = []
    for number, value in enumerate(values, start=1):
        try:
            result.append(read(value))
        except FewShotError as error:
            reason = error.with_mapping if isinstance(error, MissingColumnError) and what == "Row" else error
            raise FewShotError(f"{what} {number}: {reason}") from None
        if _is_broken(value):
            broken.append(number)
    if broken:
        logger.warning(
            "%s %s: half a surrogate pair, read as U+FFFD (%d of %d).",
            what,
            some(broken),
            len(broken),
            len(result),
        )
    return result


def some(numbers: Sequence[int]) -> str:
    """The first few numbers of a list, for a message."""
    return ", ".join(map(str, numbers[:5])) + ", ..." * (len(numbers) > 5)


def _mended(text: str) -> str:
    """A plain `str` without halves of surrogate pairs, as long as before."""
    text = str.__str__(text)
    return text if text.isascii() else _SURROGATE.sub(REPLACEMENT, text)


def _is_broken(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and _SURROGATE.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(_is_broken, value.values()))
    found = as_list(value)
    return found is not None and any(map(_is_broken, found))
