"""Entities from the scores of words: the best tags, and the entities that they mark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fewshot_nlp.tasks.tags import tag_spans
from fewshot_nlp.tasks.transitions import viterbi
from fewshot_nlp.tokenization.words import place_words

Found = tuple[list[str], list[dict[str, Any]]]
"""BIO tags of a text's words, and its entities."""


def decoded_tags(
    texts: Sequence[tuple[Sequence[str], str | None]],
    log: Float[np.ndarray, "n_words n_classes"],
    groups: Int[np.ndarray, " n_words"],
    classes: Sequence[Any],
    per_type: int,
    rule: Mapping[str, Any],
) -> list[Found]:
    """Tags and entities of every text.

    Args:
        texts: words, and the text that they stand in, None where they are given alone.
        log: log-probabilities of the classes of all words, texts concatenated.
        groups: number of each word's text, ascending.
        classes: "O", then each type, or "B-" and "I-" of each type.
        per_type: classes of a type: 1, or 2.
        rule: of `viterbi`; empty for the likeliest class of each word.
    """
    lengths = np.bincount(groups, minlength=len(texts))
    best = viterbi(log, lengths, dict(rule)) if rule else log.argmax(axis=1)
    ends = np.cumsum(lengths)
    return [
        _found(words, text, log[end - n : end], best[end - n : end], classes, per_type)
        for (words, text), n, end in zip(texts, lengths, ends, strict=True)
    ]


def _found(
    words: Sequence[str],
    text: str | None,
    log: Float[np.ndarray, "n c"],
    best: Int[np.ndarray, " n"],
    classes: Sequence[Any],
    per_type: int,
) -> Found:
    tags = ["O"] * len(best)
    for i in np.flatnonzero(best):
        name = str(classes[best[i]])
        if per_type == 1:
            name = ("I-" if i and best[i - 1] == best[i] else "B-") + name
        tags[i] = name
    entities = []
    spans = tag_spans(tags) if best.any() else []
    if spans:
        whole, offsets = place_words(words, text)
        for label, first, last in spans:
            begin = 1 + (best[first] - 1) // per_type * per_type
            columns = list(range(begin, begin + per_type))
            start, end = offsets[first][0], offsets[last - 1][1]
            if not whole[start:end].strip():  # words of nothing are no entity
                tags[first:last] = ["O"] * (last - first)
                continue
            entities.append(
                {
                    "entity_group": label,
                    "score": float(np.exp(log[first:last, columns]).sum(axis=1).mean()),
                    "word": whole[start:end],
                    "start": start,
                    "end": end,
                }
            )
    return tags, entities
