"""What a comparison computes: a learner adapted to a support set, and its predictions; and the score of a repeat."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from json import loads
from typing import Any, Self

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.backbone.adapters import adapter_from_json
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.comparison import peers
from fewshot_nlp.comparison.plan import Drawn
from fewshot_nlp.episode import Episode, Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.evaluator import digest, identity
from fewshot_nlp.learners import Learner
from fewshot_nlp.models import FewShotModel
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.tasks import Task

CACHE_BYTES = 2**28
MOST_LOADED = 24
_encoders: dict[str, tuple[Backbone, ExitStack]] = {}
"""Loaded encoders by all that their features depend on, and the open cache; learners that read the same share both."""

Record = dict[str, Json]
Row = tuple[Json, Json]
"""Gold and predicted target of a row."""


@dataclass(frozen=True)
class Candidate:
    """What is compared.

    Args:
        name: its name in the report.
        options: of `FewShotModel.from_pretrained`.
        kind: "learner", adapted to each support set; "unadapted", the model before any example; "majority", the
            most frequent target of the support set; or another package, "setfit" or "spacy" (`peers`).
        models: folders of one model for each training seed, in place of the options.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "learner"
    models: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        task: str,
        learner: str | None,
        learner_config: Mapping[str, Any] | None,
        task_config: Mapping[str, Any] | None,
        encoder: str | None,
    ) -> Self:
        """A learner by its name, None for the task's default, on an encoder, None for what ships."""
        options = {"task": task, "name": encoder, "task_config": dict(task_config or {}), "learner": learner}
        return cls(learner or "default", options | {"learner_config": dict(learner_config or {})})

    @property
    def uses_support(self) -> bool:
        """Whether the support set changes what it predicts."""
        return self.kind != "unadapted"

    def at(self, repeat: int) -> Self:
        """What a repeat adapts: the model of one training seed where there are several."""
        if not self.models:
            return self
        return replace(self, options={"name": self.models[repeat % len(self.models)]}, models=())

    def pipeline(self) -> Pipeline:
        """Its task and learner, loaded once in a process."""
        return _loaded(canonical_json(dict(self.options)))

    def identity(self) -> str:
        """What its predictions depend on beside the episode, as one digest."""
        return _identity(canonical_json(dict(self.options)), self.kind)


@lru_cache(maxsize=MOST_LOADED)
def _loaded(options: str) -> Pipeline:
    given = loads(options)
    if isinstance(given.get("adapter"), dict):
        given["adapter"] = adapter_from_json(given["adapter"])
    pipeline = FewShotModel.from_pretrained(**given).pipeline
    encoder = pipeline.learner.encoder
    parts = {**encoder.adapter, **getattr(encoder.head, "state_dict", dict)()}
    key = canonical_json([encoder.fingerprint, str(encoder.model.dtype), digest(parts)])
    if key not in _encoders:
        if len(_encoders) == MOST_LOADED:
            _encoders.pop(next(iter(_encoders)))[1].close()
        stack = ExitStack()
        stack.enter_context(encoder.cached(CACHE_BYTES))  # frozen layers read a text once
        _encoders[key] = encoder, stack
    for part in pipeline.learner.modules():
        if isinstance(part, Learner):
            part.__dict__["encoder"] = _encoders[key][0]
    return pipeline


@lru_cache(maxsize=256)
def _identity(options: str, kind: str) -> str:
    return sha256(canonical_json([identity(_loaded(options)), kind]))


def part_key(candidate: Candidate, episode: Episode) -> str:
    """What the predictions for an episode depend on, as one digest."""
    content = {**episode.to_json(), "task_id": "", "episode_id": ""}
    return sha256(canonical_json([candidate.identity(), content]))


def run_part(candidate: Candidate, episode: Episode, key: str) -> Record:
    """Adapts to an episode's support set, and predicts its query.

    Returns:
        ``gold`` and ``predicted`` targets, ``adapt`` and ``predict`` in seconds, ``bytes`` of the task; or
        ``refused``, with the reason.
    """
    head = {"key": key, "learner": candidate.name}
    try:
        found = head | _predicted(candidate, episode)
    except FewShotError as error:
        found = head | {"refused": str(error)}
    return found | {"sha": sealed(found)}


def sealed(record: Mapping[str, Json]) -> str:
    """SHA-256 of a record without its seal."""
    return sha256(canonical_json({k: v for k, v in record.items() if k != "sha"}))


def _predicted(candidate: Candidate, episode: Episode) -> Record:
    if candidate.kind == "majority":
        [(most, _)] = Counter(canonical_json(e.target) for e in episode.support).most_common(1)
        gold = [e.target for e in episode.query]
        return {
            "gold": gold,
            "predicted": [loads(most)] * len(gold),
            "adapt": 0.0,
            "predict": 0.0,
            "bytes": 0,
        }
    if candidate.kind in peers.PEERS:
        sides = {"support": episode.support, "query": episode.query}
        pairs = {side: [(*e.inputs.values(), e.target) for e in examples] for side, examples in sides.items()}
        encoder = candidate.options.get("name") or bundled_folder()
        found = peers.predicted(candidate.kind, {**pairs, "encoder": str(encoder), "seed": 0})
        return {"gold": [e.target for e in episode.query], **found}
    pipeline, begin = candidate.pipeline(), time.perf_counter()
    unadapted = None if candidate.uses_support else pipeline.unadapted()
    model = unadapted or pipeline.adapt_suited(episode.support, episode.label_names)
    adapted = time.perf_counter()
    task = model.pipeline.task
    predictions = model.predict([task.asked(e) for e in episode.query])
    done = time.perf_counter()
    gold, predicted = task.paired(episode.query, predictions)
    sure = [task.confidence(p) for p in predictions]
    return {
        "gold": gold,
        "predicted": predicted,
        **({} if None in sure else {"confidence": [round(float(c or 0), 4) for c in sure]}),
        "adapt": round(adapted - begin, 4),
        "predict": round(done - adapted, 4),
        "bytes": model.adapted.bytes,
    }


def scored(plan: Drawn, task: Task, name: str, k: int, repeat: int, rows: Mapping[int, Row]) -> Record:
    """The score of a repeat, and ``without`` each block of rows.

    Args:
        plan: says which rows are scored.
        task: has the metrics.
        name: of the candidate.
        k: size of the support sets.
        repeat: its number.
        rows: gold and predicted target of each scored row.
    """
    gold, predicted = (list(side) for side in zip(*(rows[row] for row in plan.tested), strict=True))

    def score(places: Sequence[int]) -> dict[str, float]:
        return task.metrics([gold[i] for i in places], [predicted[i] for i in places], plan.labels)

    everything = range(len(gold))
    without = [
        score([i for i in everything if i not in block])[task.primary_metric]
        for block in map(set, plan.blocks)
    ]
    scores = score(everything)
    head: Record = {"learner": name, "k_shot": k, "repeat": repeat, "score": scores[task.primary_metric]}
    return head | {"scores": scores, "without": without}
