"""What a command may say: results on stdout, everything else on stderr, a mistake in one line."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer
from typer.core import TyperGroup

from fewshot_nlp.errors import FewShotError

USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


class OneLineErrors(TyperGroup):
    """Turns whatever a user can cause into one line on stderr and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except FewShotError as error:
            fail(str(error))
        except BrokenPipeError:
            # What is still buffered would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except OSError as error:
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}.")
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        return result


def fail(message: str) -> None:
    """Says what is wrong, on one line, and ends the command with code 2."""
    typer.echo("Error: " + " ".join(message.split()), err=True)
    raise typer.Exit(USAGE) from None


def say(message: str) -> None:
    """Tells something that is not the result."""
    typer.echo(message, err=True)


def print_json(value: Any) -> None:
    """Prints a value as JSON on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


@contextmanager
def stdout_is_ours() -> Iterator[None]:
    """Sends to stderr whatever a library prints meanwhile, so that stdout holds the result alone."""
    with redirect_stdout(sys.stderr):
        yield


def quieten() -> None:
    """Silences other libraries' remarks, which a user can do nothing about; errors still come through."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)
