"""Answer-span metrics: exact match and F1 by the official SQuAD normalisation, and by one for any language."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Normalise = Callable[[str], str]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def squad_normalised(text: str) -> str:
    """As the official SQuAD script: lower case, no ASCII punctuation, no English articles, single spaces.

    Rajpurkar et al. 2016, SQuAD: 100,000+ Questions for Machine Comprehension of Text, section 6.1.

    Examples:
        >>> squad_normalised("The  Panthers' defence!")
        'panthers defence'
    """
    bare = "".join(char for char in text.lower() if char not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def unicode_normalised(text: str) -> str:
    """For any language: NFKC, case folded, no punctuation of any script, single spaces; articles stay.

    Examples:
        >>> unicode_normalised("„Die Straße“")
        'die strasse'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c for c in folded if not unicodedata.category(c).startswith("P")).split())


def exact_match(gold: str, predicted: str, normalise: Normalise = squad_normalised) -> float:
    """1 when the normalised texts are equal, else 0."""
    return float(normalise(gold) == normalise(predicted))


def token_f1(gold: str, predicted: str, normalise: Normalise = squad_normalised) -> float:
    """F1 of the bags of tokens of the normalised texts; where one of them is empty, 1 if both are, else 0."""
    wanted, given = normalise(gold).split(), normalise(predicted).split()
    if not wanted or not given:
        return float(wanted == given)
    common = sum((Counter(wanted) & Counter(given)).values())
    return 2 * common / (len(wanted) + len(given))


def span_scores(
    gold: Sequence[Mapping[str, Any]], predicted: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Means over the questions; of several gold answers the best counts, and no answer is the empty text.

    ``squad_f1`` and ``squad_exact_match`` use `squad_normalised`, ``unicode_f1`` and ``unicode_exact_match`` use
    `unicode_normalised`. Where some questions are unanswerable they are right if and only if the prediction is empty,
    as in the official script of SQuAD 2.0, and ``squad_v2_f1_has_answer`` and ``squad_v2_f1_no_answer`` are the means
    over either kind.

    Args:
        gold: ``{"text": [...], ...}`` of each question, empty where there is no answer.
        predicted: the same form; the first text counts.
    """
    each: dict[str, list[float]] = {name: [] for name in _METRICS}
    answerable = [bool(g["text"]) for g in gold]
    for g, p in zip(gold, predicted, strict=True):
        answer = p["text"][0] if p["text"] else ""
        for name, (measure, normalise) in _METRICS.items():
            # Gold texts that normalise to nothing do not count, unless all do: then none is wanted (official script).
            wanted = [text for text in g["text"] if normalise(text)] or [""]
            each[name].append(max(measure(text, answer, normalise) for text in wanted))
    result = {name: _mean(values) for name, values in each.items()}
    if not all(answerable):
        for kind, has_answer in (("has_answer", True), ("no_answer", False)):
            chosen = [f for f, a in zip(each["squad_f1"], answerable, strict=True) if a is has_answer]
            if chosen:
                result[f"squad_v2_f1_{kind}"] = _mean(chosen)
    return result


_METRICS: dict[str, tuple[Callable[[str, str, Normalise], float], Normalise]] = {
    "squad_exact_match": (exact_match, squad_normalised),
    "squad_f1": (token_f1, squad_normalised),
    "unicode_exact_match": (exact_match, unicode_normalised),
    "unicode_f1": (token_f1, unicode_normalised),
}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
