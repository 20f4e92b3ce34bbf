"""When the stacked probe uses label names: where they tell something about the labels, or where nothing else does."""

import pytest
import torch
from vectors import Vectors, slots

from fewshot_nlp.learners.stacked_probe import INFORMATION, StackedProbe, StackedProbeConfig

LEAST, MOST = -1e9, 1e9


def adapted(evidence, shown, label_names=4.0):
    """Three classes, whose names stand at rows 9 to 11, and three examples of each that is shown."""
    generator = torch.Generator().manual_seed(0)
    rows = 3 * torch.eye(3, 4, dtype=torch.float64)[[0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]]
    table = rows + 0.3 * torch.randn(12, 4, generator=generator, dtype=torch.float64)
    encoder = Vectors(table)
    encoder.layers = (1,)
    gold = [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]
    chosen = [i for i in range(12) if i > 8 or gold[i] in shown]
    support = slots(chosen, [gold[i] for i in chosen], 3, label_slots=[i > 8 for i in chosen])
    learner = StackedProbe(encoder, StackedProbeConfig(name_evidence=evidence, label_names=label_names))
    return learner.adapt(support), slots([0, 3, 6], [0, 1, 2], 3)


@pytest.mark.parametrize(
    ("evidence", "shown", "used"),
    [
        (LEAST, {0, 1, 2}, True),
        (MOST, {0, 1, 2}, False),
        (MOST, {0, 1}, True),  # the third class has nothing but its name
        (LEAST, {0, 1}, True),
        (0.1, {0, 1, 2}, True),  # these names say everything: log 3 nats
        (1.0986, {0, 1, 2}, True),
        (1.0987, {0, 1, 2}, False),
    ],
)
def test_names_are_used_for_their_evidence_or_for_want_of_examples(evidence, shown, used):
    model, query = adapted(evidence, shown)
    assert len(model.state["names"]) == (3 if used else 0)
    assert model.scores(query).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_class_with_neither_example_nor_name_is_never_chosen(missing):
    model, query = adapted(MOST, {0, 1, 2} - {missing}, label_names=0.0)
    found = model.scores(query)
    assert found[:, missing].tolist() == [-100.0] * 3
    assert [c for c in found.argmax(dim=1).tolist() if c == missing] == []


def test_information_is_what_scores_of_folds_say_about_held_out_rows():
    """Most of it where classes stand apart, near none where targets are dealt at random."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    table[20:, 0] += 8
    encoder = Vectors(table)
    encoder.layers = (1,)
    learner = StackedProbe(encoder, StackedProbeConfig(label_names=0.0))
    apart, dealt = [i >= 20 for i in range(40)], [i % 2 for i in range(40)]
    told = [float(learner.fit(slots(range(40), list(map(int, y)), 2))[INFORMATION]) for y in (apart, dealt)]
    assert 0.6 < told[0] <= 1
    assert told[1] < 0.2


def test_information_needs_two_rows_of_a_class():
    encoder = Vectors(torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    encoder.layers = (1,)
    state = StackedProbe(encoder, StackedProbeConfig(label_names=0.0)).fit(slots(range(3), [0, 1, 2], 3))
    assert INFORMATION not in state
