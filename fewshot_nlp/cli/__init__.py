"""The command line: ``fewshot-nlp``.

One file for each group of commands. Whatever is slow to import is imported inside a command, so that
``fewshot-nlp --help`` answers at once.
"""

import typer

import fewshot_nlp
from fewshot_nlp.cli import adapting, episodic, listing, running
from fewshot_nlp.cli.console import OneLineErrors, quieten

app = typer.Typer(
    cls=OneLineErrors,
    help="Adapt Hugging Face models to a new text task from a handful of examples.",
    epilog="Every mistake in an argument or a file is one line on stderr and exit code 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("adapt")(adapting.adapt)
app.command("predict")(adapting.predict)
app.command("push")(adapting.push)
app.command("evaluate")(episodic.evaluate)
app.command("episodes")(episodic.episodes)
app.command("train", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    running.train
)
app.command("demo")(running.demo)
app.command("learners")(listing.learners)
app.command("cards")(listing.cards)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fewshot-nlp {fewshot_nlp.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Runs the command line and exits."""
    quieten()
    app(prog_name="fewshot-nlp")
