"""Where rows come from: cards of known data sets, and files of a user's own."""

from fewshot_nlp.sources.annotated import TOOLS, write_annotations
from fewshot_nlp.sources.cards import DatasetCard, HubCopy, card_names, data_folder, load_card
from fewshot_nlp.sources.loading import DATA_VARIABLE, RowsMissingError, load_dataset_card, load_rows
from fewshot_nlp.sources.readers import read_rows, write_rows

__all__ = [
    "DATA_VARIABLE",
    "TOOLS",
    "DatasetCard",
    "HubCopy",
    "RowsMissingError",
    "card_names",
    "data_folder",
    "load_card",
    "load_dataset_card",
    "load_rows",
    "read_rows",
    "write_annotations",
    "write_rows",
]
