"""The page of a run: one HTML file of sections, which needs no other file and no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_nlp.persistence.page import write_page as render
from fewshot_nlp.version import VERSION

Marked = Sequence[tuple[str, str, str]]
"""A text in pieces: the words; how they are marked ("right", "wrong", "missed" or ""); and what is told of them."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: its heading; the first has none.
        rows: a table with its head; may be empty.
        best: the first cell of the row that is set in bold.
        figures: what they show, and SVG.
        notes: a paragraph each.
        texts: texts with marks.
    """

    title: str
    rows: Sequence[Sequence[str]] = ()
    best: str | None = None
    figures: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    texts: Sequence[Marked] = ()


def write_page(path: str | Path, headline: str, sections: Sequence[Section]) -> Path:
    """Writes the page, whole or not at all."""
    return render(path, "fewshot_nlp.comparison", headline=headline, sections=sections, version=VERSION)
