"""Meta-validation: mean loss and primary metric over fixed episodes, shared out among the processes."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sampling import TaskSampler
from fewshot_nlp.training.outer_step import episode_seed


def meta_validate(
    accelerator: Accelerator, pipeline: Pipeline, stream: TaskSampler, n_episodes: int, seed: int
) -> dict[str, Any]:
    """Adapts to each episode as a user would (no meta-gradients), and scores its queries.

    Args:
        accelerator: knows the processes; of n episodes, process r takes those with i % n_processes == r.
        pipeline: task and learner.
        stream: the episodes; the first ``n_episodes`` are used.
        n_episodes: how many.
        seed: of what the learner draws from torch's global generator, and named in the result.

    Returns:
        ``val_loss`` and the task's primary metric, each a mean with the half-width of its 95 % interval
        (Student's t over episodes) under ``..._ci95``; ``n_episodes`` and ``val_seed``.
    """
    task, learner = pipeline.task, pipeline.learner
    found: list[tuple[int, float, float]] = []
    with learner.encoder.cached(64 * 2**20):
        for index in range(accelerator.process_index, n_episodes, accelerator.num_processes):
            episode = stream.episode(index)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(episode_seed(seed, index))
                model = pipeline.adapt(episode.support, episode.label_names)
                labels = episode.label_names
                batch = task.collate(episode.query, labels, learner.encoder.tokenizer, with_targets=True)
                scores = model.adapted.scores(batch)
            predicted = [p["target"] for p in task.decode(scores, batch, model.rule)]
            metric = task.metrics(episode.targets, predicted, labels)[task.primary_metric]
            found.append((index, float(batch.loss(scores)), float(metric)))
    if accelerator.num_processes > 1:
        found = gather_object(found)
    found.sort()
    loss, loss_half = mean_and_interval([loss for _, loss, _ in found])
    metric, metric_half = mean_and_interval([metric for _, _, metric in found])
    return {
        "val_loss": loss,
        "val_loss_ci95": loss_half,
        task.primary_metric: metric,
        f"{task.primary_metric}_ci95": metric_half,
        "n_episodes": len(found),
        "val_seed": seed,
    }
