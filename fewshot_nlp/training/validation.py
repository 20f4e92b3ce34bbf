"""Meta-validation: mean loss and primary metric over fixed episodes, shared out among the processes."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]

from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import ScienceError
from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.modules.start import seeded
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sampling import TaskSampler
from fewshot_nlp.training.interruption import Stopped
from fewshot_nlp.training.outer_step import episode_seed


def meta_validate(
    accelerator: Accelerator,
    pipeline: Pipeline,
    stream: TaskSampler,
    n_episodes: int,
    seed: int,
    should_stop: Callable[[], bool] = bool,
) -> dict[str, Any]:
    """Adapts to each episode as a user would (no meta-gradients), and scores its queries.

    Args:
        accelerator: knows the processes; of n episodes, process r takes those with i % n_processes == r.
        pipeline: task and learner.
        stream: the episodes; the first ``n_episodes`` are used.
        n_episodes: how many.
        seed: of what the learner draws from torch's global generator, and named in the result.
        should_stop: whether this process was asked to stop; looked at before every episode.

    Returns:
        ``val_loss`` and the task's primary metric, each a mean with the half-width of its 95 % interval
        (Student's t over episodes) under ``..._ci95``; ``n_episodes`` and ``val_seed``.

    Raises:
        Stopped: in every process, when any of them was asked to stop.
        ScienceError: in every process, when a loss or an adapted state is NaN or infinite.
    """
    task, learner = pipeline.task, pipeline.learner
    found: list[tuple[int, float, float]] = []
    failures: list[str] = []
    stop = False
    with learner.encoder.cached(64 * 2**20):
        for index in range(accelerator.process_index, n_episodes, accelerator.num_processes):
            stop = should_stop()
            if stop:
                break
            episode = stream.episode(index)
            try:
                loss, metric = _measure(pipeline, episode, episode_seed(seed, index), accelerator.device)
            except ScienceError as error:
                failures.append(f"meta-validation episode {episode.episode_id!r}: {error}")
                break
            if not isfinite(loss):
                failures.append(
                    f"{learner.name}: the loss of meta-validation episode {episode.episode_id!r} is {loss}"
                )
                break
            found.append((index, loss, metric))
    found, failures, stops = gather_object(found), gather_object(failures), gather_object([stop])
    if any(stops):
        raise Stopped
    if failures:
        raise ScienceError(f"{failures[0].rstrip('.')}. Lower outer.lr or the learner's own rates.")
    found.sort()
    mean, loss_half = mean_and_interval([loss for _, loss, _ in found])
    score, score_half = mean_and_interval([metric for _, _, metric in found])
    return {
        "val_loss": mean,
        "val_loss_ci95": loss_half,
        task.primary_metric: score,
        f"{task.primary_metric}_ci95": score_half,
        "n_episodes": len(found),
        "val_seed": seed,
    }


def _measure(pipeline: Pipeline, episode: Episode, seed: int, device: torch.device) -> tuple[float, float]:
    """Loss and primary metric of one episode's queries; their targets are used after scoring only."""
    task, labels = pipeline.task, episode.label_names
    with seeded(seed, device):
        loss, predicted = pipeline.adapt(episode.support, labels).measure(episode.query)
    return loss, float(task.metrics(*task.paired(episode.query, predicted), labels)[task.primary_metric])
