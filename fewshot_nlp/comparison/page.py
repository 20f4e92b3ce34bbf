"""How results are shown: tables as text and as Markdown, and a page, one HTML file that needs no other file."""

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


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines with aligned columns; why a learner was refused, in the second, widens none."""
    widths = [max(len(r[i]) for r in rows if not r[1].startswith("refused:")) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def markdown(head: Sequence[str], *rows: Sequence[str]) -> list[str]:
    """A table as lines of Markdown."""
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]


def write_page(path: str | Path, headline: str, sections: Sequence[Section]) -> Path:
    """Writes the page, whole or not at all."""
    return render(path, "fewshot_nlp.comparison", headline=headline, sections=sections, version=VERSION)
