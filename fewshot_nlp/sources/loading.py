"""Rows of a data set that has a card: from local files, from the package's own corpora, or from the Hub."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_nlp.errors import FewShotError, did_you_mean
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.sources.cards import DatasetCard, HubCopy, data_folder, load_card, task_of
from fewshot_nlp.sources.features import named_rows

if TYPE_CHECKING:
    import datasets

DATA_VARIABLE = "FEWSHOT_NLP_DATA"
"""Environment variable that names the folder with local copies of the data sets."""

Row = dict[str, Any]


class RowsMissingError(FewShotError):
    """The rows of a card are neither on this machine nor to be had from the Hub."""


def load_dataset_card(name: str, split: str | None = None) -> "datasets.DatasetDict | datasets.Dataset":
    """A data set by the name of its card, as `datasets.load_dataset` gives it.

    Read from the folder that the environment variable ``FEWSHOT_NLP_DATA`` names, where it has the set;
    the package's own corpora from the package; everything else from the Hub, whose splits may differ from the
    card's. Labels are texts wherever the rows come from.

    Args:
        name: one of `card_names`.
        split: "train", "validation", "test", ...; None for all.

    Returns:
        A `datasets.Dataset` when a split is named, else a `datasets.DatasetDict`.

    Raises:
        FewShotError: for an unknown name or split, and when the rows cannot be had, saying where they were
            sought.

    Examples:
        >>> load_dataset_card("medical_ner", "train").column_names
        ['text', 'spans']
    """
    import datasets

    rows = _load(load_card(name), split)
    made = {key: datasets.Dataset.from_list(value) for key, value in rows.items()}
    return made[split] if split is not None else datasets.DatasetDict(made)


def load_rows(name: str, split: str = "train") -> list[Row]:
    """The rows of one split as plain dictionaries with the task's columns; otherwise as `load_dataset_card`.

    Args:
        name: one of `card_names`.
        split: name of a split.

    Raises:
        FewShotError: as `load_dataset_card`.

    Examples:
        >>> sorted(load_rows("finance_classification")[0])
        ['label', 'text']
    """
    return _load(load_card(name), split)[split]


def _load(card: DatasetCard, split: str | None) -> dict[str, list[Row]]:
    if split is not None:
        _need_split(card, split, card.splits)
    if card.folder.endswith(".jsonl"):
        return {"train": _read(data_folder() / card.folder, card)}
    named = os.environ.get(DATA_VARIABLE)
    if named:
        root = user_path(named)
        if not root.is_dir():
            raise FewShotError(
                f"{DATA_VARIABLE} is {named!r}, but there is no such folder; correct or unset it."
            )
        if (root / card.folder).is_dir():
            wanted = [split] if split is not None else list(card.splits)
            return {key: _read(root / card.folder / f"{key}.jsonl.gz", card) for key in wanted}
        sought = f"not at {root / card.folder}"
    else:
        sought = f"{DATA_VARIABLE} is not set"
    if card.hub is None:
        raise RowsMissingError(
            f"The data set {card.name!r} is not here ({sought}), and no copy on the Hub is known. "
            f"Set {DATA_VARIABLE} to a folder with {card.folder}/<split>.jsonl.gz; the source: "
            f"{card.citation}"
        )
    return _from_hub(card, card.hub, split, sought)


def _read(path: Path, card: DatasetCard) -> list[Row]:
    """Rows of a file of JSON lines, columns renamed; bare of all checks that only foreign files need."""
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.jsonl*"))
        raise FewShotError(
            f"The data set {card.name!r} has no file {path}; the folder has: {', '.join(there) or 'nothing'}."
        )
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        rows: list[Row] = [json.loads(line) for line in text.split("\n") if line]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FewShotError(f"{path} is damaged ({type(error).__name__}: {error}); copy it again.") from error
    renamed = {a: b for a, b in card.columns.items() if a != b}
    return [{renamed.get(k, k): v for k, v in row.items()} for row in rows] if renamed else rows


def _from_hub(card: DatasetCard, hub: HubCopy, split: str | None, sought: str) -> dict[str, list[Row]]:
    import datasets

    try:
        found = datasets.load_dataset(hub.id, hub.config, revision=hub.revision)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RowsMissingError(
            f"The data set {card.name!r} is not here ({sought}), and {hub.id} (revision {hub.revision}) "
            f"could not be loaded from the Hub: {reason} Connect to the network, or set {DATA_VARIABLE} to a "
            f"folder with {card.folder}/<split>.jsonl.gz."
        ) from error
    named = hub.splits or {key: key for key in found}
    splits = {key: theirs for key, theirs in named.items() if theirs in found}
    if split is not None:
        _need_split(card, split, splits, f" on the Hub ({hub.id})")
    wanted = [split] if split is not None else list(splits)
    return {key: _hub_rows(card, hub, found[splits[key]]) for key in wanted}


def _hub_rows(card: DatasetCard, hub: HubCopy, table: "datasets.Dataset") -> list[Row]:
    missing = [column for column in hub.columns if column not in table.column_names]
    if missing:
        raise FewShotError(
            f"{hub.id} has no column {missing[0]!r}, only: {', '.join(table.column_names)}. The copy on the "
            f"Hub has changed since the card {card.name!r} was written."
        )
    renamed = {column: hub.columns.get(column, column) for column in table.column_names}
    target = task_of(card.task).label_column
    names = {a: hub.label_names for a, b in renamed.items() if b == target and hub.label_names}
    return [{renamed[k]: v for k, v in row.items()} for row in named_rows(table, names)]


def _need_split(card: DatasetCard, split: str, known: Iterable[str], where: str = "") -> None:
    known = list(known)
    if split in known:
        return
    hint = did_you_mean(split, known)
    raise FewShotError(f"{card.name!r} has no split {split!r}{where}.{hint} It has: {', '.join(known)}.")
