"""Interpolation of initial and fine-tuned weights, with a coefficient chosen on held-out examples.

Paper: Wortsman et al. 2022, Robust fine-tuning of zero-shot models (WiSE-FT, equation 1: a straight line between the
weights before and after). Deviation: the coefficient is chosen by cross-validation on the support set, and is 0
unless another one is better by more than a standard error.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.modules.state import State
from fewshot_nlp.slots import SlotBatch

SHARES = (0.0, 0.5, 1.0)
"""Of the way from the start to the end of training."""
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
ENOUGH_HELD_OUT = 48
AT_ONCE = 8
"""Examples that are scored at once: a vocabulary of scores for each slot is large."""

Train = Callable[[State, SlotBatch, float], State]
Score = Callable[[State, SlotBatch], Tensor]


def weight_interpolation(
    start: State, examples: SlotBatch, train: Train, score: Score, folds: int, seed: int
) -> State:
    """The interpolation of the initial and the trained state; possibly the initial state itself.

    Args:
        start: the state before training.
        examples: split into folds, each held out once.
        train: function of an initial state, examples and a share of the steps to the trained state.
        score: function of a state and a batch to scores.
        folds: number of parts that the examples are divided into.
        seed: of that division.
    """
    groups = torch.unique(examples.groups)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    folds = min(folds, len(groups))
    losses: list[Float[Tensor, "n_examples n_shares n_temperatures"]] = []
    for held in groups[order].chunk(folds) if folds > 1 else ():
        out = torch.isin(examples.groups, held)
        end = train(start, examples.select(~out), 1 - 1 / folds)
        states = [between(start, end, share) for share in SHARES]
        losses.append(_losses(states, examples.select(out).crop_to_targets(), score))
        if sum(map(len, losses)) >= ENOUGH_HELD_OUT:
            break
    share = one_standard_error(torch.cat(losses)) if losses else 0.0
    if share == 0.0:
        return {name: value.detach().clone() for name, value in start.items()}
    return between(start, train(start, examples, 1.0), share)


@torch.no_grad()
def _losses(
    states: Sequence[State], examples: SlotBatch, score: Score
) -> Float[Tensor, "n_examples n_states n_temperatures"]:
    """Loss of each example under each state, with the scores divided by each temperature.

    It measures where in a text the targets are, not whether there are any, which `Task.calibrate` decides.
    """
    losses = []
    for few in torch.unique(examples.groups).split(AT_ONCE):
        some = examples.select(torch.isin(examples.groups, few))
        scores = [score(state, some) for state in states]
        masks = [(some.groups == group) & some.has_place for group in few]
        losses += [
            [[float(some.select(mask).loss(s[mask.to(s.device)] / t)) for t in TEMPERATURES] for s in scores]
            for mask in masks
        ]
    return torch.tensor(losses, dtype=torch.float64)


def between(start: State, end: State, share: float) -> State:
    """Linear interpolation of each weight; keys that are not trained keep their initial value."""
    return {
        name: torch.lerp(value.detach(), end[name], share) if value.is_floating_point() else value
        for name, value in start.items()
    }


def one_standard_error(losses: Float[Tensor, "n_examples n_shares n_temperatures"]) -> float:
    """The coefficient with the least mean loss if it beats the first by a standard error of the difference; else 0.

    Each coefficient is compared at its best temperature, so that a mere change of confidence is no gain.
    """
    temperature = losses.mean(dim=0).argmin(dim=1)
    each = losses[:, torch.arange(len(SHARES)), temperature]
    best = int(each.mean(dim=0).argmin())
    gain = each[:, 0] - each[:, best]
    error = gain.std(correction=0) / max(1, len(gain) - 1) ** 0.5
    return SHARES[best] if float(gain.mean()) > float(error) else 0.0
