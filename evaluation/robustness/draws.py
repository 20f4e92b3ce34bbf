"""Random rows, inputs and settings, good and bad, each a pure function of a numpy generator."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
from annotated_types import Ge, Gt, Le, Lt
from conftest import WORDS

from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.settings import describe, hints_of

Draw = np.random.Generator
SCRIPTS = {
    "latin": "Grüße aus Łódź, naïve coöperation",
    "greek": "Το φάρμακο πληρώθηκε",
    "cyrillic": "Суд отменил решение",
    "armenian": "Դատարանի որոշումը",
    "hebrew": "בית המשפט קבע שָׁלוֹם",
    "arabic": "قرّرت المحكمة دفع ١٢٣",
    "syriac": "ܒܝܬ ܕܝܢܐ",
    "devanagari": "न्यायालय का आदेश",
    "bengali": "আদালতের আদেশ",
    "tamil": "நீதிமன்ற உத்தரவு",
    "sinhala": "ශ්‍රී ලංකා",
    "thai": "ศาลมีคำสั่งให้จ่ายเงิน",
    "khmer": "តុលាការ",
    "myanmar": "တရားရုံး",
    "tibetan": "ཁྲིམས་ཁང་",
    "georgian": "სასამართლოს გადაწყვეტილება",
    "amharic": "የፍርድ ቤት ትእዛዝ",
    "hangul": "법원의 명령 \u1112\u1161\u11ab",
    "kana": "さいばんしょ、ガッコー",
    "han": "法院判决支付现金𠮷野家",
    "emoji": "👩🏽‍⚕️ 👨‍👩‍👧‍👦 🏴\U000e0067\U000e0062\U000e007f 1️⃣ 🇩🇪🇫🇷",
    "cherokee": "ᎠᏂᏴᏫᏯ",
}
MARKS = [
    *(
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u200b",
        "\u200d",
        "\u00ad",
        "\u202e",
        "\u2066",
    ),
    *("\ud83d", "\udc00", "\u0301\u0301\u0301", "\u20dd", "\ufffd", "\uffff", "\U0010ffff", "\ue000"),
    *(
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "[SEP]",
        "[MASK]",
        "</s>",
        "<pad>",
        "##ing",
        "|",
        "10mg",
        "I-94",
        "%s{}",
    ),
]
EMPTY = ["", " ", "\n\t", "\u3000", "\u200b", "\x00", "\u00ad"]
LABELS = [*["card", "law", "drug", "O", "B-PER", "I-94", "-", "ORG", "名前", "é", "1"], "no label", "x" * 500]


def one(draw: Draw, values: Any) -> Any:
    """One of some values, as it is."""
    values = list(values)
    return values[int(draw.integers(len(values)))]


def odd(draw: Draw) -> Any:
    """A value that a column should not hold, or holds in a form of numpy, pandas or Python that is seldom met."""
    makers: list[Callable[[], Any]] = [
        *(lambda v=v: v for v in (None, float("nan"), float("inf"), 3, -1, 2.5, True, b"bytes", 10**30)),
        *(lambda v=v: v for v in ((), [], {}, [[]], [None], {"a": 1}, {1, 2}, object(), 1j, range(2), type)),
        *(lambda v=v: v for v in (np.int64(3), np.float32(2.0), np.str_("card"), np.bool_(True), np.nan)),
        *(lambda v=v: v for v in (pd.NA, pd.NaT, pd.Timestamp(0), np.array(["a"], object), np.array(3))),
        *(lambda v=v: v for v in (np.zeros((2, 2)), pd.Series(["a", "b"]), "", " ", "x" * 3000, ["a"] * 500)),
    ]
    return one(draw, makers)()


def text(draw: Draw, longest: int = 12) -> str:
    """A text of up to some pieces: known words, words of any script, marks; seldom an empty or a very long one."""
    kind = draw.random()
    if kind < 0.03:
        return str(one(draw, EMPTY))
    n = int(draw.integers(300, 1500)) if kind < 0.05 else int(draw.integers(1, longest + 1))
    pieces = []
    for share in draw.random(n):
        if share < 0.6:
            pieces.append(one(draw, WORDS))
        elif share < 0.85:
            sample = SCRIPTS[one(draw, SCRIPTS)]
            start, stop = sorted(draw.integers(0, len(sample) + 1, 2).tolist())
            pieces.append(sample[start:stop])
        else:
            pieces.append(one(draw, MARKS))
    return str(one(draw, [" ", " ", " ", "", "  ", "\n"])).join(pieces)


def label(draw: Draw, kind: str) -> Any:
    """A label of one kind, so that a support set can be learned from; seldom an odd value."""
    if draw.random() < 0.02:
        return odd(draw)
    if kind == "number":
        return one(draw, [0, 1, np.int64(2), -5])
    return one(draw, LABELS[: int(draw.integers(2, len(LABELS)))])


def given_labels(draw: Draw) -> Any:
    """Labels with descriptions, or their names alone, few or many; seldom something else."""
    if draw.random() < 0.1:
        return odd(draw)
    names = [one(draw, LABELS) for _ in range(3)] + [f"label {i}" for i in range(one(draw, [0, 0, 80]))]
    return names if draw.random() < 0.3 else {name: one(draw, [text(draw, 3), "", None]) for name in names}


def classification_row(draw: Draw, form: str) -> dict[str, Any]:
    """A row with a label, or with several; seldom with a second text."""
    kind, several = form.split("+")
    row: dict[str, Any] = {"text": text(draw)}
    if several == "pair" or draw.random() < 0.01:
        row["text_pair"] = text(draw, 4)
    if several == "multi":
        return row | {"labels": [label(draw, kind) for _ in range(int(draw.integers(0, 4)))]}
    return row | {"label": label(draw, kind)}


def ner_row(draw: Draw, form: str) -> dict[str, Any]:
    """Words with tags, or a text with spans at any places, some of them overlapping or outside."""
    if form.startswith("tokens") or draw.random() < 0.02:
        words = [
            text(draw, 1) if draw.random() < 0.2 else one(draw, WORDS)
            for _ in range(int(draw.integers(1, 9)))
        ]
        tags = [one(draw, ["O", "O", *(f"{p}-{label(draw, 'text')}" for p in "BBIES")]) for _ in words]
        as_array = draw.random() < 0.1
        return {"tokens": np.array(words, object) if as_array else words, "ner_tags": tags[: len(tags)]}
    whole, spans = text(draw), []
    for _ in range(int(draw.integers(0, 4))):
        start = int(draw.integers(0, max(1, len(whole))))
        end = start + int(draw.integers(1, 8)) if draw.random() < 0.2 else min(len(whole), start + 3)
        place = one(draw, [int, int, int, np.int32, float])
        spans.append({"start": place(start), "end": place(end), "label": label(draw, "text")})
    if draw.random() < 0.8:  # else they may overlap
        spans = [s for i, s in enumerate(spans) if all(s["start"] >= t["end"] for t in spans[:i])]
    return {"text": whole, "spans": spans}


def question_answering_row(draw: Draw, form: str) -> dict[str, Any]:
    """A question with answers from its context; seldom one that is not there."""
    context, found = text(draw, 30), []
    for _ in range(int(draw.integers(0, 3))):
        start = int(draw.integers(0, max(1, len(context))))
        found.append((context[start : start + int(draw.integers(1, 12))], start))
    if draw.random() < 0.05:
        found.append(("no such answer", int(draw.integers(-3, 40))))
    if draw.random() < 0.8:
        found = [(answer, start) for answer, start in found if answer.strip()]
    answers = {
        "text": [a for a, _ in found],
        "answer_start": [one(draw, [int, int, np.int64])(s) for _, s in found],
    }
    return {"question": text(draw, 6), "context": context, "answers": answers}


def translation_row(draw: Draw, form: str) -> dict[str, Any]:
    """A pair of texts."""
    return {"translation": {"xx": text(draw, 6), "en": text(draw, 6)}}


ROWS: Mapping[str, Callable[[Draw, str], dict[str, Any]]] = {
    "classification": classification_row,
    "ner": ner_row,
    "question_answering": question_answering_row,
    "translation": translation_row,
}
FORMS = {
    "classification": ["text+one", "text+one", "number+one", "text+pair", "text+multi"],
    "ner": ["tokens", "text"],
}


def spoiled(draw: Draw, row: dict[str, Any]) -> Any:
    """The row with one value replaced, a column left out or added, or something that is no row."""
    kind = draw.random()
    if kind < 0.1:
        return odd(draw)
    column = one(draw, row)
    if kind < 0.2:
        return {key: value for key, value in row.items() if key != column}
    if kind < 0.3:
        return row | {str(odd(draw))[:20]: odd(draw)}
    value = row[column]
    if isinstance(value, dict) and value and kind < 0.7:
        return row | {column: value | {one(draw, value): odd(draw)}}
    if isinstance(value, list) and value and kind < 0.7:
        at = int(draw.integers(len(value)))
        return row | {column: [*value[:at], odd(draw), *value[at + 1 :]]}
    return row | {column: odd(draw)}


def rows(draw: Draw, task: str, form: str, bad: bool) -> list[Any]:
    """A support set of up to 8 rows; where it may be bad, perhaps an empty one, or with a spoiled row."""
    found: list[Any] = [ROWS[task](draw, form) for _ in range(int(draw.integers(0 if bad else 2, 9)))]
    if bad and found and draw.random() < 0.6:
        at = int(draw.integers(len(found)))
        found[at] = spoiled(draw, found[at])
    return found


def contained(draw: Draw, values: list[Any]) -> Any:
    """The values in one of the containers that people have them in."""
    plain = all(isinstance(value, str) for value in values)
    makers: list[Callable[[Any], Any]] = [list, list, tuple, iter]
    if plain:
        makers += [pd.Series, lambda v: np.array(v, object)]
    elif values and all(isinstance(value, dict) and set(value) == set(values[0]) for value in values):
        makers.append(pd.DataFrame)
    try:
        return one(draw, makers)(values)
    except Exception:  # noqa: BLE001 - pandas cannot hold these values
        return values


def inputs(draw: Draw, task: str, form: str, bad: bool) -> list[Any]:
    """Up to 6 inputs to predict on; where they may be bad, perhaps with a spoiled one."""
    found: list[Any] = []
    for row in (ROWS[task](draw, form) for _ in range(int(draw.integers(0, 7)))):
        if task == "question_answering":
            found.append(one(draw, [row, (row["question"], row["context"])]))
        elif task == "translation":
            found.append(one(draw, [row, row["translation"]["xx"]]))
        elif task == "ner":
            found.append(one(draw, [row, row.get("text", row.get("tokens"))]))
        else:
            found.append(
                [row["text"], row["text_pair"]] if "text_pair" in row else one(draw, [row, row["text"]])
            )
    if bad and found and draw.random() < 0.4:
        at = int(draw.integers(len(found)))
        found[at] = spoiled(draw, found[at]) if isinstance(found[at], dict) else odd(draw)
    return found


def glossary(draw: Draw, bad: bool) -> Any:
    """Terms with the words for them; where it may be bad, perhaps something else."""
    if bad and draw.random() < 0.3:
        return odd(draw)
    return {
        text(draw, 2): text(draw, 2) if bad and draw.random() < 0.5 else one(draw, WORDS) for _ in range(2)
    }


def learner_settings(draw: Draw, learner: str, bad: bool) -> dict[str, Any]:
    """Some of a learner's settings; where they may be bad, perhaps one that is out of its bounds or of another type."""
    kind = LEARNERS.get(learner).config_class
    hints = hints_of(kind)
    names = [s.name for s in describe(kind) if s.name in hints and s.default is not MISSING]
    chosen = [name for name in names if draw.random() < 0.25]
    result = {
        name: setting(draw, hints[name]) for name in chosen if name not in ("head_config", "start_config")
    }
    if bad and draw.random() < 0.4:
        name = one(draw, names)
        result[name] = beyond(draw, hints[name])
    return result


def _bounds(hint: Any) -> tuple[Any, float, float, list[Any]]:
    """Type, least and greatest value, and the members of a literal, of the first member of an annotation."""
    low, high = -np.inf, np.inf
    while get_origin(hint) is not None and get_origin(hint) is not Literal:
        metadata = [m for field in get_args(hint)[1:] for m in getattr(field, "metadata", [])]
        for bound in metadata:
            low = bound.ge if isinstance(bound, Ge) else bound.gt if isinstance(bound, Gt) else low
            high = bound.le if isinstance(bound, Le) else bound.lt if isinstance(bound, Lt) else high
        hint = get_args(hint)[0]
    return hint, low, high, list(get_args(hint)) if get_origin(hint) is Literal else []


def setting(draw: Draw, hint: Any) -> Any:
    """A value within the bounds of an annotation; small numbers, since a case must be quick."""
    if type(None) in get_args(hint) and get_origin(hint) is not Literal and draw.random() < 0.3:
        return None
    kind, low, high, members = _bounds(hint)
    if members:
        return one(draw, members)
    if kind is bool:
        return bool(draw.integers(2))
    if kind is int:
        least = int(max(low, 0))
        return int(draw.integers(least, min(high, least + 8) + 1))
    if kind is float:
        low, high = max(low, -1e3), min(high, 1e3)
        if draw.random() < 0.3:
            return float(one(draw, [low, high]))
        small = np.log(max(low, 1e-9))
        return float(np.clip(np.exp(draw.uniform(small, np.log(high))), low, high))
    return one(draw, ["prototypical", "ridge", "linear_probe", "nearest_neighbour"])


def beyond(draw: Draw, hint: Any) -> Any:
    """A value out of the bounds of an annotation, or of another type."""
    _, low, high, _ = _bounds(hint)
    outside = [v for v in (low - 1, high * 2 + 1) if np.isfinite(v)]
    return one(draw, [*outside, "3", "none of it", float("nan"), float("inf"), [], {}, object(), odd(draw)])


def task_options(draw: Draw, task: str) -> dict[str, Any]:
    """Options of a task, some of them wrong."""
    some: dict[str, list[Any]] = {
        "threshold": [0.5, 0.01, 0.99, 0, 1, "0.5", None, float("nan")],
        "multi_label": [True, False, 1, "yes"],
        "scheme": ["io", "bio", "bilou", None],
        "transitions": [None, "none", "abstract", "hidden_markov", 3],
        "pooling": ["mean", "first", "last"],
        "repair": ["begin", "error", True],
        "cuts": [["10|mg"], "10|mg", None, [3], ["a|b|c", "the|"]],
        "max_answer_tokens": [1, 5, 30, 1000, 0, 2.5, "3"],
        "n_best": [1, 2, 20, 1000, 0, None],
        "null_threshold": [None, 0, -1.5, 1e9, float("nan"), float("inf"), "0"],
        "num_beams": [1, 2, 4, 0, 65, True],
        "length_penalty": [None, 0, 1.0, -5, 6, float("nan")],
        "max_ratio": [None, 0.1, 1.5, 0, float("nan"), "2"],
        "prefix": [None, "", "translate: ", 3],
        "source": [None, "xx", "en", 3],
        "glossary": [None, {}, {"aspirin": "drug"}, {"a": None}, 3],
    }
    own = {
        "classification": ["threshold", "multi_label"],
        "ner": ["scheme", "transitions", "pooling", "repair", "cuts"],
        "question_answering": ["max_answer_tokens", "n_best", "null_threshold"],
        "translation": ["num_beams", "length_penalty", "max_ratio", "prefix", "source", "glossary"],
    }[task]
    chosen = {name: one(draw, some[name]) for name in own if draw.random() < 0.15}
    return chosen | ({"colour": 1} if draw.random() < 0.02 else {})
