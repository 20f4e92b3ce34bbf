"""Logits processors for ``generate``: a learner's scores, forced phrases, a bound on length."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Ids = Int[Tensor, "n_rows length"]
Scores = Float[Tensor, "n_rows n_classes"]


class Rescore:
    """Replaces the next token's log-probabilities by a learner's, from the decoder's hidden state and the model's own.

    Args:
        score: features [n_rows, d] and log-probabilities [n_rows, n_classes] to log-probabilities.
    """

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.score = score
        self.features: Tensor | None = None

    @contextmanager
    def watching(self, decoder: nn.Module) -> Iterator[None]:
        """Context that records the decoder's last hidden state at every step."""

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            self.features = output.last_hidden_state[:, -1]

        handle = decoder.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    def __call__(self, ids: Ids, scores: Scores) -> Scores:
        """The learner's log-probabilities; a row is a sequence or a beam."""
        assert self.features is not None
        return self.score(self.features.to(scores.dtype), torch.log_softmax(scores, dim=-1))


class ForcedPhrases:
    """Token sequences that an output must contain: their tokens get a bonus, and the end token is blocked before.

    A started sequence is continued. If the model would end while one is missing, or if the remaining tokens just
    suffice for the missing ones, the missing sequence is forced.

    Args:
        needs: required sequences of each item.
        limits: tokens of each item's output at most, its end included.
        num_beams: rows of an item.
        end: id of the end token.
        skip: tokens that every row begins with.
        bonus: added to the log-probability of the tokens that begin a missing sequence.
    """

    def __init__(
        self,
        needs: Sequence[Sequence[Sequence[int]]],
        limits: Sequence[int],
        num_beams: int,
        end: int,
        skip: int,
        bonus: float,
    ) -> None:
        self.needs, self.limits, self.num_beams = needs, limits, num_beams
        self.end, self.skip, self.bonus = end, skip, bonus

    def __call__(self, ids: Ids, scores: Scores) -> Scores:
        """Scores with bonuses and forced tokens."""
        scores = scores.clone()
        for row, sequence in enumerate(ids[:, self.skip :].tolist()):
            missing = [list(n) for n in self.needs[row // self.num_beams] if not _holds(sequence, n)]
            if not missing:
                continue
            begun = max((_begun(sequence, need), need) for need in missing)
            if begun[0]:
                forced = begun[1][begun[0]]
                value = scores[row, forced].clone()
                scores[row] = -torch.inf
                scores[row, forced] = value.clamp_min(-1e4)
                continue
            first = [need[0] for need in missing]
            left = self.limits[row // self.num_beams] - len(sequence) - 1
            if left <= sum(map(len, missing)):
                scores[row] = torch.full_like(scores[row], -torch.inf).index_fill(
                    0, torch.tensor(first[:1], device=scores.device), 0.0
                )
                continue
            if int(scores[row].argmax()) == self.end:
                scores[row, first[0]] = scores[row, self.end]
            scores[row, self.end] = -torch.inf
            scores[row, first] += self.bonus
        return scores


class Bounds:
    """Forces the end token at each item's limit of tokens.

    Args:
        limits: tokens of each item's output at most.
        num_beams: rows of an item.
        end: id of the end token.
        skip: tokens that every row begins with.
    """

    def __init__(self, limits: Sequence[int], num_beams: int, end: int, skip: int) -> None:
        self.limits = torch.tensor(limits).repeat_interleave(num_beams)
        self.end, self.skip = end, skip

    def __call__(self, ids: Ids, scores: Scores) -> Scores:
        """Scores; only the end token is allowed at the limit."""
        late = (ids.shape[1] - self.skip + 1 >= self.limits).to(scores.device)
        if not late.any():
            return scores
        only = torch.full_like(scores[0], -torch.inf)
        only[self.end] = 0.0
        return torch.where(late[:, None], only, scores)


def _holds(sequence: Sequence[int], part: Sequence[int]) -> bool:
    n = len(part)
    return any(list(sequence[i : i + n]) == list(part) for i in range(len(sequence) - n + 1))


def _begun(sequence: Sequence[int], part: Sequence[int]) -> int:
    """Length of the longest prefix of ``part`` that is a suffix of the sequence."""
    return next((n for n in range(len(part) - 1, 0, -1) if list(sequence[-n:]) == list(part[:n])), 0)
