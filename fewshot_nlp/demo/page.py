"""The demonstration as one HTML file without any other file."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import fewshot_nlp
from fewshot_nlp.demo.measure import DomainResult
from fewshot_nlp.demo.section import ADAPTED, Section
from fewshot_nlp.demo.terminal import footnote, gain, held_out_rows
from fewshot_nlp.persistence.page import write_page as render_page

N_COLOURS = 7


def write_page(out: Path, results: Mapping[Section, Sequence[DomainResult]], seconds: float) -> Path:
    """Writes ``index.html`` into a folder, whole or not at all."""
    return render_page(
        out / "index.html",
        "fewshot_nlp.demo",
        results=list(results.items()),
        adapted=ADAPTED,
        gain=gain,
        n_colours=N_COLOURS,
        footnote=footnote,
        held_out_rows=held_out_rows,
        seconds=seconds,
        versions={"fewshot_nlp": fewshot_nlp.__version__, "torch": version("torch")},
    )
