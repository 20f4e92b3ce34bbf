"""What a command may say: results on stdout, everything else on stderr, a mistake in one line."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from fewshot_nlp.cli.remedies import on_the_command_line
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import is_full

USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns whatever a user can cause into one line on stderr and an exit code; bugs keep their traceback."""
    try:
        yield
        sys.stdout.flush()
    except FewShotError as error:
        fail(str(error), USAGE)
    except BrokenPipeError:
        # What is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if is_full(error) and error.filename is None:
            fail(f"What was asked for cannot be written: {error.strerror}. Make room and start again.", USAGE)
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}.", USAGE)
    except KeyboardInterrupt:
        say("Interrupted.")
        sys.exit(INTERRUPTED)


def fail(message: str, code: int) -> None:
    """Says what is wrong, on one line, and ends the command."""
    say("Error: " + " ".join(on_the_command_line(message).split()))
    sys.exit(code)


def say(message: str) -> None:
    """Tells something that is not the result."""
    sys.stderr.write(message + "\n")


def answer(text: str) -> None:
    """Writes a line of the result."""
    sys.stdout.write(text + "\n")


def answer_json(value: Any) -> None:
    """Writes the result as JSON on one line."""
    answer(json.dumps(value, ensure_ascii=False, allow_nan=False))


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
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin are much slower on a busy machine
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)
