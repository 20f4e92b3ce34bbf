"""The demonstration as one HTML file without any other file."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import fewshot_nlp
from fewshot_nlp.demo.measure import DEFAULT, DomainResult
from fewshot_nlp.demo.section import Section
from fewshot_nlp.demo.terminal import footnote, held_out_rows
from fewshot_nlp.persistence.disk import atomic_write

N_COLOURS = 7


def write_page(out: Path, results: Mapping[Section, Sequence[DomainResult]], seconds: float) -> Path:
    """Writes ``index.html`` into a folder, whole or not at all."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("fewshot_nlp.demo").joinpath("page.html.j2").read_text(encoding="utf-8")
    text = environment.from_string(source).render(
        results=list(results.items()),
        default=DEFAULT,
        n_colours=N_COLOURS,
        footnote=footnote,
        held_out_rows=held_out_rows,
        seconds=seconds,
        versions={"fewshot_nlp": fewshot_nlp.__version__, "torch": version("torch")},
    )
    page = out / "index.html"
    with atomic_write(page) as part:
        part.write_text(text, encoding="utf-8")
    return page
