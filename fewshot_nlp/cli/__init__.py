"""The command line: ``fewshot-nlp``.

A command is a function: its signature gives the options, its docstring the help. Whatever is slow to import is imported
inside a command, so that ``fewshot-nlp --help`` answers at once.
"""

import sys
from collections.abc import Callable, Sequence
from inspect import getdoc
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

import fewshot_nlp
from fewshot_nlp.cli import adapting, episodic, listing, own_rows, running
from fewshot_nlp.cli.console import errors_in_one_line, quieten
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import user_path

COMMANDS: tuple[Callable[..., None], ...] = (
    adapting.adapt,
    adapting.predict,
    adapting.export,
    adapting.push,
    episodic.evaluate,
    own_rows.doctor,
    own_rows.errors,
    own_rows.robustness,
    episodic.episodes,
    running.train,
    running.init,
    running.recipes,
    running.demo,
    listing.learners,
    listing.tasks,
    listing.cards,
)


POSITIONAL: dict[Callable[..., None], dict[str, tuple[str | None, list[str] | None, str]]] = {
    listing.learners: {"name": ("?", None, "Only this one.")},
    running.recipes: {
        "action": ("?", ["list", "copy"], "What to do."),
        "name": ("?", None, "Which to copy."),
    },
    **{
        command: {"data": (None, None, "Labelled rows: JSON, CSV, CoNLL, of annotation tools.")}
        for command in (own_rows.doctor, own_rows.errors, own_rows.robustness)
    },
}
"""Words without a keyword: whether they may be left out ("?"), what is known, and their help."""


class _Help(DefaultHelpFormatter):  # type: ignore[misc]
    """Help whose examples stay one a line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("Example") else str(super()._fill_text(text, width, indent))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits.

    Args:
        arguments: what follows the program's name; None for the process's own.
    """
    quieten()
    with errors_in_one_line():
        given = _listed([_spelled(a) for a in (sys.argv[1:] if arguments is None else arguments)]) or [
            "--help"
        ]
        if given[0] == "train":  # the parser of its settings is its own, and slow to import
            running.train(*given[1:])
        else:
            name, options = _parse(given)
            next(command for command in COMMANDS if command.__name__ == name)(**options)
    sys.exit(0)


def _parse(given: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that is named, and its options."""
    parser = ArgumentParser(
        prog="fewshot-nlp",
        description="Adapt Hugging Face models to a new text task from a handful of examples.",
        epilog="Every mistake in an argument or a file is one line on stderr and exit code 2.",
        version=fewshot_nlp.__version__,
        exit_on_error=False,
        formatter_class=_Help,
    )
    subcommands = parser.add_subcommands()
    for command in COMMANDS:
        about = (getdoc(command) or "").split("Args:")[0].strip()
        subcommands.add_subcommand(command.__name__, _parser_of(command, about), help=about.split("\n")[0])
    try:
        parsed = parser.parse_args(list(given))
    except ArgumentError as error:
        raise FewShotError(
            str(error).replace("<class 'dict'>", "mapping, as in --option.name value")
        ) from error
    return parsed.subcommand, parsed[parsed.subcommand].as_dict()


def _parser_of(command: Callable[..., None], about: str) -> ArgumentParser:
    """Options of a command, one for each keyword; some words are given without one."""
    _, title, examples = (getdoc(command) or "").partition("Example:\n")
    parser = ArgumentParser(description=about, epilog=title + examples, exit_on_error=False)
    bare = POSITIONAL.get(command, {})
    for word, (count, known, about_it) in bare.items():
        chosen = {"choices": known, "default": known[0]} if known else {}
        parser.add_argument(word, nargs=count, help=about_it, **chosen)
    parser.add_function_arguments(command, as_group=False, skip=set(bare))
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:  # --json, instead of --json true
            action.nargs, action.const, action.metavar = "?", True, None
    return parser


def _spelled(argument: str) -> str:
    """An option's name with "_", also where it was given with "-"; the home folder for a "~" that no shell replaced."""
    head, equals, value = argument.rpartition("=")
    argument = head + equals + (str(user_path(value)) if value.startswith("~") else value)
    name = argument.split("=")[0].split(".")[0]
    return "--" + name[2:].replace("-", "_") + argument[len(name) :] if name.startswith("--") else argument


def _listed(arguments: Sequence[str]) -> list[str]:
    """Several values of an option as one list: ``--k_shot 1 5`` becomes ``--k_shot [1, 5]``."""
    found: list[str] = []
    for argument in arguments:
        if len(found) > 1 and found[-2].startswith("--") and not {argument[:1], found[-1][:1]} & {"-", ""}:
            found[-1] = (
                f"{found[-1].removesuffix(']')}, {argument}]"
                if found[-1][0] == "["
                else f"[{found[-1]}, {argument}]"
            )
        else:
            found.append(argument)
    return found
