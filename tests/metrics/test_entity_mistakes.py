"""Kinds of mistakes by hand, and beside the counts of nervaluate 1.2.1 on the same 290 random sentences."""

import random
from collections import Counter

import pytest

from fewshot_nlp.metrics.ner import entity_mistakes


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([("A", 0, 2)], [("A", 0, 2)], []),
        ([("A", 0, 2)], [("A", 1, 2)], ["boundary"]),
        ([("A", 0, 2)], [("B", 0, 2)], ["type"]),
        ([("A", 0, 2)], [("B", 1, 3)], ["both"]),
        ([("A", 0, 2)], [], ["missed"]),
        ([], [("A", 0, 2)], ["invented"]),
        ([("A", 0, 4)], [("A", 0, 1), ("A", 2, 4)], ["boundary", "invented"]),
        ([("A", 0, 1), ("A", 2, 4)], [("A", 0, 4)], ["boundary", "missed"]),
        ([("A", 0, 1), ("B", 3, 4)], [("A", 1, 2), ("B", 3, 4)], ["invented", "missed"]),
    ],
)
def test_by_hand(gold, predicted, kinds):
    assert [kind for kind, _ in entity_mistakes(gold, predicted)] == kinds


def drawn(rng):
    """Entities of a sentence of 16 words, and a prediction: some lost, cut or of another type."""
    gold, at = [], 0
    while at < 12:
        if rng.random() < 0.35:
            length = rng.randint(1, 3)
            gold.append((rng.choice("AB"), at, at + length))
            at += length + (rng.random() < 0.7)
        else:
            at += 1
    cut = [
        (rng.choice([kind, kind, "A", "B"]), max(0, first + rng.choice([0, 0, 0, 1])), last)
        for kind, first, last in gold
        if rng.random() < 0.8 and last - first > 1
    ]
    kept = [span for span in gold if span[2] - span[1] == 1 and rng.random() < 0.7]
    return gold, sorted({*cut, *kept}, key=lambda span: span[1])


def test_counts_are_those_of_nervaluate():
    """Its strict: incorrect, missed, spurious; and incorrect types, of its ent_type."""
    rng, counts = random.Random(0), Counter()
    for gold, predicted in (drawn(rng) for _ in range(300)):
        if gold and predicted:
            counts.update(kind for kind, _ in entity_mistakes(gold, predicted))
    wrong = counts["boundary"] + counts["type"] + counts["both"]
    assert (wrong, counts["missed"], counts["invented"], counts["type"] + counts["both"]) == NERVALUATE


NERVALUATE = (212, 171, 0, 133)
