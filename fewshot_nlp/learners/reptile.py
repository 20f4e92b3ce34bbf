"""Reptile: an outer step moves the initial weights towards the trained weights of each task.

Paper: Nichol, Achiam, Schulman 2018, On First-Order Meta-Learning Algorithms (algorithm 1 serial, algorithm 2
batched). The outer step is theta <- theta + epsilon * mean over tasks of (theta_k - theta), theta_k the weights after
k steps. The outer loop differentiates a loss, so the meta-loss here is a surrogate. Its gradient in the adapter is
exactly theta - theta_k, by sum(theta * (theta - theta_k)) with the difference held constant. Its value is the query
loss at theta_k, without a gradient, for the log. Nothing is differentiated through the steps.
Settings of the outer loop: ``meta_batch: 1`` is the serial version, more the batched one; the paper's plain update is
``optimizer: sgd`` (its momentum of 0.9 is an addition) with ``lr`` as epsilon, ``schedule: linear``,
``warmup: 0``, ``max_grad_norm: null`` and ``weight_decay: 0``; AdamW on the same gradient often goes faster.
Deviations: theta is a PEFT adapter; the head starts at the prototypes of each task. Inner steps are plain gradient
descent, not Adam. A model with a head of its own (a translation model) keeps it. As in the paper, meta-training
trains on all of a task's examples, alternating between support and query; adapting uses the support set. Data needed:
meta-training; without it this is few-step fine-tuning. Choose it for many inner steps, where second derivatives are
too expensive: a step costs no more than in fine-tuning.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fewshot_nlp.learners.gradient import GradientConfig, GradientLearner, InnerSteps
from fewshot_nlp.modules.inner_loop import Weights, sgd_path
from fewshot_nlp.modules.start import differentiable_copy, examples_of, fast_parameters, support_loss, towards
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Count
from fewshot_nlp.slots import SlotBatch


class ReptileConfig(GradientConfig):
    """Settings of `Reptile`.

    Args:
        inner_steps: gradient steps on a task, k in the paper, from 1; with 1 it is joint training on all tasks.
        batch_size: examples in a step; None for all. Their order depends on that of the support set.
    """

    inner_steps: InnerSteps = 8
    batch_size: Count | None = None


class Reptile(GradientLearner[ReptileConfig], name="reptile"):
    """Gradient steps on a task, and an outer step towards their result."""

    order_free = False  # mini-batches are drawn

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights of adapter and head after the inner steps; without gradients, see `query_loss`."""
        return self._descend(support, [examples_of(support)])

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Surrogate with the value of the query loss after the steps and the gradient theta - theta_k (see above)."""
        end = self._descend(support, [examples_of(support), query])
        with torch.no_grad():
            reached = query.loss(self.query_scores(end, query))
        return towards(reached, fast_parameters(self.encoder), end)

    def _descend(self, support: SlotBatch, parts: Sequence[SlotBatch]) -> State:
        """The weights after the steps; each step takes a mini-batch from the next part in turn."""
        with torch.no_grad():
            start = self.start(support)
        parts = [part for part in parts if part.n_slots]
        with torch.enable_grad():
            weights = end = differentiable_copy(start, meta=False)
            if not parts:
                return weights
            batches = self._batches(parts)

            def loss(w: Weights) -> Tensor:
                return support_loss(self, next(batches), w)(w)

            for after in sgd_path(
                weights,
                loss,
                steps=self.config.inner_steps,
                rate=lambda name, step: self.rate(name, step, False),
                second_order=False,
            ):
                end = after
        return {name: weight.detach() for name, weight in end.items()}

    def _batches(self, parts: Sequence[SlotBatch]) -> Iterator[SlotBatch]:
        """Endless mini-batches of each part's examples."""
        size, generator = self.config.batch_size, torch.Generator().manual_seed(self.config.seed)
        while True:
            for part in parts:
                groups = torch.unique(part.groups)
                if size is None or len(groups) <= size:
                    yield part
                    continue
                for chosen in groups[torch.randperm(len(groups), generator=generator)].split(size):
                    yield part.select(torch.isin(part.groups, chosen))
