"""The leakage guard: training rows whose input, or any of its word n-grams, a run is measured on are left out.

The check of n-grams is that of GPT-3 (Brown et al. 2020, appendix C), which looked for 13-grams in web pages; rows here
are sentences, so the default is shorter. A text of fewer than n words counts as one n-gram of its own length.
"""

import re
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING

import numpy as np
from numpy.typing import NDArray

from fewshot_nlp.episode import Example, Json, TaskDataset, input_key
from fewshot_nlp.errors import FewShotError, logger

Hashes = NDArray[np.uint64]
WORD = re.compile(r"\w+")


def words_of(example: Example) -> list[list[str]]:
    """The words of every text among an example's inputs, in lower case, without punctuation.

    Examples:
        >>> words_of(Example({"question": "Who?", "tokens": ["Give", "20", "mg", "."]}, None))
        [['who'], ['give', '20', 'mg']]
    """
    found = (WORD.findall(text.lower()) for text in map(_text, example.inputs.values()))
    return [words for words in found if words]


def _text(value: Json) -> str:
    """A text, or a list of words as one text."""
    if isinstance(value, list | tuple):
        return " ".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""


class NGrams:
    """Word n-grams as 64-bit hashes, comparable between all texts that one object has seen.

    Hashes are sums of products modulo 2^64 over the words' numbers, so a text costs one pass of numpy whatever n is;
    among 10^7 n-grams against 10^6, a false match has a chance of about one in two million.

    Args:
        n: words in an n-gram, at least 1.

    Examples:
        >>> grams = NGrams(3)
        >>> one, two = grams.of("a b c d".split()), grams.of("x b c d".split())
        >>> len(one), np.isin(one, two).tolist()
        (2, [False, True])
    """

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(n)
        self._n = n
        self._numbers: dict[str, int] = {}
        self._factors = rng.integers(2**63, size=n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._mix = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads small numbers

    def of(self, words: list[str]) -> Hashes:
        """The hashes of a text's n-grams, in order; at least one."""
        numbers = np.array([self._numbers.setdefault(w, len(self._numbers) + 1) for w in words], np.uint64)
        numbers = numbers * self._mix
        numbers ^= numbers >> np.uint64(29)
        n = min(self._n, len(words))
        windows = np.lib.stride_tricks.sliding_window_view(numbers, n)
        hashes: Hashes = (windows * self._factors[:n]).sum(axis=1, dtype=np.uint64) + np.uint64(n)
        return hashes


def overlapping_rows(
    data: TaskDataset, grams: NGrams, measured: Mapping[str, Hashes]
) -> dict[str, NDArray[np.bool_]]:
    """For each measured data set, which rows of ``data`` share an n-gram with it.

    Args:
        data: a source.
        grams: which also made the measured sets' hashes.
        measured: name to sorted hashes, as `hashes_of` gives them.
    """
    per_row = [[grams.of(words) for words in words_of(example)] for example in data.examples]
    rows = np.repeat(np.arange(len(data)), [sum(map(len, texts)) for texts in per_row])
    flat = np.concatenate([h for texts in per_row for h in texts]) if len(rows) else np.zeros(0, np.uint64)
    result = {}
    for name, hashes in measured.items():
        result[name] = np.zeros(len(data), np.bool_)
        result[name][rows[np.isin(flat, hashes)]] = True
    return result


def hashes_of(examples: Iterable[Example], grams: NGrams) -> Hashes:
    """The sorted, distinct n-grams of many rows."""
    found = [grams.of(words) for example in examples for words in words_of(example)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def without_targets(
    data: Mapping[str, TaskDataset], targets: Mapping[str, Iterable[Example]]
) -> dict[str, TaskDataset]:
    """Data sets without the rows whose input, as `input_key` says it, a target has; one line tells how many went.

    Args:
        data: sources by name.
        targets: rows of the targets by name.

    Raises:
        FewShotError: a source has no other rows.
    """
    keys = {input_key(example.inputs) for examples in targets.values() for example in examples}
    kept, lost = dict[str, TaskDataset](), dict[str, int]()
    for name, source in data.items():
        rows = [i for i, example in enumerate(source.examples) if input_key(example.inputs) not in keys]
        if not rows:
            raise FewShotError(f"All {len(source)} rows of {name!r} are rows of the targets; leave it out.")
        if len(rows) < len(source):
            lost[name] = len(source) - len(rows)
        kept[name] = source.take(rows) if name in lost else source
    logger.log(
        WARNING if lost else INFO,
        "%d of %d rows are left out, because targets (%s) have their inputs%s",
        sum(lost.values()),
        sum(map(len, data.values())),
        ", ".join(targets),
        ": " + ", ".join(f"{name} {n}" for name, n in lost.items()) + "." if lost else ".",
    )
    return kept


def without_leaks(
    train: Mapping[str, TaskDataset],
    measured: Mapping[str, Iterable[Example]],
    *,
    n: int,
    max_share: float,
    drop_sources: bool = False,
) -> dict[str, TaskDataset]:
    """The sources without rows that share an n-gram with measured rows; the logger gives the numbers of each.

    Args:
        train: sources by name.
        measured: rows of the targets and of the meta-validation sets, by name.
        n: words in an n-gram, at least 1.
        max_share: a source that would lose more than this share of its rows, in [0, 1], is too near.
        drop_sources: leave such a source out, and say so, instead of refusing the run.

    Raises:
        FewShotError: a source is too near a measured set, or none is left.
    """
    grams = NGrams(n)
    hashes = {name: hashes_of(examples, grams) for name, examples in measured.items()}
    kept: dict[str, TaskDataset] = {}
    for name, data in train.items():
        found = overlapping_rows(data, grams, hashes)
        leaks = np.logical_or.reduce([np.zeros(len(data), np.bool_), *found.values()])
        lost = int(leaks.sum())
        if not lost:
            kept[name] = data
            continue
        nearest = max(found, key=lambda key: int(found[key].sum()))
        told = (
            f"{name}: {lost} of {len(data)} rows ({lost / len(data):.1%}) share {n}-grams of words with "
            f"measured data, most of them ({int(found[nearest].sum())}) with {nearest}"
        )
        if lost <= max_share * len(data):
            logger.warning("%s; they are left out.", told)
            kept[name] = data.take(np.flatnonzero(~leaks).tolist())
        elif drop_sources:
            logger.warning("%s: more than %.1f%%, so the source is left out.", told, 100 * max_share)
        else:
            raise FewShotError(
                f"{told}: more than selection.leakage_max_share {max_share:g}. Leave the source out, or set "
                "selection.leakage_drop_sources: true to have that done."
            )
    if not kept:
        raise FewShotError("The leakage guard left no source; name sources of other texts.")
    return kept
