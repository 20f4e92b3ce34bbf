"""Runs the cells of a comparison, on one process or many, and goes on with what an earlier run left."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from tqdm import tqdm

from fewshot_nlp.backbone.bundled import HUB_NAME
from fewshot_nlp.comparison.cells import Candidate, cell_key, run_cell
from fewshot_nlp.comparison.plan import Plan, make_plan
from fewshot_nlp.comparison.report import Comparison
from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.json_lines import JsonLines
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks import TASKS

DEFAULT = "default"
LEAST_REPEATS = 3


def evaluate(
    rows: Any,
    *,
    task: str,
    k_shot: Sequence[int] = (1, 5, 10, 20),
    learners: Sequence[str] = (DEFAULT,),
    learner_config: Mapping[str, Mapping[str, Any]] | None = None,
    task_config: Mapping[str, Any] | None = None,
    encoder: str | None = None,
    repeats: int = 5,
    budget: float | None = None,
    max_scored: int = 200,
    group_column: str | None = None,
    column_mapping: Mapping[str, str] | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    n_jobs: int = 1,
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
        budget: seconds after which no further repeat begins; at least three are made.
        max_scored: at most so many rows are scored, chosen at random.
        group_column: rows with an equal value stand in one fold: sentences of a document. None for the task's own:
            questions on one text stay together.
        column_mapping: your column's name to the task's name for it.
        seed: of folds, support sets and scored rows.
        path: JSON lines, one for each cell; a run that is started again reads what is there.
        n_jobs: processes; other backends of joblib (Dask, Ray, Spark) by ``joblib.parallel_config``.
        progress: show a bar if it takes over two seconds.

    Raises:
        FewShotError: too few rows, an unknown task or learner, or nobody could be scored.

    Example:
        >>> rows = [{"text": f"{w} {i}", "label": w} for w in ("refund", "greeting") for i in range(6)]
        >>> found = evaluate(rows, task="classification", learners=["stacked_probe"], k_shot=[2], repeats=3)
        >>> found.best.name
        'stacked_probe'
    """
    if repeats < LEAST_REPEATS:
        raise FewShotError(
            f"repeats is {repeats}, but must be at least {LEAST_REPEATS}, or intervals say nothing."
        )
    kind = TASKS.get(task)
    own = {"task": task, "name": encoder, "task_config": dict(task_config or {})}
    candidates = _candidates(own, learners, learner_config or {})
    reader = candidates[0].pipeline().task
    read = read_rows(rows, task, column_mapping)
    if group_column is not None and any(group_column not in row for row in read):
        raise FewShotError(f"Not every row has the column {group_column!r}, which was named as the group.")
    dataset = reader.dataset(read, "rows", group_column=group_column or kind.document_column)
    candidates += _baselines(kind.has_labels, own, dataset.examples[0].target)
    plan = make_plan(dataset, k_shot, max_scored, seed)
    begin = time.perf_counter()
    records = list(_cells(plan, candidates, repeats, budget, path, n_jobs, progress))
    facts = {
        "task": task,
        "metric": kind.primary_metric,
        "n_rows": len(dataset),
        "n_scored": len(plan.tested),
    }
    facts |= {"n_folds": plan.n_folds, "seed": seed, "seconds": round(time.perf_counter() - begin, 1)}
    return Comparison(facts=facts, notes=plan.notes, candidates=tuple(candidates), records=tuple(records))


def _candidates(
    own: Mapping[str, Any], learners: Sequence[str], configs: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    names = list(dict.fromkeys(learners))
    odd = next((name for name in configs if name not in names), None)
    if not names or odd is not None:
        raise FewShotError(
            "Name at least one learner."
            if not names
            else f"learner_config names {odd!r}, which is not compared."
        )
    return [
        Candidate(
            name,
            {
                **own,
                "learner": None if name == DEFAULT else name,
                "learner_config": dict(configs.get(name, {})),
            },
        )
        for name in names
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


def _cells(
    plan: Plan,
    candidates: Sequence[Candidate],
    repeats: int,
    budget: float | None,
    path: str | Path | None,
    n_jobs: int,
    progress: bool,
) -> Iterator[dict[str, Json]]:
    """Records of all cells, repeat by repeat, until the time is used up."""
    file = None if path is None else JsonLines(path, "finished cells stay; make room and go on")
    done: dict[str, dict[str, Json]] = {r["key"]: r for r in (file.records if file else ()) if "key" in r}
    grid = [(c, k) for k in plan.shots for c in candidates if c.uses_support] + [
        (c, 0) for c in candidates if not c.uses_support
    ]
    begin = time.perf_counter()
    pool = Parallel(n_jobs=n_jobs, return_as="generator")
    with tqdm(total=repeats * len(grid), delay=2, disable=None if progress else True, unit=" cells") as bar:
        for repeat in range(repeats):
            used = time.perf_counter() - begin
            if budget is not None and repeat >= LEAST_REPEATS and used * (repeat + 1) / repeat > budget:
                logger.info("%d of %d repeats in %.0f s; more would pass the budget.", repeat, repeats, used)
                return
            known = {i: cell_key(plan, c, k, repeat) for i, (c, k) in enumerate(grid)} if done else {}
            todo = [cell for i, cell in enumerate(grid) if known.get(i) not in done]
            yield from (done[key] for key in known.values() if key in done)
            bar.update(len(grid) - len(todo))
            for record in pool(delayed(run_cell)(plan, c, k, repeat) for c, k in todo):
                if file is not None:
                    file.append(record)
                bar.update()
                yield record
