"""Meta-SGD: meta-learned initial weights, and for every weight a meta-learned rate and sign of its steps.

Paper: Li, Zhou, Chen, Li 2017, Meta-SGD: Learning to Learn Quickly for Few-Shot Learning (equation 5, algorithm 1).
Deviations: the inner loop trains a PEFT adapter and a head, not the whole model. The head starts at the
prototypes and has one rate for each feature, shared by all classes, so that their number is free. Three steps
are the default; the paper takes one (``inner_steps: 1``). Rates are learned as a factor of an initial
value. With equal rates it is exactly MAML. A model with a head of its own (for translation) keeps it.
Data needed: meta-training, which learns twice as many parameters as the adapter has; without it this is few-step
fine-tuning. Choose it instead of `maml` when one to three steps must suffice.
"""

import torch

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.modules.inner_loop import need_adapter
from fewshot_nlp.modules.rates import LearnedRates, learned_steps, start_rates
from fewshot_nlp.modules.start import (
    HeadRate,
    InnerRate,
    InnerSteps,
    examples_of,
    fast_parameters,
    head_scores,
    prototype_start,
)
from fewshot_nlp.modules.state import State
from fewshot_nlp.settings import Scale
from fewshot_nlp.slots import Features, Scores, SlotBatch


class MetaSGDConfig(LearnerConfig):
    """Settings of `MetaSGD`.

    Args:
        inner_steps: gradient steps on the support set, from 1.
        inner_lr: initial rate of every weight of the adapter; None takes 0.1, or 0.01 where
            the model has a head of its own.
        head_lr: initial rate of the head.
        first_order: no second derivatives: less time and memory; the rates are still learned.
        scale: features are L2-normalised and multiplied by this before the head.
    """

    inner_steps: InnerSteps = 3
    inner_lr: InnerRate | None = None
    head_lr: HeadRate = 0.3
    first_order: bool = False
    scale: Scale = 4.0


class MetaSGD(Learner[MetaSGDConfig], name="meta_sgd"):
    """Gradient steps with one meta-learned rate for each weight."""

    head_use = "built_on"

    def __init__(self, encoder: Backbone, config: MetaSGDConfig | None = None) -> None:
        super().__init__(encoder, config)
        need_adapter(encoder, self.config.seed)
        shapes = {name: weight.shape for name, weight in fast_parameters(encoder).items()}
        heads = {"head.weight": torch.Size([encoder.dimension]), "head.bias": torch.Size([])}
        start = start_rates(encoder, self.config.inner_lr, self.config.head_lr)
        self.rates = LearnedRates(start, shapes | heads).to(encoder.device)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights of adapter and head after the inner steps (equation 5)."""
        second_order = meta and not self.config.first_order
        with torch.enable_grad():
            head = prototype_start(self, support, self.config.scale, double_backward=second_order)
            return learned_steps(
                self,
                self.rates,
                head,
                examples_of(support),
                steps=self.config.inner_steps,
                meta=meta,
                second_order=second_order,
            )

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """A linear head on the features, or the model's own head where it has one."""
        return head_scores(state, features, batch, self.config.scale)
