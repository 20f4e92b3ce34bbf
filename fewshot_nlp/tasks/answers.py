"""Answer spans: the likeliest valid ones, the no-answer threshold, and marking one in its context."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fewshot_nlp.tokenization.windows import Windows, unit_spans

BELOW = 1.0
"""Nats between the threshold and the nearest margin, where all questions are on one side of it."""
SPARE = 4
"""Spans looked at for each answer that is shown: some differ by white space alone."""
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


def best_answer(
    context: str,
    scores: Float[np.ndarray, "n_slots 2"],
    offsets: Int[np.ndarray, "n_slots 2"],
    max_tokens: int,
    threshold: float,
    n_best: int,
) -> dict[str, Any]:
    """The best valid span of a context, or no answer; and the next best spans.

    Args:
        context: the text.
        scores: start and end scores of its slots; slot 0 is "no answer".
        offsets: characters of the slots.
        max_tokens: of an answer.
        threshold: largest margin (log-probability of no answer minus the best answer's) with an answer.
        n_best: answers that are told.
    """
    found, null = answer_spans(scores, max_tokens, SPARE * n_best)
    distinct: dict[tuple[int, int], dict[str, Any]] = {}
    for first, last, probability in found:
        answer = _answer(context, int(offsets[first, 0]), int(offsets[last, 1]), probability)
        if answer["answer"]:
            distinct.setdefault((answer["start"], answer["end"]), answer)
    kept = list(distinct.values())[:n_best]
    margin = float(np.log(null) - np.log(kept[0]["score"])) if kept else np.inf
    return answer_of(kept, null, margin, not kept or margin > threshold or threshold == -np.inf)


def _answer(context: str, start: int, end: int, probability: float) -> dict[str, Any]:
    """An answer without leading and trailing white space."""
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return {"answer": text, "score": probability, "start": start, "end": start + len(text)}


def answer_of(n_best: list[dict[str, Any]], null: float, margin: float, nothing: bool) -> dict[str, Any]:
    """A prediction of answers: the best one, or none, and what it was chosen by."""
    best = {"answer": "", "score": null, "start": 0, "end": 0} if nothing else n_best[0]
    given = [] if nothing else [best]
    target = {"text": [b["answer"] for b in given], "answer_start": [b["start"] for b in given]}
    return {"target": target, **best, "no_answer_score": null, "null_margin": margin, "n_best": n_best}


def context_slots(
    windows: Windows, n_items: int
) -> tuple[Int[np.ndarray, "n_spans 4"], Int[np.ndarray, "n_slots 2"], Int[np.ndarray, " n_items"]]:
    """For each item one slot for "no answer" (the first token of a window), then one for each context token.

    Args:
        windows: of questions, each with its context.
        n_items: number of questions.

    Returns:
        Rows (slot, window, first token, token after the last), sorted by window and place; the characters of each
        slot; and the number of slots of each item.
    """
    units, n_tokens, offsets = _context_tokens(windows, n_items)
    n_slots = n_tokens + 1
    first_slot = np.cumsum(n_slots) - n_slots
    lengths = np.array([len(row) for row in windows.ids], int)
    token_slots = np.repeat(first_slot[windows.owner], lengths) + 1 + units
    index = np.arange(len(lengths))
    null = np.stack([first_slot[windows.owner], index, index * 0, index * 0 + 1], axis=1)
    spans = np.concatenate([null, unit_spans(windows, units, token_slots)])
    characters = np.zeros((int(n_slots.sum()), 2), np.int64)
    characters[token_slots[units >= 0]] = offsets[units >= 0]
    return spans[np.lexsort((spans[:, 2], spans[:, 1]))].astype(np.int64), characters, n_slots


def _context_tokens(
    windows: Windows, n_items: int
) -> tuple[Int[np.ndarray, " n_tokens"], Int[np.ndarray, " n_items"], Int[np.ndarray, "n_tokens 2"]]:
    """Index of each token in its context (-1 outside), number of tokens of each context, characters of each token.

    The tokenizer splits a context into windows of equal size with overlap; a token's index follows from the
    start of its window.
    """
    units: list[np.ndarray] = []
    offsets = np.zeros((0, 2), int)
    n_tokens = np.zeros(n_items, int)
    seen: dict[int, int] = {}
    for encoding, owner in zip(windows.encodings, windows.owner.tolist(), strict=True):
        inside = np.array([s == 1 for s in encoding.sequence_ids], bool)
        count = int(inside.sum())
        begin = seen.get(owner, 0)
        numbers = np.where(inside, np.cumsum(inside) - 1 + begin, -1)
        units.append(numbers)
        n_tokens[owner] = max(n_tokens[owner], begin + count)
        seen[owner] = begin + count - windows.stride
    if windows.encodings:
        offsets = np.array([o for e in windows.encodings for o in e.offsets], int)
    return np.concatenate([np.zeros(0, int), *units]), n_tokens, offsets


def choose_threshold(margins: Float[np.ndarray, " n"], gains: Float[np.ndarray, " n"]) -> float:
    """The threshold that maximises the total gain of the answered questions, if it surely gains over always answering.

    Args:
        margins: of each question, the log-probability of no answer minus the best answer's; it is answered when the
            margin is at most the threshold.
        gains: metric of answering minus metric of giving no answer, for each question.

    Returns:
        The middle of the best gap between two margins, the one nearest to 0 among equals; where it is best to answer
        nothing, `BELOW` under the smallest margin. Infinity, always to answer, where the mean gain of refusing is not
        above zero by two standard errors. Where no answer is worth anything, as for a support set without any, minus
        infinity: nothing is answered, whatever its margin.
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
    threshold = float(middle[best[np.argmin(np.abs(middle[best]))]])
    gain = np.where(margins > threshold, -gains, 0.0)
    if len(gain) < 2 or gain.mean() < 2 * gain.std(ddof=1) / len(gain) ** 0.5:
        return np.inf
    return threshold


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
