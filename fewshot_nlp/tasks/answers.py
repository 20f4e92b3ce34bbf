"""Answer spans: the likeliest valid ones, the no-answer threshold, and marking one in its context."""

import numpy as np
from jaxtyping import Float

BELOW = 1.0
"""Nats between the threshold and the nearest margin, where all questions are on one side of it."""
Span = tuple[int, int, float]
"""First slot, last slot, probability."""


def answer_spans(
    scores: Float[np.ndarray, "n_slots 2"], max_tokens: int, n_best: int
) -> tuple[list[Span], float]:
    """The likeliest spans of one item, best first, and the probability of no answer.

    A span's score is the sum of its start and end scores (Devlin et al. 2019, section 4.2), that of no answer
    the sum of both scores of slot 0. Probabilities are a softmax over all valid spans and no answer.

    Args:
        scores: start and end scores; slot 0 is "no answer", the others are tokens in order.
        max_tokens: the longest span.
        n_best: largest number of spans.
    """
    start, end = scores[1:, 0], scores[1:, 1]
    n, width = len(start), min(max_tokens, len(start))
    null = float(scores[0].sum())
    if not n:
        return [], 1.0
    padded = np.concatenate([end, np.full(width - 1, -np.inf)])
    sums = start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
    flat = sums.ravel()
    top = max(float(flat.max()), null)
    log_total = top + np.log(np.exp(flat - top).sum() + np.exp(null - top))
    best = np.argpartition(-flat, min(n_best, flat.size) - 1)[:n_best]
    best = best[np.lexsort((best, -flat[best]))]
    spans = [
        (1 + int(i // width), 1 + int(i // width + i % width), float(np.exp(flat[i] - log_total)))
        for i in best
        if np.isfinite(flat[i])
    ]
    return spans, float(np.exp(null - log_total))


def choose_threshold(margins: Float[np.ndarray, " n"], gains: Float[np.ndarray, " n"]) -> float:
    """The threshold that maximises the total gain of the answered questions.

    Args:
        margins: of each question, the log-probability of no answer minus the best answer's; it is answered when the
            margin is at most the threshold.
        gains: metric of answering minus metric of giving no answer, for each question.

    Returns:
        The middle of the best gap between two margins, the one nearest to 0 among equals; where it is best to answer
        nothing, `BELOW` under the smallest margin. Where no answer is worth anything, as for a support set without any,
        minus infinity: nothing is answered, whatever its margin.
    """
    margins, gains = margins[np.isfinite(margins)], gains[np.isfinite(margins)]
    if not (gains > 0).any():
        return -np.inf
    order = np.argsort(margins, kind="stable")
    sorted_margins = margins[order]
    total = np.concatenate([[0.0], np.cumsum(gains[order])])
    edges = np.concatenate(
        [[sorted_margins[0] - 2 * BELOW], sorted_margins, [sorted_margins[-1] + 2 * BELOW]]
    )
    middle = (edges[:-1] + edges[1:]) / 2
    gaps = edges[:-1] < edges[1:]  # none between equal margins
    best = np.flatnonzero(gaps & (total >= total[gaps].max() - 1e-9))
    return float(middle[best[np.argmin(np.abs(middle[best]))]])


def mark_answer(
    context: str, start: int, end: int, left: str = "[", right: str = "]", around: int = 200
) -> str:
    """The context with the answer marked, cut to some characters on both sides.

    Args:
        context: the whole context.
        start: first character of the answer.
        end: character after its last; equal to ``start`` for no answer, where nothing is marked.
        left: put before the answer.
        right: put after the answer.
        around: characters shown on each side.

    Examples:
        >>> mark_answer("Give 20 mg of aspirin.", 5, 10)
        'Give [20 mg] of aspirin.'
    """
    low, high = max(0, start - around), min(len(context), end + around)
    before, after = "…" * (low > 0), "…" * (high < len(context))
    answer = f"{left}{context[start:end]}{right}" if end > start else ""
    return f"{before}{context[low:start]}{answer}{context[end:high]}{after}"
