"""Do the tests notice a fault? One place of the code is changed, the tests that reach it run, and fail or not.

    export OMP_NUM_THREADS=1 PYTHONPATH=.:tests
    python evaluation/robustness/mutants.py run --seed 1 --n 60
    python evaluation/robustness/mutants.py again      # survivors only, after tests were added
    python evaluation/robustness/mutants.py table

Places (`mutations`) are drawn with a seed over `FOLDERS`: a file by its lines of code, then one of the kinds of change
that it allows, then a place. Tests of a mutant run in `stages`: the files of `TESTS` that name its module, then the
contract of its learner or task, then the files of its folder. Before a stage is used, it runs once on the unchanged
code, where every call of a function is noted. A test that fails there is reported and never kills; of the others those
run that called the mutant's function, the quickest first, up to the first failure. A mutant that survives may still be
killed by tests that are no stage of it.

Tests are collected once, in one process. A mutant is judged in a child of it, where the function gets the changed code.
A change outside of functions (a default, a class attribute) and one of a function's closure need an interpreter of
their own, on a copy of the tree. A record is appended as soon as it is there; a run that is started again leaves out
what the file holds.
"""

import argparse
import ast
import gc
import inspect
import json
import math
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutations import ROOT, Mutant, mutants_of

RESULTS = ROOT / "evaluation" / "results" / "mutants.jsonl"
PACKAGE = "fewshot_nlp"
FOLDERS = ("learners", "modules", "sampling", "metrics", "tasks")
TESTS = (*FOLDERS, "backbone", "memory", "models")
TASKS = ("classification", "ner", "question_answering", "translation")
HOMES = {"modules": ("modules", "learners"), "metrics": ("metrics", "tasks")}
"""Folders of tests that mirror a folder of the package, where it is not the one of the same name."""
QUIETLY = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
SLOW_S = 20.0
"""A test that takes longer is left out, unless the stage has no other."""
FAR = 4
"""Rank of a file of tests that has nothing to do with a module."""
MANY = 20
"""Tests of a mutant in an interpreter of its own, a stage."""
UNCHANGED_S = 1800.0
"""Processor time that a stage may take on the unchanged code."""
Stage = tuple[str, str]
"""A file of tests, and a pattern that their names must match."""
Passed = dict[str, tuple[float, list[str]]]
"""Tests that pass: seconds, and the functions that they call."""


def draw(seed: int, n: int) -> list[Mutant]:
    """``n`` mutants, no one twice: a file by its lines of code, then a kind, then one of its mutants."""
    files = [p for folder in FOLDERS for p in sorted((ROOT / PACKAGE / folder).glob("*.py"))]
    known: dict[Path, dict[str, list[Mutant]]] = {p: {} for p in files}
    for path in files:
        for mutant, _ in mutants_of(path):
            known[path].setdefault(mutant.kind, []).append(mutant)
    files = [p for p in files if known[p]]
    weights = [_code_lines(p) for p in files]
    rng = random.Random(seed)
    drawn: dict[Mutant, None] = {}
    while len(drawn) < n:
        kinds = known[rng.choices(files, weights)[0]]
        drawn[rng.choice(kinds[rng.choice(sorted(kinds))])] = None
    return list(drawn)


def _code_lines(path: Path) -> int:
    """Lines on which a statement stands, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.stmt))
    return len(
        {n.lineno for n in nodes if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))}
    )


def stages(file: str) -> list[Stage]:
    """Files that are named as the module, import it, are of a learner that does, or hold its name; then others."""
    path = Path(file)
    folder, homes = path.parent.name, HOMES.get(path.parent.name, (path.parent.name,))
    files = [p for name in TESTS for p in (ROOT / "tests" / name).glob("test_*.py")]
    module = re.compile(rf"{PACKAGE}\.{folder}(\.{path.stem}\b| import .*\b{path.stem}\b)")

    users = _users(path.stem) if folder == "modules" else []

    def nearness(tests: Path) -> int:
        text, stem = tests.read_text(encoding="utf-8"), f"_{tests.stem}_"
        named = [f"_{path.stem}_" in stem, module.search(text), any(f"_{user}_" in stem for user in users)]
        found = [*named, re.search(f"[\"']{path.stem}[\"']", text)]
        return next((rank for rank, each in enumerate(found) if each), FAR)

    ranked = sorted((nearness(p), p.stat().st_size, p) for p in files)
    near = [p for rank, _, p in ranked if rank < FAR]
    rest = [p for rank, _, p in ranked if rank == FAR and p.parent.name in homes]
    contract = [("tests/contract/test_contract.py", where)] if (where := _contract(folder, path.stem)) else []
    first, last = ([(str(p.relative_to(ROOT)), "") for p in part] for part in (near, rest))
    return [*first, *contract, *last]


def _contract(folder: str, stem: str) -> str:
    """The tests of a contract that reach a module: those of its learner, its task, or learners that import it."""
    if folder == "tasks":
        return rf"({stem if stem in TASKS else '|'.join(TASKS)})-(prototypical|linear_probe)\]"
    users = _users(stem) if folder == "modules" else [stem] if folder == "learners" else []
    if stem in {"base", "gradient"}:
        users = ["maml", "prototypical"]
    return rf"-({'|'.join(users[:2])})\]" if users else ""


def _users(stem: str) -> list[str]:
    """Learners that import this part, themselves or by another part."""
    used, names = {f"modules.{stem}"}, []
    for folder in ("modules", "learners"):
        for path in sorted((ROOT / PACKAGE / folder).glob("*.py")):
            if any(re.search(rf"{PACKAGE}\.{name}\b", path.read_text(encoding="utf-8")) for name in used):
                used |= {f"{folder}.{path.stem}"}
                names += [path.stem] if folder == "learners" and path.stem not in {"base", "gradient"} else []
    return names


def _chosen(mutant: Mutant, options: argparse.Namespace) -> list[Stage]:
    return [(file, "") for file in options.tests] or stages(mutant.file)[: options.stages]


def functions(text: str, file: str) -> dict[tuple[str, int], tuple[CodeType, range]]:
    """The code and the lines of each function that is no part of another, by its qualified name and first line."""
    lines = {
        (start := min([n.lineno, *(d.lineno for d in n.decorator_list)])): range(
            start, (n.end_lineno or 0) + 1
        )
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.FunctionDef)
    }
    return {
        (code.co_qualname, code.co_firstlineno): (code, lines[code.co_firstlineno])
        for code in _outer(compile(text, file, "exec", dont_inherit=True))
        if code.co_firstlineno in lines
    }


def _outer(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from [inner] if inner.co_flags & inspect.CO_NEWLOCALS else _outer(inner)


class Judge:
    """Judges all mutants where pytest would run the tests that it collected; a plugin of it.

    Args:
        todo: seeds, mutants and the changed texts.
        texts: the unchanged texts of these files.
        options: of the command line.
        tree: a copy of the repository, in which pytest runs.
    """

    def __init__(
        self,
        todo: list[tuple[int, Mutant, str]],
        texts: dict[str, str],
        options: argparse.Namespace,
        tree: Path,
    ) -> None:
        self.todo, self.texts, self.options, self.tree = todo, texts, options, tree
        self.known: dict[Stage, Passed] = {}
        self.items: dict[str, list[pytest.Item]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judges and records."""
        for item in session.items:
            self.items.setdefault(item.nodeid.split("::")[0], []).append(item)
        for seed, mutant, text in self.todo:
            start = time.perf_counter()
            killer = self.killer(mutant, text)
            outcome, seconds = "killed" if killer else "survived", round(time.perf_counter() - start, 1)
            record = {
                "seed": seed,
                **asdict(mutant),
                "outcome": outcome,
                "killer": killer,
                "seconds": seconds,
            }
            with self.options.results.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"{outcome} {mutant.file}:{mutant.line} {mutant.before} -> {mutant.after}: {killer}",
                flush=True,
            )
        return True

    def killer(self, mutant: Mutant, text: str) -> str | None:
        """The first test that fails, of all stages; None where none does."""
        old, new = (functions(t, str(self.tree / mutant.file)) for t in (self.texts[mutant.file], text))
        names = {f"{mutant.file}:{name}" for (name, _), (_, span) in old.items() if mutant.line in span}
        changed = [(old[key][0], new[key][0], old[key][1]) for key in old if old[key][0] != new[key][0]]
        inside = len(changed) == 1 and changed[0][0].co_freevars == changed[0][1].co_freevars
        for file, where in _chosen(mutant, self.options):
            reached = {
                test: seconds
                for test, (seconds, called) in self.sound((file, where)).items()
                if (names & set(called) if names else any(c.startswith(f"{mutant.file}:") for c in called))
            }
            tests = [n for n in sorted(reached, key=reached.__getitem__) if reached[n] < SLOW_S] or list(
                reached
            )
            if not tests:
                continue
            limit_s = 60 + 5 * sum(reached[n] for n in tests)
            if inside:
                failed = self.run(file, tests, limit_s, partial(_exchange, *changed[0]))["failed"]
            else:
                failed = self.run_apart(mutant, text, tests[:MANY], limit_s)
            if failed:
                return str(failed[0])
        return None

    def sound(self, stage: Stage) -> Passed:
        """Tests of a stage that pass on the unchanged code: their seconds and the functions that they called."""
        if stage not in self.known:
            file, where = stage
            tests = [i.nodeid for i in self.items.get(file, []) if re.search(where, i.nodeid)]
            report = self.run(file, tests, UNCHANGED_S, None)
            red = f"; red: {report['failed']}" if report["failed"] else ""
            print(f"unchanged {file} {where}: {len(report['passed'])} of {len(tests)} pass{red}", flush=True)
            self.known[stage] = report["passed"]
        return self.known[stage]

    def run(
        self, file: str, tests: list[str], limit_s: float, change: Callable[[], None] | None
    ) -> dict[str, Any]:
        """Runs tests in a child of this process, in this order; with a change up to the first that fails.

        Raises:
            LookupError: the function to change is not found.
        """
        place = {name: number for number, name in enumerate(tests)}
        items = [i for i in self.items.get(file, []) if i.nodeid in place]
        items.sort(key=lambda item: place[item.nodeid])
        output = self.tree / "report.json"
        output.unlink(missing_ok=True)
        arguments = (items, output, limit_s, change, f"{self.tree}/")
        child = get_context("fork").Process(target=_run_items, args=arguments)
        child.start()
        child.join(40 * limit_s)  # on a machine that does other work too
        if child.is_alive():
            child.kill()
            child.join()
        if not output.exists():
            if child.exitcode is None or child.exitcode >= 0:
                raise RuntimeError(f"{file}: the process that runs its tests ended with {child.exitcode}.")
            return {
                "passed": {},
                "failed": [f"signal {-child.exitcode}, within {limit_s:.0f} s of the processor"],
            }
        report = dict(json.loads(output.read_text()))
        if report["changed"] is False:
            raise LookupError(f"A function to change is not found among those that {file} uses.")
        return report

    def run_apart(self, mutant: Mutant, text: str, tests: list[str], limit_s: float) -> list[str]:
        """Runs tests in a new interpreter, with the changed file; those that fail."""
        (self.tree / mutant.file).write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-n", "0", *QUIETLY, *tests],
                env={**os.environ, "PYTHONPATH": f"{self.tree}:{self.tree}/tests", "PYTHONDONTWRITEBYTECODE": ""},
                cwd=self.tree, capture_output=True, text=True, timeout=40 * limit_s, check=False,
            )  # fmt: skip
        finally:
            (self.tree / mutant.file).write_text(self.texts[mutant.file], encoding="utf-8")
        if done.returncode == pytest.ExitCode.USAGE_ERROR:
            raise LookupError(done.stderr)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return [] if done.returncode == 0 else failed or [f"exit {done.returncode}"]


def _exchange(old: CodeType, new: CodeType, span: range) -> bool:
    """Gives a function its changed code, wherever a decorator keeps it; whether it was found."""
    found = [
        each
        for each in gc.get_objects()
        if type(each) is FunctionType
        and each.__code__.co_filename == old.co_filename
        and each.__code__.co_qualname == old.co_qualname
        and each.__code__.co_firstlineno in span
    ]
    for function in found:
        function.__code__ = new
    return bool(found)


def _run_items(
    items: list[pytest.Item], output: Path, limit_s: float, change: Callable[[], bool] | None, root: str
) -> None:
    """Runs tests in this process; writes which passed, in how many seconds, with calls of which functions."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), math.ceil(limit_s) + 5))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_filename.startswith(root):
            called.add(frame.f_code)

    changed, failed, passed = change() if change else None, [], {}
    if change is None:
        sys.settrace(note)
        threading.settrace(note)
    for item, after in zip(items, [*items[1:], None], strict=True):
        called.clear()
        start = time.process_time()
        reports = runtestprotocol(item, nextitem=after, log=False)
        if any(report.failed for report in reports):
            failed.append(item.nodeid)
        elif not any(report.skipped for report in reports):
            names = {f"{c.co_filename.removeprefix(root)}:{c.co_qualname}" for c in called}
            passed[item.nodeid] = (time.process_time() - start, sorted(names))
        if failed and change:
            break
    output.write_text(json.dumps({"changed": changed, "passed": passed, "failed": failed}))
    os._exit(0)


def copied_tree(folder: Path) -> Path:
    """A copy of what the tests read."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def run(options: argparse.Namespace) -> None:
    """Judges what is drawn and has no record, or (``again``) those that survived.

    Raises:
        LookupError: the code has changed since, and the place is gone.
    """
    known = _last(options.results)
    if options.command == "again":
        drawn = [(r["seed"], m) for m, r in known.items() if r["outcome"] == "survived"]
    else:
        drawn = [(options.seed, m) for m in draw(options.seed, options.n) if m not in known]
    todo = []
    for seed, mutant in drawn:
        text = next(
            (t for m, t in mutants_of(ROOT / mutant.file) if replace(m, line=mutant.line) == mutant), None
        )
        if text is None:
            raise LookupError(f"{mutant.file} has no longer the line {mutant.code!r}.")
        todo.append((seed, mutant, text))
    texts = {m.file: (ROOT / m.file).read_text(encoding="utf-8") for _, m, _ in todo}
    options.results = options.results.resolve()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = copied_tree(Path(folder))
        os.chdir(tree)
        sys.path[:0] = [str(tree), str(tree / "tests")]
        sys.dont_write_bytecode = False  # interpreters of their own read it
        files = sorted({file for _, m, _ in todo for file, _ in _chosen(m, options)})
        judge = Judge(todo, texts, options, tree)
        pytest.main(["-s", "-n", "0", *QUIETLY, "--basetemp", str(tree / "kept"), *files], plugins=[judge])


def _last(results: Path) -> dict[Mutant, dict[str, Any]]:
    """The last record of each mutant."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    fields = Mutant.__dataclass_fields__
    return {Mutant(**{name: r[name] for name in fields}): r for r in map(json.loads, lines)}


def table(options: argparse.Namespace) -> None:
    """Killed of drawn, by seed, and the others; a mutant's last record counts.

    One that changes nothing gets the outcome "equivalent" and its reason as "killer" by hand.
    """
    last = _last(options.results)
    for seed in dict.fromkeys(r["seed"] for r in last.values()):
        outcomes = [r["outcome"] for r in last.values() if r["seed"] == seed]
        print(f"seed {seed}: {outcomes.count('killed')} of {len(outcomes)} killed")
    for mutant, record in last.items():
        if record["outcome"] != "killed":
            told = f"{record['outcome']} {mutant.file}:{mutant.line} {mutant.before} -> {mutant.after}"
            print(f"{told} ({record['killer']})" if record["killer"] else told)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "again", "table"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=60, help="places drawn")
    parser.add_argument("--stages", type=int, default=8, help="how many of them")
    parser.add_argument("--tests", nargs="+", default=[], help="files to run instead of the stages")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    table(options) if options.command == "table" else run(options)


if __name__ == "__main__":
    main()
