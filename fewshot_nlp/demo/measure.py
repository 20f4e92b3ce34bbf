"""Adapting, predicting and scoring one task in one domain."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from fewshot_nlp.backbone import BACKBONES
from fewshot_nlp.demo.section import ADAPTED, NO_EXAMPLE, Section, Shown
from fewshot_nlp.episode import Episode, TaskDataset, canonical_json
from fewshot_nlp.evaluator import evaluate_episodes, mean_and_interval
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.pipeline import TaskModel
from fewshot_nlp.sampling import SAMPLERS
from fewshot_nlp.sources import load_card, load_rows
from fewshot_nlp.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Score:
    """Held-out scores of one method: mean over seeds, half-width of its 95 % interval by Student's t."""

    mean: float
    half: float


@dataclass(frozen=True, kw_only=True)
class DomainResult:
    """What the demonstration found out in one domain.

    Args:
        domain: its name.
        labels: label names; of a task without labels what its predictions are called.
        n_support: rows in the support set of the first seed.
        seconds: time to adapt to it, the encoder being loaded.
        learner: name of the adapted learner.
        shown: new inputs with predictions.
        metric: name of the metric.
        scores: method to its held-out scores, "adapted" first.
        seeds: of the support sets.
        n_rows: least and greatest number of held-out rows over the seeds.
        n_all: rows of the data set.
    """

    domain: str
    labels: tuple[str, ...]
    n_support: int
    seconds: float
    learner: str
    shown: list[Shown]
    metric: str
    scores: dict[str, Score]
    seeds: tuple[int, ...]
    n_rows: tuple[int, int]
    n_all: int


def run_domain(section: Section, domain: str, seeds: Sequence[int], encoder: str | None) -> DomainResult:
    """Adapts to the first seed's support set, predicts, and scores all methods on all seeds."""
    name = section.card.format(domain=domain)
    task_class = TASKS.get(section.model.task_name)
    encoder = encoder if task_class.backbone == "encoder" else None
    model = section.model.from_pretrained(encoder, learner=section.learner)
    task = model.pipeline.task
    card = load_card(name)
    data = task.dataset(load_rows(name), name, card.domain, card.group_column)
    seeds = seeds[: section.most_seeds]
    draws = [held_out(section, data, seed) for seed in seeds]

    begin = time.perf_counter()
    model.adapt([section.row(example) for example in draws[0].support])
    seconds = time.perf_counter() - begin
    shown = section.show(model, list(section.inputs[domain]))
    scores = {ADAPTED: adapted_score(section, model, draws, seeds[0])}

    layers = {} if section.layers is None else {"layers": section.layers}
    plain = BACKBONES[task.backbone].from_pretrained(encoder, **layers)
    methods = {
        label: new_pipeline(task.name, base.task_config, plain, base.learner, base.learner_config)
        for label, base in section.baselines.items()
    }
    with plain.cached():  # the baselines read the same features
        for label, pipeline in methods.items():
            report = evaluate_episodes(pipeline, draws, seed=seeds[0])
            scores[label] = _score([cast(float, each[report.metric]) for each in report.per_episode])
    unadapted = model.pipeline.unadapted()
    if unadapted is not None:
        scores[NO_EXAMPLE] = no_example(unadapted, draws)
    rows = [len(draw.query) for draw in draws]
    return DomainResult(
        domain=domain,
        labels=tuple(map(str, data.label_names)) or ("answer",),
        n_support=len(draws[0].support),
        seconds=seconds,
        learner=model.pipeline.learner.name,
        shown=shown,
        metric=task.primary_metric,
        scores=scores,
        seeds=tuple(seeds),
        n_rows=(min(rows), max(rows)),
        n_all=len(data),
    )


def held_out(section: Section, data: TaskDataset, seed: int) -> Episode:
    """An episode whose query set is every row that is not in the support set, nor in a document of it."""
    sampler: Any = SAMPLERS.get(TASKS.get(data.task).sampler)
    drawn = sampler(data, **section.knobs, seed=seed).episode(0)
    names = [canonical_json(example.inputs) for example in data.examples]
    support = {canonical_json(example.inputs) for example in drawn.support}
    groups = data.groups or names
    used = {group for name, group in zip(names, groups, strict=True) if name in support}
    return Episode(
        task=drawn.task,
        support=drawn.support,
        query=tuple(e for e, group in zip(data.examples, groups, strict=True) if group not in used),
        label_names=drawn.label_names,
        task_id=drawn.task_id,
        episode_id=f"{data.name}/demo/seed-{seed}",
    )


def adapted_score(section: Section, model: FewShotModel, draws: Sequence[Episode], seed: int) -> Score:
    """Scores of the adapted model; it is adapted to the first draw already, and adapting may be a training."""
    metric, rows = model.pipeline.task.primary_metric, [section.row(example) for example in draws[0].query]
    with model.pipeline.learner.encoder.cached():
        first = model.evaluate(rows)[metric]
        others = evaluate_episodes(model.pipeline, draws[1:], seed=seed).per_episode
    return _score([first, *(float(scores[metric]) for scores in others)])


def no_example(model: TaskModel, draws: Sequence[Episode]) -> Score:
    """Scores of a model before any example, on the same held-out rows; each row is predicted once."""
    task = model.pipeline.task
    queries = {canonical_json(query.inputs): query for draw in draws for query in draw.queries}
    found = zip(queries, model.predict(list(queries.values())), strict=True)
    target = {inputs: prediction["target"] for inputs, prediction in found}
    each = [
        task.metrics(draw.targets, [target[canonical_json(q.inputs)] for q in draw.queries], draw.label_names)
        for draw in draws
    ]
    return _score([scores[task.primary_metric] for scores in each])


def _score(values: Sequence[float]) -> Score:
    mean, half = mean_and_interval(values)
    return Score(mean=mean, half=cast(float, half))
