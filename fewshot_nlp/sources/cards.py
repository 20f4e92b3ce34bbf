"""Data set cards: a YAML file for each data set says what it holds, where it is, what it may be used for."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import user_path

if TYPE_CHECKING:
    from fewshot_nlp.tasks import Task

SHIPPABLE = ("public-domain", "permissive", "share-alike")
"""Licence classes of sets on which weights that ship may be trained."""
LICENCE_CLASSES = (*SHIPPABLE, "non-commercial", "research", "unclear", "evaluation-only")

T = TypeVar("T")


def task_of(name: str) -> "type[Task]":
    """The task of a name, which loads torch.

    Raises:
        FewShotError: naming the nearest known task, and all.
    """
    from fewshot_nlp.tasks import TASKS

    return TASKS.get(name)


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """The data set on the Hugging Face Hub, whose columns, splits and label names may differ from the card's.

    Args:
        id: "organisation/name".
        revision: branch, tag or commit. "refs/convert/parquet" is the Hub's own copy in Parquet, needed where
            the main branch holds a loading script, which `datasets` no longer runs.
        config: name of the configuration, where there are several.
        columns: the Hub's column names to the task's; columns left out keep their names.
        splits: the card's split names to the Hub's; empty when they are the same.
        label_names: names by id, where the Hub has bare numbers or other names.
    """

    id: str
    revision: str = "main"
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", self.id):
            raise FewShotError(f"hub.id is {self.id!r}, but must look like 'organisation/name'.")
        _need_texts("hub.columns", self.columns)
        _need_texts("hub.splits", self.splits)
        object.__setattr__(self, "label_names", _texts("hub.label_names", self.label_names))


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """What is known of one data set. A card is the file ``data/cards/<name>.yaml`` with these keys.

    Args:
        name: the file's name without ``.yaml``.
        task: a task's name.
        domain: one lower-case word ("medical"); the unit of domain-disjoint splits.
        language: language codes; for translation the source's, then the target's.
        licence: the licence in words, and where it is stated.
        licence_class: one of `LICENCE_CLASSES`.
        may_train_weights: whether weights that ship may be trained on it; needs a class in `SHIPPABLE`.
        folder: where the rows are: a folder below FEWSHOT_NLP_DATA with ``<split>.jsonl.gz`` files, or a
            ``.jsonl`` file below `data_folder` with the package's own rows, whose only split is "train".
        columns: the columns in these files to the task's.
        splits: rows of every split in these files.
        labels: all labels, sorted; empty for tasks without labels.
        label_descriptions: label to words that say what it is; may be empty.
        citation: whom to cite.
        notes: where the rows come from, and what was changed or left out.
        group_column: a column whose rows must not be divided between support and query, or None.
        hub: the copy on the Hub, or None.

    Raises:
        FewShotError: naming the first wrong value.
    """

    name: str
    task: str
    domain: str
    language: tuple[str, ...]
    licence: str
    licence_class: str
    may_train_weights: bool
    folder: str
    columns: Mapping[str, str]
    splits: Mapping[str, int]
    labels: tuple[str, ...] = ()
    label_descriptions: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""
    notes: str = ""
    group_column: str | None = None
    hub: HubCopy | None = None

    def __post_init__(self) -> None:
        for key in ("name", "task", "domain", "licence", "folder", "citation"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value.strip():
                raise FewShotError(f"{key} is {value!r}, but must be a text that is not empty.")
        task_of(self.task)
        _need_one_of("licence_class", self.licence_class, LICENCE_CLASSES)
        if not re.fullmatch("[a-z]+", self.domain):
            raise FewShotError(f"domain is {self.domain!r}, but must be one lower-case word.")
        for key in ("language", "labels"):
            object.__setattr__(self, key, _texts(key, getattr(self, key)))
        if not self.language or not all(re.fullmatch("[a-z]{2,3}", code) for code in self.language):
            raise FewShotError(
                f"language is {list(self.language)}, but must be a list of codes such as [de, en]."
            )
        if not isinstance(self.may_train_weights, bool):
            raise FewShotError(f"may_train_weights is {self.may_train_weights!r}, but must be true or false.")
        if self.may_train_weights and self.licence_class not in SHIPPABLE:
            raise FewShotError(
                f"may_train_weights is true, but the licence class {self.licence_class!r} is none of: "
                f"{', '.join(SHIPPABLE)}."
            )
        path = PurePosixPath(self.folder)
        if path.is_absolute() or ".." in path.parts or "\\" in self.folder:
            raise FewShotError(f"folder is {self.folder!r}, but must be relative, with '/' and without '..'.")
        self._check_columns()
        self._check_labels()

    def _check_columns(self) -> None:
        _need_texts("columns", self.columns)
        named = set(self.columns.values())
        known = task_of(self.task).columns
        if not any(named >= set(columns) for columns in known):
            wanted = " or ".join(", ".join(columns) for columns in known)
            raise FewShotError(f"columns name {', '.join(sorted(named))}; {self.task} needs: {wanted}.")
        if self.group_column is not None and self.group_column not in named:
            raise FewShotError(
                f"group_column is {self.group_column!r}, but columns name {', '.join(sorted(named))}."
            )
        if not isinstance(self.splits, Mapping) or not self.splits:
            raise FewShotError("splits is empty, but must name at least one split and its number of rows.")
        for split, rows in self.splits.items():
            if not isinstance(split, str) or type(rows) is not int or rows < 1:
                raise FewShotError(f"splits has {split!r}: {rows!r}, but must map names to numbers of rows.")

    def _check_labels(self) -> None:
        if list(self.labels) != sorted(set(self.labels)):
            raise FewShotError("labels must be sorted, and each be named once.")
        if bool(self.labels) != task_of(self.task).has_labels:
            raise FewShotError(
                f"there are {len(self.labels)} labels, which does not suit the task {self.task}."
            )
        _need_texts("label_descriptions", self.label_descriptions)
        unknown = [label for label in self.label_descriptions if label not in self.labels]
        if unknown:
            raise FewShotError(
                f"label_descriptions has {unknown[0]!r}, but the labels are: {', '.join(self.labels)}."
            )


def data_folder() -> Path:
    """The folder with ``cards`` and ``corpora``: inside the installed package, else in the repository.

    Raises:
        FewShotError: when there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_data", package.parent / "data"):
        if (folder / "cards").is_dir():
            return folder
    raise FewShotError(
        f"There are no data set cards at {package / '_data' / 'cards'}, nor at "
        f"{package.parent / 'data' / 'cards'}; reinstall fewshot-nlp."
    )


def card_names() -> list[str]:
    """Names of all data sets that have a card, sorted."""
    return sorted(path.stem for path in (data_folder() / "cards").glob("*.yaml"))


def load_card(name: str) -> DatasetCard:
    """The card of a data set.

    Args:
        name: one of `card_names`.

    Raises:
        FewShotError: for an unknown name (with the nearest known one), and for a card that is not right.

    Example:
        >>> load_card("banking77").domain
        'finance'
    """
    known = card_names()
    if name not in known:
        near = get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FewShotError(f"There is no data set card {name!r}.{hint} card_names() lists all {len(known)}.")
    return read_card(data_folder() / "cards" / f"{name}.yaml")


def read_card(path: str | Path) -> DatasetCard:
    """The card in a YAML file, whose name must be the card's.

    Raises:
        FewShotError: naming the file and what is wrong in it.
    """
    path = user_path(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and value.get("hub") is not None:
            value["hub"] = _build(HubCopy, value["hub"], "hub")
        card = _build(DatasetCard, value, "the card")
    except yaml.YAMLError as error:
        raise FewShotError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except FewShotError as error:
        raise FewShotError(f"{path}: {error}") from None
    if card.name != path.stem:
        raise FewShotError(f"{path}: the card is named {card.name!r}; name it {path.stem!r}, as the file.")
    return card


def _build(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise FewShotError(f"{where} is a {type(value).__name__}, but must map keys to values.")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FewShotError(f"{where} has an unknown key {key!r}.{hint} Known: {', '.join(known)}.")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in value]
    if missing:
        raise FewShotError(f"{where} has no {', '.join(missing)}.")
    return kind(**value)


def _need_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise FewShotError(f"{key} is {value!r}, but must be one of: {', '.join(known)}.")


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise FewShotError(f"{key} is {value!r}, but must be a list of texts.")
    wrong = [item for item in value if not isinstance(item, str) or not item]
    if wrong:
        raise FewShotError(f"{key} has {wrong[0]!r}, which YAML does not read as a text; put it in quotes.")
    return tuple(value)


def _need_texts(key: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(t, str) and t for pair in value.items() for t in pair
    ):
        raise FewShotError(
            f"{key} is {value!r}, but must map texts to texts; put numbers, yes and no in quotes."
        )
