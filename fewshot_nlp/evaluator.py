"""Evaluation over episodes: metrics of each, their mean with a 95 % interval, and metrics pooled over all queries."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from torch import Tensor, uint8

from fewshot_nlp.backbone.adapters import adapter_to_json
from fewshot_nlp.episode import Episode, Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.json_lines import JsonLines
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.progress import progress_bar
from fewshot_nlp.sampling.base import TaskSampler
from fewshot_nlp.sampling.base import episodes as stream
from fewshot_nlp.version import VERSION


class HasPipeline(Protocol):
    """Anything with a pipeline: the models that users import."""

    @property
    def pipeline(self) -> Pipeline:
        """Task and learner."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Scores of a model over a stream of episodes.

    Args:
        metric: the task's primary metric.
        mean: mean over the episodes of every metric that each episode has.
        ci95: half of the length of ``interval95``; None for a single episode.
        interval95: ends of the 95 % interval of the mean, by `interval`; None for a single episode.
        pooled: metrics over the queries of all episodes together.
        per_episode: every episode's id and scores.
        n_episodes: number of episodes.
        seed: the sampler's; for a list or a file the argument ``seed``, or None.
        manifest_sha: SHA-256 of the episodes in order; equal to that of a file by `write_episodes`.
        config: what the scores depend on, by `identity`.
    """

    metric: str
    mean: dict[str, float]
    ci95: dict[str, float | None]
    interval95: dict[str, tuple[float, float] | None]
    pooled: dict[str, float]
    per_episode: list[dict[str, Json]] = field(repr=False)
    n_episodes: int
    seed: int | None
    manifest_sha: str
    config: dict[str, Json]

    def to_json(self) -> dict[str, Json]:
        """The report as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        half = self.ci95[self.metric]
        spread = "" if half is None else f" ± {half:.4f}"
        drawn = "" if self.seed is None else f", seed {self.seed}"
        basis = f"95 % interval, {self.n_episodes} episodes{drawn}"
        return f"{self.metric} {self.mean[self.metric]:.4f}{spread} ({basis})"


EDGE = 1e-3
"""Means of shares nearer to 0 or 1 count as so far from it."""


def interval(values: ArrayLike, *, shares: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the 95 % interval of the mean along the last axis, which has at least two values.

    Student's t; of shares on the logit scale, with the spread s / (m (1 - m)) of the delta method, transformed
    back: scores near 1 are skewed, and Student's interval of five accuracies around 0.96 holds their mean in 86 of 100
    cases, this one in 97; of 12 and more in 95 (`evaluation/interval_coverage.py`).

    Args:
        values: of independent episodes.
        shares: they are in [0, 1].

    Examples:
        >>> low, high = interval([1.0, 0.9, 1.0, 0.8], shares=True)
        >>> f"{low:.3f} {high:.3f}"
        '0.578 0.991'
    """
    array: NDArray[np.float64] = np.asarray(values, float)
    n, mean = array.shape[-1], array.mean(axis=-1)
    half = stats.t.ppf(0.975, n - 1) * array.std(axis=-1, ddof=1) / np.sqrt(n)
    if not shares:
        return mean - half, mean + half
    at = np.clip(mean, EDGE, 1 - EDGE)
    half = half / (at * (1 - at))
    return special.expit(special.logit(at) - half), special.expit(special.logit(at) + half)


def are_shares(values: Sequence[float]) -> bool:
    """Whether all are in [0, 1]."""
    return min(values) >= 0 and max(values) <= 1


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % interval by Student's t; None for fewer than two values."""
    mean = float(np.mean(values))
    return mean, None if len(values) < 2 else float(interval(values)[1]) - mean


def evaluate_episodes(
    model: Pipeline | HasPipeline,
    episodes: Iterable[Episode] | TaskSampler,
    *,
    n_episodes: int | None = None,
    seed: int | None = None,
    path: str | Path | None = None,
    cache_bytes: int = 512 * 2**20,
    progress: bool = False,
) -> Report:
    """Adapts to each episode's support set, predicts its queries, and scores them.

    Args:
        model: a pipeline, or a model such as `FewShotNER`, whose settings are used, but not its adapted state.
        episodes: a sampler, the result of `sampling.episodes`, or a list.
        n_episodes: maximum number of episodes; None for all.
        seed: reported where the episodes have no sampler's seed.
        path: a JSON-lines file to which each finished episode is appended. An existing file of the same `identity` is
            continued: its records are reused for episodes with the same content.
        cache_bytes: bound on the features cached between episodes.
        progress: show a bar if it takes over two seconds.

    Raises:
        FewShotError: there are no episodes, one is of another task, or the file is of another run.
    """
    if isinstance(episodes, TaskSampler):
        episodes = stream(episodes)
    pipeline = model if isinstance(model, Pipeline) else model.pipeline
    task, learner = pipeline.task, pipeline.learner
    config = identity(pipeline)
    done = _Journal(path, config)
    manifest = hashlib.sha256()
    records: list[dict[str, Json]] = []
    total = n_episodes if n_episodes is not None else getattr(episodes, "__len__", lambda: None)()
    with (
        learner.encoder.cached(cache_bytes),
        progress_bar(total=total, shown=None if progress else False, unit=" episodes") as bar,
    ):
        for episode in islice(episodes, n_episodes):
            if episode.task != task.name:
                raise FewShotError(
                    f"Episode {episode.episode_id!r} is of the task {episode.task}, the model of {task.name}."
                )
            content = canonical_json(episode.to_json())
            manifest.update((content + "\n").encode("utf-8", "surrogatepass"))
            record = done.get(sha256(content))
            if record is None:
                gold, predicted = task.paired(episode.query, pipeline.predict_episode(episode))
                record = {
                    "episode_id": episode.episode_id,
                    "episode_sha": sha256(content),
                    "scores": task.metrics(gold, predicted, episode.label_names),
                    "labels": list(episode.label_names),
                    "gold": gold,
                    "predicted": predicted,
                }
                done.add(record)
            records.append(record)
            bar.update()
    if not records:
        raise FewShotError("There are no episodes to evaluate.")
    report = _report(records, manifest.hexdigest(), config, pipeline)
    return replace(report, seed=getattr(episodes, "seed", seed))


def identity(pipeline: Pipeline) -> dict[str, Json]:
    """All that scores depend on, as JSON: task, learner, encoder, digest of the trained weights, version."""
    task, learner, encoder = pipeline.task, pipeline.learner, pipeline.learner.encoder
    trained = {**encoder.adapter, **learner.state_dict()}
    trained |= getattr(encoder.head, "state_dict", dict[str, Tensor])()
    adapter = encoder.adapter_config
    return {
        "task": task.name,
        "task_options": task.to_dict(),
        "learner": learner.name,
        "learner_config": learner.config.to_dict(),
        "encoder": encoder.fingerprint,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        "adapter": None if adapter is None else adapter_to_json(adapter),
        "trained": digest(trained),
        "version": VERSION,
    }


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, in any order."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(uint8).numpy().data)
    return found.hexdigest()


def _report(
    records: list[dict[str, Json]],
    manifest: str,
    config: dict[str, Json],
    pipeline: Pipeline,
) -> Report:
    names = [n for n in records[0]["scores"] if all(n in r["scores"] for r in records)]
    series = {name: [float(r["scores"][name]) for r in records] for name in names}
    mean = {name: float(np.mean(values)) for name, values in series.items()}
    ends: dict[str, tuple[float, float] | None] = dict.fromkeys(names)
    for name, values in series.items():
        if len(values) > 1:
            low, high = interval(values, shares=are_shares(values))
            ends[name] = (float(low), float(high))
    pooled = pipeline.task.metrics(
        [g for r in records for g in r["gold"]],
        [p for r in records for p in r["predicted"]],
        sorted({label for r in records for label in r["labels"]}),
    )
    return Report(
        metric=pipeline.task.primary_metric,
        mean=mean,
        ci95={name: end and (end[1] - end[0]) / 2 for name, end in ends.items()},
        interval95=ends,
        pooled=pooled,
        per_episode=[{"episode_id": r["episode_id"], **r["scores"]} for r in records],
        n_episodes=len(records),
        seed=None,
        manifest_sha=manifest,
        config=config,
    )


class _Journal:
    """Records of finished episodes, by their content, in a JSON-lines file that opens with the run's `identity`."""

    def __init__(self, path: str | Path | None, config: Mapping[str, Any]) -> None:
        self._file = None if path is None else JsonLines(path, "finished episodes stay; make room and go on")
        self._header = {"config": dict(config)}
        found = [] if self._file is None else self._file.records
        if found and canonical_json(found[0]) != canonical_json(self._header):
            raise FewShotError(
                f"{path} holds the results of another run ({_differing(found[0], config)}); name another "
                "file or remove it."
            )
        self._records = {r["episode_sha"]: r for r in found if "episode_sha" in r}
        if self._file is not None and found:
            self._file.records = [self._header, *self._records.values()]

    def get(self, episode_sha: str) -> dict[str, Json] | None:
        return self._records.get(episode_sha)

    def add(self, record: dict[str, Json]) -> None:
        if self._file is None:
            return
        if not self._file.records:
            self._file.append(self._header)
        self._file.append(record)


def _differing(header: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Keys of the `identity` that differ from those of a file."""
    there = header.get("config")
    if not isinstance(there, dict):
        return "its first line names no run"
    names = sorted(n for n in {*there, *config} if there.get(n) != config.get(n))
    return f"another {', '.join(names)}"
