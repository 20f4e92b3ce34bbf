"""Data set cards: a YAML file for each data set says what it holds, where it is, what it may be used for."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

import yaml
from pydantic import Field, model_validator

from fewshot_nlp.errors import FewShotError, did_you_mean
from fewshot_nlp.persistence.disk import own_folder, user_path
from fewshot_nlp.settings import Settings, Several

if TYPE_CHECKING:
    from fewshot_nlp.tasks import Task

Shippable = Literal["public-domain", "permissive", "share-alike"]
SHIPPABLE = get_args(Shippable)
"""Licence classes of sets on which weights that ship may be trained."""
LicenceClass = Shippable | Literal["non-commercial", "research", "unclear", "evaluation-only"]
Words = Annotated[
    str, Field(pattern=r"\S", description="a text that is not empty, in quotes where YAML takes it for more")
]
Code = Annotated[str, Field(pattern="^[a-z]{2,3}$", description="a language's code, such as de")]
Domain = Annotated[str, Field(pattern="^[a-z]+$", description="one lower-case word")]
HubName = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$", description="a text like 'organisation/name'")]
Rows = Annotated[int, Field(ge=1)]


def task_of(name: str) -> "type[Task]":
    """The task of a name, which loads torch.

    Raises:
        FewShotError: naming the nearest known task, and all.
    """
    from fewshot_nlp.tasks import TASKS

    return TASKS.get(name)


class HubCopy(Settings):
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

    id: HubName
    revision: str = "main"
    config: str | None = None
    columns: Mapping[Words, Words] = field(default_factory=dict)
    splits: Mapping[Words, Words] = field(default_factory=dict)
    label_names: Several[Words] = ()


class DatasetCard(Settings):
    """What is known of one data set. A card is the file ``data/cards/<name>.yaml`` with these keys.

    Args:
        name: the file's name without ``.yaml``.
        task: a task's name.
        domain: one lower-case word ("medical"); the unit of domain-disjoint splits.
        language: language codes; for translation the source's, then the target's.
        licence: the licence in words, and where it is stated.
        licence_class: one of `LicenceClass`.
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
        FewShotError: naming all wrong values.
    """

    name: Words
    task: Words
    domain: Domain
    language: Annotated[Several[Code], Field(min_length=1)]
    licence: Words
    licence_class: LicenceClass
    may_train_weights: bool
    folder: Words
    columns: Mapping[Words, Words]
    splits: Annotated[Mapping[Words, Rows], Field(min_length=1)]
    labels: Several[Words] = ()
    label_descriptions: Mapping[Words, Words] = field(default_factory=dict)
    citation: Words
    notes: str = ""
    group_column: str | None = None
    hub: HubCopy | None = None

    @model_validator(mode="after")
    def _may_ship(self) -> Self:
        if self.may_train_weights and self.licence_class not in SHIPPABLE:
            raise FewShotError(
                f"may_train_weights is true, but the licence class {self.licence_class!r} is none of: "
                f"{', '.join(SHIPPABLE)}."
            )
        return self

    @model_validator(mode="after")
    def _folder_is_relative(self) -> Self:
        path = PurePosixPath(self.folder)
        if path.is_absolute() or ".." in path.parts or "\\" in self.folder:
            raise FewShotError(f"folder is {self.folder!r}, but must be relative, with '/' and without '..'.")
        return self

    @model_validator(mode="after")
    def _columns_suit_the_task(self) -> Self:
        named = set(self.columns.values())
        known = task_of(self.task).columns
        if not any(named >= set(columns) for columns in known):
            wanted = " or ".join(", ".join(columns) for columns in known)
            raise FewShotError(f"columns name {', '.join(sorted(named))}; {self.task} needs: {wanted}.")
        if self.group_column is not None and self.group_column not in named:
            raise FewShotError(
                f"group_column is {self.group_column!r}, but columns name {', '.join(sorted(named))}."
            )
        return self

    @model_validator(mode="after")
    def _labels_suit_the_task(self) -> Self:
        if list(self.labels) != sorted(set(self.labels)):
            raise FewShotError("labels must be sorted, and each be named once.")
        if bool(self.labels) != task_of(self.task).has_labels:
            raise FewShotError(
                f"there are {len(self.labels)} labels, which does not suit the task {self.task}."
            )
        unknown = [label for label in self.label_descriptions if label not in self.labels]
        if unknown:
            raise FewShotError(
                f"label_descriptions has {unknown[0]!r}, but the labels are: {', '.join(self.labels)}."
            )
        return self


def data_folder() -> Path:
    """The folder with ``cards`` and ``corpora``; see `own_folder`."""
    return own_folder("_data/cards", "data/cards").parent


def card_names() -> list[str]:
    """Names of all data sets that have a card, sorted."""
    return sorted(path.stem for path in (data_folder() / "cards").glob("*.yaml"))


def load_card(name: str) -> DatasetCard:
    """The card of a data set.

    Args:
        name: one of `card_names`.

    Raises:
        FewShotError: for an unknown name (with the nearest known one), and for a card that is not right.

    Examples:
        >>> load_card("banking77").domain
        'finance'
    """
    known = card_names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise FewShotError(f"There is no data set card {name!r}.{hint} card_names() lists all {len(known)}.")
    return read_card(data_folder() / "cards" / f"{name}.yaml")


def read_card(path: str | Path) -> DatasetCard:
    """The card in a YAML file, whose name must be the card's.

    Raises:
        FewShotError: naming the file and what is wrong in it.
    """
    path = user_path(path)
    try:
        card = DatasetCard.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise FewShotError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except FewShotError as error:
        raise FewShotError(f"{path}: {error}") from None
    if card.name != path.stem:
        raise FewShotError(f"{path}: the card is named {card.name!r}; name it {path.stem!r}, as the file.")
    return card
