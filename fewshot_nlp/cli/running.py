"""Commands that run for a while: meta-training and the demonstration."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nlp.cli.console import stdout_is_ours


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("demo_output"),
    seed: Annotated[int, typer.Option(help="The first of the seeds; others draw other examples.")] = 0,
) -> None:
    """Adapts to medical, legal and finance texts from five examples each, and shows the results."""
    from fewshot_nlp.demo import run_demo

    run_demo(out, seed)


def train() -> None:
    """x."""
