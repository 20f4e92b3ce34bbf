"""One cell of a comparison: a learner adapted to the support sets of a repeat, and its score."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fewshot_nlp.comparison.plan import Plan
from fewshot_nlp.episode import Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.evaluator import identity
from fewshot_nlp.models import FewShotModel
from fewshot_nlp.pipeline import Pipeline

CACHE_BYTES = 2**28
_caches = ExitStack()
"""Feature caches of the loaded encoders, open as long as the process lives."""


@dataclass(frozen=True)
class Candidate:
    """What is compared.

    Args:
        name: its name in the report.
        options: of `FewShotModel.from_pretrained`.
        kind: "learner", adapted to each support set; "unadapted", the model before any example; or "majority", the
            most frequent target of the support set.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "learner"

    @property
    def uses_support(self) -> bool:
        """Whether the support set changes what it predicts."""
        return self.kind != "unadapted"

    def pipeline(self) -> Pipeline:
        """Its task and learner, loaded once in a process."""
        return _loaded(canonical_json(dict(self.options)))


@lru_cache(maxsize=8)
def _loaded(options: str) -> Pipeline:
    pipeline = FewShotModel.from_pretrained(**json.loads(options)).pipeline
    _caches.enter_context(pipeline.learner.encoder.cached(CACHE_BYTES))  # frozen layers read a text once
    return pipeline


def cell_key(plan: Plan, candidate: Candidate, k: int, repeat: int) -> str:
    """What a cell's result depends on, as one digest."""
    config = identity(candidate.pipeline())
    parts = [config, candidate.kind, plan.dataset.fingerprint, plan.n_folds, list(plan.tested), plan.seed]
    return sha256(canonical_json([*parts, k, repeat]))


def run_cell(plan: Plan, candidate: Candidate, k: int, repeat: int) -> dict[str, Json]:
    """The score of one repeat over all folds, with what it cost.

    Returns:
        ``score`` of the task's primary metric, ``without`` each block of rows, all ``scores``, ``seconds`` of each
        adapting, ``milliseconds`` a text, ``bytes`` of a task; or ``refused``, with the reason.
    """
    key = cell_key(plan, candidate, k, repeat)
    head: dict[str, Json] = {"key": key, "learner": candidate.name, "k_shot": k, "repeat": repeat}
    try:
        return head | _measured(plan, candidate, k, repeat)
    except FewShotError as error:
        return head | {"refused": str(error)}


def _measured(plan: Plan, candidate: Candidate, k: int, repeat: int) -> dict[str, Json]:
    pipeline = candidate.pipeline()
    task = pipeline.task
    found: dict[int, tuple[Json, Json]] = {}
    seconds, predicting, size = [], 0.0, 0
    for fold, (pool, rows) in enumerate(plan.folds(repeat)):
        if not rows:
            continue
        test = [plan.dataset.examples[row] for row in rows]
        support = plan.support(pool, k, repeat, fold)
        if candidate.kind == "majority":
            [(most, _)] = Counter(canonical_json(e.target) for e in support).most_common(1)
            same = next(e.target for e in support if canonical_json(e.target) == most)
            found |= dict(zip(rows, ((e.target, same) for e in test), strict=True))
            continue
        begin = time.perf_counter()
        unadapted = None if candidate.uses_support else pipeline.unadapted()
        model = unadapted or pipeline.adapt_suited(support, plan.labels)
        seconds.append(round(time.perf_counter() - begin, 4))
        begin = time.perf_counter()
        predictions = model.predict([model.pipeline.task.asked(e) for e in test])
        predicting += time.perf_counter() - begin
        size = model.adapted.bytes
        found |= dict(zip(rows, zip(*task.paired(test, predictions), strict=True), strict=True))
    gold, predicted = map(list, zip(*(found[row] for row in plan.tested), strict=True))
    scores = task.metrics(gold, predicted, plan.labels)
    without = []
    for block in plan.blocks:
        kept = sorted(set(range(len(gold))) - set(block))
        part = task.metrics([gold[i] for i in kept], [predicted[i] for i in kept], plan.labels)
        without.append(part[task.primary_metric])
    return {
        "score": scores[task.primary_metric],
        "without": without,
        "scores": scores,
        "seconds": seconds,
        "milliseconds": 1000 * predicting / len(gold),
        "bytes": size,
    }
