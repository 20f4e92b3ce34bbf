"""Transition probabilities of tags, estimated on the support set, and Viterbi decoding with them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

Rule = dict[str, Float[np.ndarray, "..."]]
"""``start`` [c] and ``step`` [c, c] log-scores, and ``offset`` [c], which is added to every word's log-scores."""

SMOOTHING = 4.0
"""Counts by which the chance that an entity of one type goes on is drawn to that of all types together."""
EVIDENCE = 0.75
"""Share of the class priors taken off the scores, and of the transitions put on: 1 is the exact hybrid model."""
NO_ENTITY = -0.75
"""Log-score added to ``O``: few-shot heads find too few entities more often than too many."""


def legal_bio(classes: Sequence[str]) -> Rule:
    """Forbids an ``I-X`` at the start or after anything but ``B-X`` and ``I-X``."""
    inside = np.array([c.startswith("I-") for c in classes])
    types = np.array([c[2:] for c in classes])
    return {
        "start": np.where(inside, -np.inf, 0.0),
        "step": np.where(inside[None, :] & (types[:, None] != types[None, :]), -np.inf, 0.0),
        "offset": np.zeros(len(classes)),
    }


def hidden_markov(classes: Sequence[str], sentences: Sequence[Int[np.ndarray, " n"]]) -> Rule:
    """Transitions between BIO classes counted on the support set, for the hybrid of a classifier and an HMM.

    A classifier gives p(class | word); Viterbi needs p(word | class), which is proportional to p(class | word) /
    p(class) (Bourlard & Morgan 1994, Connectionist Speech Recognition, chapter 7). After a class its entity continues
    with a probability smoothed towards that of all types; otherwise "O" or a new entity follows by frequency.

    Args:
        classes: "O", then "B-X" and "I-X" of each type.
        sentences: class indices of the words of each sentence.
    """
    n = len(classes)
    begin, inside = np.arange(1, n, 2), np.arange(2, n, 2)
    pairs = np.zeros((n, n))
    for tags in sentences:
        np.add.at(pairs, (np.concatenate([[0], tags[:-1]]), tags), 1)
    count = np.bincount(np.concatenate([np.zeros(0, int), *sentences]), minlength=n)
    prior = (count + 1) / (count.sum() + n)
    new = pairs.sum(axis=0) + 0.5
    new[inside] = 0
    new /= new.sum()
    step = np.zeros((n, n))
    step[0] = new
    for rows in (begin, inside):
        total = pairs[rows].sum(axis=1)
        pooled = (pairs[rows, inside].sum() + 0.5) / (total.sum() + 1)
        goes_on = (pairs[rows, inside] + SMOOTHING * pooled) / (total + SMOOTHING)
        step[rows] = (1 - goes_on)[:, None] * new
        step[rows, inside] = goes_on
    with np.errstate(divide="ignore"):
        log = np.log(step)
    offset = -EVIDENCE * np.log(prior)
    offset[0] += NO_ENTITY
    return {"start": log[0], "step": EVIDENCE * log, "offset": offset}


def abstract(n_classes: int, sentences: Sequence[Int[np.ndarray, " n"]]) -> Rule:
    """StructShot's transitions (Yang & Katiyar 2020, section 4.2), with add-one smoothing.

    They are counted between "O", "same type" and "other type", and divided evenly among the types. Deviations: the
    paper counts them on source data. A support set has few, and its sentences were chosen to hold entities, so it
    overstates how often one begins. The paper's exponent tau is 1.

    Args:
        n_classes: "O" and the types ("io").
        sentences: class indices of the words of each sentence.
    """
    n = n_classes - 1
    start = np.ones(2)
    counts = np.ones((2, 3))  # to O, to the same type, to another type
    for tags in sentences:
        entity = (tags > 0).astype(int)
        start[entity[0]] += 1
        column = np.where(entity[1:] == 0, 0, np.where((tags[1:] == tags[:-1]) | (entity[:-1] == 0), 1, 2))
        np.add.at(counts, (entity[:-1], column), 1)
    if n == 1:  # there is no other type
        counts[1, 2] = 0
    from_o = np.array([counts[0, 0], counts[0, 1]]) / counts[0, :2].sum()
    from_entity = counts[1] / counts[1].sum()
    step = np.empty((n_classes, n_classes))
    step[0, 0], step[0, 1:] = from_o[0], from_o[1] / n
    step[1:, 0] = from_entity[0]
    step[1:, 1:] = from_entity[2] / max(1, n - 1)
    np.fill_diagonal(step[1:, 1:], from_entity[1])
    start = start / start.sum()
    first = np.concatenate([start[:1], np.full(n, start[1] / n)])
    return {"start": np.log(first), "step": np.log(step), "offset": np.zeros(n_classes)}


def viterbi(
    emissions: Float[np.ndarray, "n_words n_classes"],
    lengths: Int[np.ndarray, " n_sentences"],
    decoding_parameters: Rule,
) -> Int[np.ndarray, " n_words"]:
    """The best class sequence of every sentence, batched over sentences.

    Args:
        emissions: log-scores of all words, sentences concatenated.
        lengths: number of words of each sentence.
        decoding_parameters: ``start`` and ``step`` scores, and ``offset``, added to every word's scores.
    """
    best = np.zeros(len(emissions), int)
    if not len(emissions):
        return best
    emissions = emissions + decoding_parameters["offset"]
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order]
    first = (np.cumsum(lengths) - lengths)[order]
    longest = int(sizes[0])
    alive = [int((sizes > t).sum()) for t in range(longest + 1)]
    score = decoding_parameters["start"] + emissions[first[: alive[0]]]
    back: list[np.ndarray] = []
    final = np.zeros(alive[0], int)
    for t in range(1, longest + 1):
        ended = slice(alive[t], alive[t - 1])
        final[ended] = score[ended].argmax(axis=1)
        paths = score[: alive[t], :, None] + decoding_parameters["step"]
        back.append(paths.argmax(axis=1))
        score = paths.max(axis=1) + emissions[first[: alive[t]] + t] if alive[t] else paths[:, 0]
    state = np.zeros(alive[0], int)
    for t in range(longest - 1, -1, -1):
        go_on, here = alive[t + 1], alive[t]
        state[:go_on] = back[t][np.arange(go_on), state[:go_on]]
        state[go_on:here] = final[go_on:here]
        best[first[:here] + t] = state[:here]
    return best
