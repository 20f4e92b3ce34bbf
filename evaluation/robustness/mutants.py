"""Do the tests notice a fault? One place of the code is changed, the tests that mirror its file run, and fail or not.

    python evaluation/robustness/mutants.py run --seed 1 --n 60
    python evaluation/robustness/mutants.py again      # survivors only, after tests were added
    python evaluation/robustness/mutants.py table

Places (`mutations`) are drawn with a seed over `FOLDERS`: a file by its lines of code, then one of the kinds of change
that it allows, then a place. A mutant is killed when a test fails or no longer ends in time. Tests run in `stages`, the
most specific first: files that name the module, the contract of its learner or task, the folder of its name. A mutant
that survives them may still be killed by another folder's tests. A record is appended as soon as it is there; a run
that is started again leaves out what the file holds.
"""

import argparse
import ast
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from mutations import ROOT, Mutant, mutants_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from records import append_record, earlier_records, read_records

RESULTS = ROOT / "evaluation" / "results" / "mutants.jsonl"
PACKAGE = "fewshot_nlp"
FOLDERS = ("learners", "modules", "sampling", "metrics", "tasks")
LIBRARIES = (
    "torch",
    "transformers.models.bert.modeling_bert",
    "peft",
    "accelerate",
    "datasets",
    "sklearn",
    "sacrebleu",
)
"""Imported once, for all processes that run tests."""
TASKS = ("classification", "ner", "question_answering", "translation")
HOMES = {"modules": ("modules", "learners"), "metrics": ("metrics", "tasks")}
"""Folders of tests that mirror a folder of the package, where it is not the one of the same name."""
MANY = 3


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


def stages(file: str) -> list[list[str]]:
    """Arguments of pytest, stage by stage: files that name the module, its contract, the folders that mirror its own.

    Where many files name it, as they do a base class, its contract comes first.
    """
    path = Path(file)
    folder, homes = path.parent.name, HOMES.get(path.parent.name, (path.parent.name,))
    users = [path.stem] if folder == "learners" else _users(path.stem) if folder == "modules" else []
    if folder == "learners" and path.stem in {"base", "gradient"}:
        users = ["fine_tune", "maml", "prototypical"]
    where = " or ".join(users[:4])
    if folder == "tasks":
        named = path.stem if path.stem in TASKS else " or ".join(TASKS)
        where = f"({named}) and (prototypical or linear_probe)"
    files = [p for home in homes for p in sorted((ROOT / "tests" / home).glob("test_*.py"))]
    module = re.compile(rf"{PACKAGE}\.{folder}(\.{path.stem}\b| import .*\b{path.stem}\b)")
    near = [str(p.relative_to(ROOT)) for p in files if module.search(p.read_text(encoding="utf-8"))]
    rest = [name for name in (str(p.relative_to(ROOT)) for p in files) if name not in near]
    contract = ["tests/contract", "-k", where] if where else []
    first = [contract, near] if len(near) > MANY else [near, contract]
    return [stage for stage in [*first, rest] if stage]


def _users(stem: str) -> list[str]:
    """Learners that import this part, themselves or by another part."""
    used, names = {f"modules.{stem}"}, []
    for folder in ("modules", "learners"):
        for path in sorted((ROOT / PACKAGE / folder).glob("*.py")):
            if any(re.search(rf"{PACKAGE}\.{name}\b", path.read_text(encoding="utf-8")) for name in used):
                used |= {f"{folder}.{path.stem}"}
                names += [path.stem] if folder == "learners" and path.stem not in {"base", "gradient"} else []
    return names


def judge(mutant: Mutant, tree: Path, limit_s: float, n_stages: int) -> dict[str, Any]:
    """Runs the stages on a copy of the tree that holds the mutant, and puts the file back.

    Raises:
        LookupError: the code has changed since, and the place is gone.
    """
    text = next((t for m, t in mutants_of(ROOT / mutant.file) if _same(m, mutant)), None)
    if text is None:
        raise LookupError(f"{mutant.file} has no longer the line {mutant.code!r}.")
    start = time.perf_counter()
    (tree / mutant.file).write_text(text, encoding="utf-8")
    try:
        for arguments in stages(mutant.file)[:n_stages]:
            killer = _first_failure(arguments, tree, limit_s)
            if killer is not None:
                break
    finally:
        shutil.copy(ROOT / mutant.file, tree / mutant.file)
    outcome = "survived" if killer is None else "killed"
    return {"outcome": outcome, "killer": killer, "seconds": round(time.perf_counter() - start, 1)}


def _same(one: Mutant, two: Mutant) -> bool:
    return {**asdict(one), "line": 0} == {**asdict(two), "line": 0}


def _first_failure(arguments: list[str], tree: Path, limit_s: float) -> str | None:
    """The first test that fails, in a process that has the libraries already; None where all pass."""
    output = tree / "output.txt"
    child = get_context("fork").Process(target=_pytest, args=(arguments, tree, output, limit_s))
    child.start()
    child.join(20 * limit_s)  # on a machine that does other work too
    if child.is_alive():
        child.kill()
        child.join()
    if child.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"no end within {limit_s:g} s"
    if child.exitcode in (0, 5):  # 5: no test has this name
        return None
    printed = output.read_text(errors="replace")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
    return failed[0] if failed else (printed.strip().splitlines() or [f"exit {child.exitcode}"])[-1]


def _pytest(arguments: list[str], tree: Path, output: Path, limit_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), math.ceil(limit_s) + 5))
    os.chdir(tree)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    os._exit(int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments])))


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
    """Judges what is drawn and has no record, or (``again``) those that survived."""
    earlier = earlier_records(options.results)
    known = {_mutant(r): r for r in earlier}
    if options.command == "again":
        todo = [(r["seed"], m) for m, r in known.items() if r["outcome"] == "survived"]
    else:
        todo = [(options.seed, m) for m in draw(options.seed, options.n) if m not in known]
    with tempfile.TemporaryDirectory() as folder:
        tree = copied_tree(Path(folder))
        for name in LIBRARIES:
            import_module(name)
        _first_failure(
            ["--collect-only", "tests"], tree, options.limit
        )  # writes the bytecode of what is not mutated
        sys.dont_write_bytecode = True
        for seed, mutant in todo:
            record = {"seed": seed, **asdict(mutant), **judge(mutant, tree, options.limit, options.stages)}
            append_record(options.results, record)
            print(
                f"{record['outcome']} {mutant.file}:{mutant.line} {mutant.before} -> {mutant.after}",
                flush=True,
            )


def _mutant(record: dict[str, Any]) -> Mutant:
    return Mutant(**{name: record[name] for name in Mutant.__dataclass_fields__})


def table(options: argparse.Namespace) -> None:
    """Killed of drawn, by seed, and the survivors; a mutant's last record counts."""
    last = {_mutant(r): r for r in read_records(options.results)}
    for seed in dict.fromkeys(r["seed"] for r in last.values()):
        outcomes = [r["outcome"] for r in last.values() if r["seed"] == seed]
        print(f"seed {seed}: {outcomes.count('killed')} of {len(outcomes)} killed")
    for mutant, record in last.items():
        if record["outcome"] != "killed":
            print(f"{mutant.file}:{mutant.line} [{mutant.kind}] {mutant.before} -> {mutant.after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "again", "table"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=60, help="places drawn")
    parser.add_argument("--limit", type=float, default=300, help="processor seconds a stage may take")
    parser.add_argument(
        "--stages", type=int, default=3, help="how many of them; a later `again` may run more"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    table(options) if options.command == "table" else run(options)


if __name__ == "__main__":
    main()
