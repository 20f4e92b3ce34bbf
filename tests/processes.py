"""Processes for tests, which start in a moment: a server imports torch and the package once, and each is its fork.

On Windows, where there is no such server, each process imports anew.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

PRELOADED = (
    "fewshot_nlp.training.meta_train",
    "fewshot_nlp.learners.maml",
    "fewshot_nlp.tasks.ner",
    "transformers.models.bert",
    "transformers.conversion_mapping",
    "peft",
)
PATIENCE = 300
"""Seconds that a process may take."""


class Done(NamedTuple):
    """What a program left."""

    returncode: int | None
    stdout: str
    stderr: str


def context() -> BaseContext:
    """How processes are started."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A process that calls a function; arguments and function are pickled."""
    process: BaseProcess = context().Process(target=function, args=arguments)  # type: ignore[attr-defined]
    process.start()
    return process


def start_program(
    program: str, arguments: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Starts a script, or a module by its name.

    Args:
        program: path of a script, or name of a module.
        arguments: of its command line.
        folder: where stdout and stderr are kept; it is made.
        environment: variables beside those of this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [program, *map(str, arguments)]
    return start(_program, words, folder, {**os.environ, **(environment or {})})


def finish(process: BaseProcess, folder: Path) -> Done:
    """Waits for a program's end, and reads what it said."""
    process.join(PATIENCE)
    out, err = ((folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert process.exitcode is not None, f"it takes more than {PATIENCE} s: {err[-3000:]}"
    return Done(process.exitcode, out, err)


def run_program(
    program: str, arguments: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None
) -> Done:
    """Runs a program to its end; see `start_program`."""
    return finish(start_program(program, arguments, folder, environment), folder)


def _program(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), number)
    sys.argv = list(words)
    if words[0].endswith(".py"):
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def run_pair(function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function in two processes that know each other, as torch's launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [start(_member, rank, port, function, arguments) for rank in (0, 1)]
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]


def _member(rank: int, port: int, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in own.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1")
    function(*arguments)
