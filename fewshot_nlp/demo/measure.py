"""Adapting, predicting and scoring one task in one domain."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_nlp.backbone.bundled import HUB_NAME
from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.grid import Grid
from fewshot_nlp.comparison.page import Marked
from fewshot_nlp.comparison.plan import make_plan
from fewshot_nlp.comparison.report import Comparison
from fewshot_nlp.comparison.results import Results
from fewshot_nlp.comparison.statistics import mean_of
from fewshot_nlp.demo.section import ADAPTED, NO_EXAMPLE, DemoTask
from fewshot_nlp.sources import load_card, load_rows
from fewshot_nlp.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class DomainResult:
    """What the demonstration found out in one domain.

    Args:
        domain: its name.
        n_support: rows in the support set of the model that is shown.
        seconds: time to adapt to it, the encoder being loaded.
        shown: new inputs with what the model made of them.
        comparison: scores on the half of the rows that no support set is drawn from.
    """

    domain: str
    n_support: int
    seconds: float
    shown: list[Marked]
    comparison: Comparison


def run_domain(
    task: DemoTask, domain: str, seed: int, encoder: str | None, repeats: int | None
) -> DomainResult:
    """Adapts to the first support set, predicts, and scores all methods on all support sets.

    Args:
        task: what is shown.
        domain: one of its domains.
        seed: of the support sets.
        encoder: folder or Hub name; None for what ships.
        repeats: support sets; None for the task's own number.
    """
    name, kind = task.card.format(domain=domain), TASKS.get(task.model.task_name)
    encoder = encoder if kind.backbone == "encoder" else None
    candidates = _candidates(task, encoder)
    reader, card = candidates[0].pipeline().task, load_card(name)
    data = reader.dataset(load_rows(name), name, card.domain, card.group_column)
    whole = make_plan(data, [task.k_shot], len(data), seed)
    plan = next(p for p in whole.cheaper(len(data)) if p.held_out)

    support = plan.parts(task.k_shot, 0)[0][1].support
    model = task.model.from_pretrained(encoder, learner=task.learner)
    begin = time.perf_counter()
    model.adapt([task.row(example) for example in support])
    seconds = time.perf_counter() - begin

    grid = Grid(Results(None, {}), 1, "loky", progress=False)
    records = grid.cells(plan, candidates, reader, range(repeats or task.repeats))
    facts = {"task": kind.name, "metric": kind.primary_metric, "n_rows": len(data), "seed": seed}
    facts |= {"n_scored": len(plan.tested), "n_folds": 0}
    base = task.before if any(c.name == task.before for c in candidates) else candidates[-1].name
    return DomainResult(
        domain=domain,
        n_support=len(support),
        seconds=seconds,
        shown=task.show(model, list(task.inputs[domain])),
        comparison=Comparison(facts, (), tuple(candidates), tuple(records), base),
    )


def _candidates(task: DemoTask, encoder: str | None) -> list[Candidate]:
    name = task.model.task_name
    shared: dict[str, Any] = {"task": name, "name": encoder, "learner_config": {}}
    found = [Candidate(ADAPTED, {**shared, "learner": task.learner})]
    found += [
        Candidate(label, {**shared, "name": encoder or HUB_NAME, **own})
        for label, own in task.baselines.items()
    ]
    unadapted = Candidate(NO_EXAMPLE, {**shared, "learner": None}, "unadapted")
    return found + [unadapted] * (unadapted.pipeline().unadapted() is not None)


def gain(results: Sequence[DomainResult]) -> str:
    """What adapting gained over the domains, beside what there is without it."""
    found = [r.comparison for r in results]
    base, metric = found[0].baseline.name, found[0].facts["metric"]
    each = [c.difference(ADAPTED, c.shots[-1], base) for c in found]
    mean, worst = mean_of(each), min((e.mean for e in each if e is not None), default=0.0)
    if mean is None:
        return ""
    return (
        f'Adapting changed {metric} by {mean.signed} beside "{base}" in the mean of the domains, '
        f"{worst:+.3f} in the worst."
    )
