"""The gradient of one outer step, the same whatever the number of processes.

Adapted parameters reach the encoder through `torch.func.functional_call`, past the hooks with which
DistributedDataParallel reduces gradients; so they are summed here, explicitly, in one flat tensor.
"""

from collections.abc import Callable, Mapping
from math import isfinite, nan

import numpy as np
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import Tensor, nn

from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError, ScienceError
from fewshot_nlp.modules.start import seeded
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sampling import TaskSampler
from fewshot_nlp.slots import OUTSIDE, MetaContext
from fewshot_nlp.training.interruption import Stopped
from fewshot_nlp.training.regularisation import UNREGULARISED, Regulariser

Trainable = Mapping[str, nn.Parameter]


def meta_loss(
    pipeline: Pipeline,
    episode: Episode,
    context: MetaContext = OUTSIDE,
    regulariser: Regulariser = UNREGULARISED,
    seed: int = 0,
) -> Tensor:
    """The learner's meta-loss of one episode.

    Args:
        pipeline: task and learner.
        episode: what to learn from.
        context: progress and label smoothing.
        regulariser: changes the episode and the loss; it draws from torch's global generator.
        seed: of what it changes in the episode.
    """
    task, settings = pipeline.task, regulariser.settings
    episode = regulariser.changed(episode, task, seed)
    support = settings.without_names(pipeline.support(episode.support, episode.label_names))
    query = task.collate(
        episode.query, episode.label_names, pipeline.learner.encoder.tokenizer, with_targets=True
    )
    return regulariser.loss(pipeline.learner, support, settings.mixed(query), context)


def outer_gradient(
    accelerator: Accelerator,
    pipeline: Pipeline,
    trainable: Trainable,
    stream: TaskSampler,
    *,
    step: int,
    meta_batch: int,
    context: MetaContext = OUTSIDE,
    regulariser: Regulariser = UNREGULARISED,
    seed: int = 0,
    should_stop: Callable[[], bool] = bool,
) -> list[float]:
    """Puts the gradient of the mean meta-loss of one meta-batch into ``.grad`` of every trainable parameter.

    The meta-batch of step s is the episodes s * meta_batch and on; of these, process r takes those whose
    number is r modulo the number of processes.

    Args:
        accelerator: knows the processes.
        pipeline: task and learner.
        trainable: parameters by name; one without a gradient counts as zero.
        stream: the episodes.
        step: number of the outer step.
        meta_batch: episodes in it, over all processes.
        context: progress and label smoothing.
        regulariser: of episodes and losses.
        seed: of what it changes, and of what is drawn from torch's global generator, which is left as it was.
        should_stop: whether this process was asked to stop; looked at before every episode.

    Returns:
        The loss of each of the meta-batch's episodes, in order.

    Raises:
        Stopped: in every process, when any of them was asked to stop; the gradient is of no use then.
        ScienceError: in every process, naming learner, episode and parameter, when in any of them a loss or
            gradient is NaN or infinite.
    """
    for parameter in trainable.values():
        parameter.grad = None
    losses, failure, stop = torch.zeros(meta_batch, dtype=torch.float64), "", False
    first = step * meta_batch
    for index in range(first, first + meta_batch):
        if index % accelerator.num_processes != accelerator.process_index:
            continue
        stop = should_stop()
        if stop:
            break
        episode = stream.episode(index)
        own_seed = episode_seed(seed, index)
        with seeded(own_seed, accelerator.device), regulariser.dropping(pipeline.learner.encoder):
            try:
                with accelerator.autocast():
                    meta = meta_loss(pipeline, episode, context, regulariser, own_seed)
                loss = _backward(accelerator, pipeline, meta, meta_batch)
            except ScienceError as error:
                failure = f"episode {episode.episode_id!r} of step {step}: {error}"
                break
        losses[index - first] = loss
        bad = not_finite({name: p.grad for name, p in trainable.items() if p.grad is not None})
        if not isfinite(loss) or bad is not None:
            what = f"the gradient of {bad}" if bad is not None else "the loss, but no gradient,"
            where = f"episode {episode.episode_id!r} of step {step}"
            failure = f"{what} became NaN or infinite in {where} (loss {loss:g})"
            break
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable.values()]
    told = torch.cat([losses, torch.tensor([nan if failure else float(stop)], dtype=torch.float64)])
    flat = torch.cat([g.flatten().float() for g in grads])
    if accelerator.num_processes > 1:
        flat = accelerator.reduce(flat, "sum")
        told = accelerator.reduce(told.to(accelerator.device), "sum")
    if not bool(torch.isfinite(told).all()):  # seen by every process, so none waits for another
        failures = [f for f in gather_object([failure]) if f]
        raise ScienceError(
            f"{pipeline.learner.name}: {failures[0].rstrip('.')}. Lower outer.lr or the learner's own rates, "
            "or set max_grad_norm."
        )
    if bool(told[-1]):
        raise Stopped
    for parameter, grad in zip(
        trainable.values(), torch.split(flat, [g.numel() for g in grads]), strict=True
    ):
        parameter.grad = grad.view_as(parameter).to(parameter.dtype)
    return told[:-1].tolist()


def _backward(accelerator: Accelerator, pipeline: Pipeline, loss: Tensor, meta_batch: int) -> float:
    if not loss.requires_grad:
        raise FewShotError(
            f"The meta-loss of the learner {pipeline.learner.name} does not depend on anything that is "
            "trained; set train to 'adapter' or 'all', or take another learner."
        )
    accelerator.backward(loss / meta_batch)
    return float(loss.detach())


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or infinity, or None."""
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)


def episode_seed(seed: int, index: int) -> int:
    """The seed of whatever is drawn while episode ``index`` is learned from, in whichever process."""
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0] >> 1)
