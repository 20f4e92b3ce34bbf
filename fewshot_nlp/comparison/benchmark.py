"""Benchmarks across domains: learners and baselines on frozen support sets of several target sets.

A benchmark is a YAML file (`Benchmark`) with a manifest beside it, which `freeze` writes. Learners that it meta-trains
(`train`) are trained first, each with every training seed.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import field
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import Field

from fewshot_nlp.arguments import read_yaml
from fewshot_nlp.comparison import peers
from fewshot_nlp.comparison.benchmark_report import BenchmarkReport
from fewshot_nlp.comparison.cells import Candidate, Record
from fewshot_nlp.comparison.frozen import (
    FrozenPlan,
    Seen,
    frozen_target,
    read_manifest,
    thawed,
)
from fewshot_nlp.comparison.grid import Grid, Part
from fewshot_nlp.comparison.pool import Where, pool
from fewshot_nlp.comparison.report import Comparison
from fewshot_nlp.comparison.results import Results
from fewshot_nlp.comparison.trained import Configs, check_sources, trained, training_config
from fewshot_nlp.episode import Json, TaskDataset, write_with_digest
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import own_folder
from fewshot_nlp.registry import nearest
from fewshot_nlp.settings import Count, Seed, Settings, Several
from fewshot_nlp.sources import load_card, load_rows
from fewshot_nlp.tasks import TASKS

SECONDS = {"s": 1, "m": 60, "h": 3600}


class Budget(Settings):
    """What a budget makes.

    Args:
        k_shot: sizes of support sets: mentions of each label, or rows where a task has no labels.
        repeats: support sets of each size.
        scored: test rows of each target.
        training: settings of meta-training in which the budget differs, such as ``outer.steps``.
    """

    k_shot: Annotated[Several[Count], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=3)]
    scored: Annotated[int, Field(ge=2)]
    training: Mapping[str, Any] = field(default_factory=dict)


class Benchmark(Settings):
    """Targets, sizes and learners.

    Args:
        task: name of the task.
        sources: data sets that models were trained on, with their splits; no target's row of their texts is scored.
        targets: data sets by domain; support sets are of their train split.
        split: of the scored rows.
        learners: options of `FewShotModel.from_pretrained` by name in the report; ``kind`` as for `Candidate`. Or
            ``train``: settings of `MetaTrainConfig` in which a model differs that is meta-trained for the benchmark.
        baseline: the name that the others are compared with.
        training: settings of `MetaTrainConfig` that all meta-trained models share.
        training_seeds: models of each; repeat r adapts model r modulo their number, so that intervals hold the spread
            of training as well.
        budgets: by name ("10m", "1h": a time; "full": none), the smallest first.
        ngram: words in an n-gram that no scored row may share with a source.
        seed: of all draws.
    """

    task: str
    sources: Mapping[str, Several[str]] = field(default_factory=dict)
    targets: Annotated[Mapping[str, Several[str]], Field(min_length=1)]
    split: str = "test"
    learners: Annotated[Mapping[str, Mapping[str, Any] | None], Field(min_length=1)]
    baseline: str
    training: Mapping[str, Any] = field(default_factory=dict)
    training_seeds: Count = 1
    budgets: Annotated[Mapping[str, Budget], Field(min_length=1)]
    ngram: Annotated[int, Field(ge=3)] = 8
    seed: Seed = 0

    @property
    def names(self) -> list[str]:
        """The targets, in their order."""
        return [name for names in self.targets.values() for name in names]

    def data(self, name: str, split: str) -> TaskDataset:
        """Rows of a split in the task's form.

        Raises:
            FewShotError: they are not on this machine; says where they were sought.
        """
        card = load_card(name)
        task = TASKS.get(self.task).of_languages(card.language)
        return task.dataset(load_rows(name, split), name, card.domain, card.group_column)

    def candidates(self, models: Mapping[str, tuple[str, ...]] | None = None) -> list[Candidate]:
        """What is compared; other packages where they are installed, see `peers`.

        Args:
            models: folders of meta-trained models, by name of the learner.
        """
        found = []
        for name, given in self.learners.items():
            own = {key: value for key, value in (given or {}).items() if key != "train"}
            options = {"task": self.task, "name": None, "learner": None, "learner_config": {}} | own
            kind = options.pop("kind", "learner")
            if kind not in peers.PEERS or peers.python():
                found.append(Candidate(name, options, kind, (models or {}).get(name, ())))
        return found

    def training_configs(self, budget: Budget, folder: Path) -> Configs:
        """Settings of each meta-training run.

        Args:
            budget: the sizes.
            folder: where the runs have their folders.

        Raises:
            FewShotError: naming the learner.
        """
        found: Configs = {}
        for name, given in self.learners.items():
            if "train" in (given or {}):
                parts = [{"task": self.task}, self.training, (given or {})["train"] or {}, budget.training]
                try:
                    found[name] = [
                        training_config(parts, self.names, seed, folder)
                        for seed in range(self.training_seeds)
                    ]
                    check_sources(found[name][0], self.sources)
                except FewShotError as error:
                    raise FewShotError(f"{name}: {error}") from error
        return found


def benchmarks_folder() -> Path:
    """The folder with the benchmarks' YAML files; see `own_folder`."""
    return own_folder("_benchmarks", "evaluation/benchmarks")


def benchmark_names() -> list[str]:
    """Names of the benchmarks that come with the package."""
    return sorted(path.stem for path in benchmarks_folder().glob("*.yaml"))


def benchmark_file(name: str) -> Path:
    """The YAML file of a benchmark, by its name or path.

    Raises:
        FewShotError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = benchmark_names()
    if name not in known:
        raise FewShotError(f"There is no benchmark {name!r}.{nearest(name, known)}")
    return benchmarks_folder() / f"{name}.yaml"


def manifest_of(path: Path) -> Path:
    """Where the manifest of a benchmark's YAML file is."""
    return path.with_name(f"{path.stem}.manifest.json")


def read_benchmark(path: Path) -> Benchmark:
    """The benchmark in a YAML file.

    Raises:
        FewShotError: naming the file and what is wrong in it.
    """
    try:
        found = Benchmark.from_dict(read_yaml(path))
    except FewShotError as error:
        raise FewShotError(f"{path}: {error}") from None
    if found.baseline not in found.learners:
        raise FewShotError(f"{path}: baseline is {found.baseline!r}, which is none of the learners.")
    return found


def freeze(name: str) -> str:
    """Draws the rows of a benchmark and writes its manifest; returns its SHA-256."""
    path = benchmark_file(name)
    made = read_benchmark(path)
    sources = {
        f"{source} ({split})": made.data(source, split)
        for source, splits in made.sources.items()
        for split in splits
    }
    most = made.budgets.values()
    sizes: dict[str, Any] = {
        "k_shot": sorted({k for budget in most for k in budget.k_shot}),
        "repeats": max(budget.repeats for budget in most),
        "scored": max(budget.scored for budget in most),
    }
    targets, seen = {}, Seen(sources, made.ngram)
    for target in made.names:
        train, test = made.data(target, "train"), made.data(target, made.split)
        targets[target] = frozen_target(train, test, seen, **sizes, seed=made.seed)
    facts = {n: {"rows": len(data), "sha256": data.fingerprint} for n, data in sources.items()}
    content = {
        "benchmark": path.stem,
        "seed": made.seed,
        "ngram": made.ngram,
        "sources": facts,
        "targets": targets,
    }
    return write_with_digest(manifest_of(path), [content])


def chosen_budget(made: Benchmark, budget: float | str | None) -> tuple[str, Budget, float]:
    """Name, sizes and seconds of a budget; a number of seconds has the sizes of the first.

    Raises:
        FewShotError: the benchmark has no such budget.
    """
    first = next(iter(made.budgets))
    name = budget if isinstance(budget, str) else first
    if name not in made.budgets:
        raise FewShotError(
            f"There is no budget {name!r}. There are: {', '.join(made.budgets)}, or a number of seconds."
        )
    if isinstance(budget, float | int):
        return name, made.budgets[name], float(budget)
    found = re.fullmatch(r"(\d+)([smh])", name)
    return name, made.budgets[name], inf if found is None else float(found[1]) * SECONDS[found[2]]


def run_benchmark(
    name: str,
    *,
    budget: float | str | None = None,
    path: str | Path | None = None,
    n_jobs: int = 1,
    backend: Where = "loky",
    progress: bool = False,
) -> BenchmarkReport:
    """Runs a benchmark, as far as the budget goes; the same command with the same file goes on.

    Every learner has the same support sets and scored rows. Repeats come one after the other, each over all learners,
    sizes and targets, so that whenever time is over the parts that are there can be compared. Meta-training comes
    first, and takes its time whatever the budget.

    Args:
        name: of a benchmark, or its YAML file.
        budget: one of the benchmark's; None for its first. A number is seconds with the sizes of the first.
        path: JSON lines, one for each part; a run that is started again reads what is there. Meta-trained models are
            kept beside it, in a folder whose name ends in ".models"; clusters must see it.
        n_jobs: processes.
        backend: as for `evaluate`.
        progress: show a bar if it takes over two seconds.

    Raises:
        FewShotError: an unknown benchmark or budget, data that are not here, or a manifest that does not fit them.
    """
    begin = time.perf_counter()
    file = benchmark_file(name)
    made = read_benchmark(file)
    manifest, digest = read_manifest(manifest_of(file))
    named, sizes, seconds = chosen_budget(made, budget)
    lacking = next((target for target in made.names if target not in manifest["targets"]), None)
    if lacking is not None:
        raise FewShotError(
            f"The manifest of {name!r} lacks the target {lacking!r}; freeze the benchmark again."
        )
    plans = {
        target: thawed(
            target,
            manifest["targets"][target],
            made.data(target, "train"),
            made.data(target, made.split),
            sizes.k_shot,
            sizes.repeats,
            sizes.scored,
            made.seed,
        )
        for target in made.names
    }
    results = Results(path, {"benchmark": file.stem, "manifest": digest, "budget": named})
    results.begin()
    with ExitStack() as stack:
        number = stack.enter_context(pool(backend, n_jobs))
        folder = f"{path}.models" if path is not None else stack.enter_context(TemporaryDirectory())
        candidates = made.candidates(trained(made.training_configs(sizes, Path(folder).absolute())))
        grid = Grid(results, number, backend, progress)
        cells = dict(_cells(grid, plans, candidates, sizes.repeats))
        for _ in grid.made((job for found in cells.values() for _, job in found), begin + seconds):
            pass
        facts = {"benchmark": file.stem, "budget": named, "manifest": digest}
        return _report(made, facts, plans, candidates, grid, cells, time.perf_counter() - begin)


Cell = tuple[str, str, int, int]
"""Target, name of the candidate, size, repeat."""


def _cells(
    grid: Grid, plans: Mapping[str, FrozenPlan], candidates: list[Candidate], repeats: int
) -> Iterator[tuple[Cell, list[Part]]]:
    for repeat in range(repeats):
        for candidate in candidates:
            for target, plan in plans.items():
                for k in plan.shots if candidate.uses_support else (0,):
                    yield (target, candidate.name, k, repeat), grid.jobs(plan, candidate, k, repeat)


def _report(
    made: Benchmark,
    head: Mapping[str, Json],
    plans: Mapping[str, FrozenPlan],
    candidates: list[Candidate],
    grid: Grid,
    cells: Mapping[Cell, list[Part]],
    seconds: float,
) -> BenchmarkReport:
    kind = TASKS.get(made.task)
    task = candidates[0].at(0).pipeline().task
    records: dict[str, list[Record]] = {target: [] for target in plans}
    for (target, learner, k, repeat), found in cells.items():
        record = grid.cell(plans[target], task, learner, k, repeat, found)
        if record is not None:
            records[target].append(record)
    comparisons = {}
    for target, plan in plans.items():
        facts = {
            "task": made.task,
            "metric": kind.primary_metric,
            "n_rows": len(plan.test),
            "seed": made.seed,
        }
        facts |= {"n_scored": len(plan.tested), "n_folds": 0, "seconds": round(seconds, 1)}
        comparisons[target] = Comparison(facts, (), tuple(candidates), tuple(records[target]), made.baseline)
    domains = {target: domain for domain, names in made.targets.items() for target in names}
    done = sum(map(len, records.values()))
    facts = {**head, "cells": len(cells), "made": done}
    facts["absent"] = [absent for absent in made.learners if absent not in {c.name for c in candidates}]
    return BenchmarkReport(facts | {"seconds": round(seconds, 1)}, domains, comparisons)
