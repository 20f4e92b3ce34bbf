"""Interpolation of weights: losses by cross-entropy example by example, the choice by hand, what is held out."""

import pytest
import torch
import torch.nn.functional as F
from vectors import slots

from fewshot_nlp.modules.weight_interpolation import (
    SHARES,
    TEMPERATURES,
    _losses,
    one_standard_error,
    weight_interpolation,
)

GROUPS = torch.arange(20) // 2
"""Ten examples of two slots each: more than are scored at once."""
GOLD = torch.arange(20) % 3
TABLE = F.one_hot(GOLD, 3).double() + 0.1 * torch.randn(
    20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
START, GOOD = {"w": torch.zeros(3, 3, dtype=torch.float64)}, {"w": 4 * torch.eye(3, dtype=torch.float64)}


def batch():
    return slots(range(20), GOLD, 3, groups=GROUPS)


def score(state, some):
    return TABLE[[int(window[0]) for window in some.windows]] @ state["w"]


def test_losses_are_cross_entropies_of_each_example_at_each_temperature():
    expected = [
        [
            [
                float(F.cross_entropy((TABLE @ s["w"])[g == GROUPS] / t, GOLD[g == GROUPS]))
                for t in TEMPERATURES
            ]
            for s in (START, GOOD)
        ]
        for g in range(10)
    ]
    got = _losses([START, GOOD], batch(), score)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def table_of(gains, share):
    """Losses of 5 before, and less by the gains with one coefficient; best at the third temperature."""
    losses = torch.full((len(gains), len(SHARES), len(TEMPERATURES)), 9.0, dtype=torch.float64)
    losses[:, :, 2] = 5.0
    losses[:, SHARES.index(share), 2] -= torch.tensor(gains, dtype=torch.float64)
    return losses


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_coefficient_must_gain_more_than_a_standard_error(share):
    # gains of mean m and standard deviation sqrt(2) (divisor n): the error is sqrt(2) / sqrt(n - 1) = 0.816
    assert one_standard_error(table_of([3.0, -1.0, 1.0, 1.0], share)) == share
    assert one_standard_error(table_of([2.75, -1.25, 0.75, 0.75], share)) == 0.0
    assert one_standard_error(table_of([1.0], share)) == share
    assert one_standard_error(table_of([0.0, 0.0], share)) == 0.0


def run(end, folds=3):
    """The result, and which examples were trained on for which share of the steps."""
    seen = []

    def train(start, examples, share):
        assert start is START
        seen.append((sorted(set(examples.groups.tolist())), share))
        return end

    return weight_interpolation(START, batch(), train, score, folds, seed=0), seen


def test_training_that_helps_is_taken_and_each_example_held_out_once():
    state, seen = run(GOOD)
    assert torch.equal(state["w"], GOOD["w"])
    *parts, (everything, share) = seen
    assert (everything, share) == (list(range(10)), 1.0)
    assert [share for _, share in parts] == pytest.approx([2 / 3] * 3)
    held = [set(range(10)) - set(kept) for kept, _ in parts]
    assert sorted(g for some in held for g in some) == list(range(10))


def test_training_that_harms_leaves_the_start():
    state, seen = run({"w": -GOOD["w"]})
    assert torch.equal(state["w"], START["w"])
    assert state["w"] is not START["w"]
    assert len(seen) == 3, "nothing is trained on all examples"


@pytest.mark.parametrize("folds", [0, 1])
def test_without_folds_nothing_is_trained(folds):
    state, seen = run(GOOD, folds)
    assert torch.equal(state["w"], START["w"])
    assert seen == []
