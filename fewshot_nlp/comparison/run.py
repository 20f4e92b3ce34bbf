"""Runs the parts of a comparison, on one process or many, and goes on with what an earlier run left."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fewshot_nlp.backbone.bundled import HUB_NAME
from fewshot_nlp.comparison.cells import Candidate, Record, part_key
from fewshot_nlp.comparison.grid import Grid
from fewshot_nlp.comparison.own_rows import own_rows
from fewshot_nlp.comparison.plan import Plan, make_plan
from fewshot_nlp.comparison.pool import Where, pool
from fewshot_nlp.comparison.report import Comparison
from fewshot_nlp.comparison.results import Results
from fewshot_nlp.comparison.schedule import LEAST_REPEATS, Cost, fitting, rows_in_time
from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.settings import Seed, check
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks import TASKS, Task

DEFAULT = "default"
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=8, strict=False)]
BUDGET = 100.0
"""Seconds, so that with loading and a page a command takes under two minutes."""
TIMING_SHARE = 1 / 8
"""A part that would take a larger share of the budget is not made for its timing alone."""


def evaluate(
    rows: Any,
    *,
    task: str,
    k_shot: int | Sequence[int] = (1, 5, 10, 20),
    learners: str | Sequence[str] = (DEFAULT,),
    learner_config: Mapping[str, Mapping[str, Any]] | None = None,
    task_config: Mapping[str, Any] | None = None,
    encoder: str | None = None,
    repeats: int = 5,
    budget: float | None = BUDGET,
    max_scored: int = 200,
    group_column: str | None = None,
    column_mapping: Mapping[str, str] | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    n_jobs: int = 1,
    backend: Where = "loky",
    progress: bool = False,
) -> Comparison:
    """Compares learners on labelled rows: how well, from how many examples, and is it worth it.

    In every repeat the rows are divided into folds, the same for all learners; each fold is predicted by models that
    were adapted to support sets drawn from the other folds. Baselines stand beside: logistic regression on the frozen
    encoder and the most frequent label, or, where a task has no labels, the model before any example.

    Args:
        rows: as for `FewShotModel.adapt`.
        task: name of the task.
        k_shot: sizes of the support set: examples of each label (of entities mentions, to twice as many), or rows.
            Sizes that the rows do not allow are left out, with a note.
        learners: names of learners; "default" is the task's own.
        learner_config: settings by name of the learner.
        task_config: options of the task.
        encoder: folder or Hub name of an encoder for all; None for what ships.
        repeats: at least 3; each draws folds and support sets anew.
        budget: seconds. Parts of each learner are timed first; then sizes, folds and repeats, at least 3, are
            reduced until they fit, and a note says so. None makes all.
        max_scored: at most so many rows are scored, chosen at random.
        group_column: rows with an equal value stand in one fold: sentences of a document. None for the task's own:
            questions on one text stay together. So do rows that differ by case, marks and spaces alone.
        column_mapping: your column's name to the task's name for it.
        seed: of folds, support sets and scored rows.
        path: JSON lines, one for each part; a run that is started again reads what is there.
        n_jobs: processes.
        backend: "loky" computes on this machine, "dask" and "ray" on a cluster (see `pool`).
        progress: show a bar if it takes over two seconds.

    Raises:
        FewShotError: too few rows, an unknown task or learner, or nobody could be scored.

    Examples:
        >>> rows = [{"text": f"{w} {i}", "label": w} for w in ("refund", "greeting") for i in range(6)]
        >>> found = evaluate(rows, task="classification", learners=["stacked_probe"], k_shot=[2], repeats=3)
        >>> found.best.name
        'stacked_probe'
    """
    begin = time.perf_counter()
    sizes = [k_shot] if isinstance(k_shot, int) else k_shot
    names = [learners] if isinstance(learners, str) else learners
    check("k_shot", sizes, Sizes)
    check("repeats", repeats, Annotated[int, Field(ge=LEAST_REPEATS)])
    check("budget", budget, Annotated[float, Field(gt=0)] | None)
    check("max_scored", max_scored, Annotated[int, Field(ge=2)])
    check("seed", seed, Seed)
    check("n_jobs", n_jobs, Annotated[int, Field(ge=1)])
    kind = TASKS.get(task)
    own = {"task": task, "name": encoder, "task_config": dict(task_config or {})}
    candidates = _candidates(own, names, learner_config or {})
    reader = candidates[0].pipeline().task
    dataset, repeated = own_rows(reader, read_rows(rows, task, column_mapping), group_column)
    reader.check_labels(dataset.label_names)
    candidates += _baselines(kind.has_labels, own, dataset.examples[0].target)
    asked: dict[str, Json] = {"rows": dataset.fingerprint, "task_config": reader.to_dict()}
    asked |= {"k_shot": sorted(set(sizes)), "task": task, "max_scored": max_scored, "seed": seed}
    results = Results(path, asked)
    plan = make_plan(dataset, sizes, max_scored, seed)
    with pool(backend, n_jobs) as number:
        run = _Run(candidates, reader, Grid(results, number, backend, progress), begin, budget)
        plan, records, notes = run.all(replace(plan, notes=(*repeated, *plan.notes)), repeats)
    facts = {
        "task": task,
        "metric": kind.primary_metric,
        "n_rows": len(dataset),
        "n_scored": len(plan.tested),
    }
    facts |= {"n_folds": 0 if plan.held_out else list(plan.n_folds), "seed": seed}
    facts |= {"seconds": round(time.perf_counter() - begin, 1)}
    return Comparison(facts, (*plan.notes, *notes), tuple(candidates), tuple(records))


def _candidates(
    own: Mapping[str, Any], learners: Sequence[str], given: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    names = list(dict.fromkeys(learners))
    if not names:
        raise FewShotError("Name at least one learner.")
    odd = next((name for name in given if name not in names), None)
    if odd is not None:
        raise FewShotError(f"learner_config names {odd!r}, which is not compared.")
    return [
        Candidate(
            n, {**own, "learner": None if n == DEFAULT else n, "learner_config": dict(given.get(n, {}))}
        )
        for n in names
    ]


def _baselines(has_labels: bool, own: Mapping[str, Any], target: Json) -> list[Candidate]:
    """What any learner has to beat."""
    unadapted = Candidate("no example", {**own, "learner": None, "learner_config": {}}, "unadapted")
    if not has_labels and unadapted.pipeline().unadapted() is not None:
        return [unadapted]
    probe: dict[str, Any] = {"learner": "linear_probe", "learner_config": {}, "name": own["name"] or HUB_NAME}
    found = [Candidate("logistic regression", {**own, **probe})]
    if has_labels and not isinstance(target, list):
        found.append(Candidate("majority", {**own, **probe}, "majority"))
    return found


@dataclass(frozen=True)
class _Run:
    """The parts of a comparison, made in time."""

    candidates: Sequence[Candidate]
    task: Task
    grid: Grid
    begin: float
    budget: float | None

    def all(self, plan: Plan, repeats: int) -> tuple[Plan, list[Record], list[str]]:
        """The plan that was carried out, the score of each of its cells, and notes on the time."""
        plan = self.grid.results.planned(plan) or self._in_time(plan)
        self.grid.results.begin(plan)
        records: list[Record] = []
        start = time.perf_counter()
        for first, last in [(0, LEAST_REPEATS), *((r, r + 1) for r in range(LEAST_REPEATS, repeats))]:
            now = time.perf_counter()
            if first and self.budget is not None and now - self.begin + (now - start) / first > self.budget:
                why = f"one takes about {(now - start) / first:.0f} s, and the budget is {self.budget:.0f} s"
                return plan, records, [f"{first} of {repeats} repeats were made: {why}."]
            records += self.grid.cells(plan, self.candidates, self.task, range(first, last))
        return plan, records, []

    def _in_time(self, plan: Plan) -> Plan:
        """The largest plan that the budget allows, by the seconds of one part of each candidate."""
        if self.budget is None:
            return plan
        begin = time.perf_counter()
        small = next((p for p in plan.cheaper() if p.held_out), plan)
        _, first = small.parts(small.shots[0], 0)[0]
        few = replace(first, query=first.query[:3])
        # The first are slow, since they load.
        tries = [r for c in self.candidates for r in self.grid.computed([(c, few, "")])]
        most = rows_in_time(sum(r.get("predict", 0.0) for r in tries) / len(few.query), self.budget)
        small = next((p for p in plan.cheaper(most) if p.held_out), plan)
        costs = {c.name: cost for c in self.candidates if (cost := self._timed(c, small, self.budget))}
        now = time.perf_counter()
        left, reused = self.budget - (now - self.begin), (now - begin) * small.held_out
        return fitting(plan, self.candidates, costs, self.grid.n_jobs, left, self.budget, reused, most)

    def _timed(self, candidate: Candidate, plan: Plan, budget: float) -> Cost | None:
        """Seconds of a candidate at the smallest size, and at larger ones that take no large share of the budget."""
        cost, sizes, texts = None, list(plan.shots), [0.0]
        seconds: dict[int, float] = {}
        while sizes:
            k = sizes.pop(0)
            _, episode = plan.parts(k, 0)[0]
            [record] = self.grid.made([(candidate, episode, part_key(candidate, episode))])
            if "refused" in record or not candidate.uses_support:
                return None
            seconds[k] = record["adapt"]
            texts.append(record["predict"] / len(record["gold"]))
            cost, allowed = Cost(seconds, max(texts)), budget * TIMING_SHARE
            if not sizes or cost.of(sizes[0]) > allowed:
                break
            if len(seconds) > 1 and cost.of(sizes[-1]) < allowed:
                sizes = sizes[-1:]
        return cost
