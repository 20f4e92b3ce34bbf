"""How results are shown: tables as text and as Markdown, and a page, one HTML file that needs no other file."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.version import VERSION

Marked = Sequence[tuple[str, str, str]]
"""A text in pieces: the words; how they are marked ("right", "wrong", "missed", a colour "c0" to "c6" or ""); and what
is told of them."""


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
    """Writes the page, whole or not at all.

    Raises:
        FewShotError: the path is a folder's.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("fewshot_nlp.comparison").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = user_path(path)
    if not page.name or page.is_dir():
        raise FewShotError(f"The page's path is {str(path)!r}, which is a folder; name a file.")
    html = environment.from_string(source).render(headline=headline, sections=sections, version=VERSION)
    with atomic_write(page) as part:
        part.write_text(html, encoding="utf-8")
    return page
