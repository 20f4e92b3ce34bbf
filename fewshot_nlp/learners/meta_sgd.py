"""Meta-SGD: meta-learn the start, and for every weight the rate and the direction of its steps.

Paper: Li, Zhou, Chen, Li 2017, Meta-SGD: Learning to Learn Quickly for Few-Shot Learning (equation 5, algorithm 1).
Deviations: the inner weights are a PEFT adapter's and a head's, not the whole model's; the head starts at the
prototypes, and has one rate for each feature, shared by all classes, so that any number of them can be met; three steps
are the default where the paper takes one (``inner_steps: 1`` is its method); rates are learned as a factor of a start
value. At rates that are all the same it is MAML, exactly. A model with a head of its own (for translation) keeps it.
Data needed: meta-training, as many parameters again as the adapter has are learned; without it this is few-step
fine-tuning. Choose it instead of `maml` when one to three steps must do.
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
        inner_lr: the rate that every weight of the adapter starts from; None takes 0.1, or 0.01 where
            the model has a head of its own.
        head_lr: the rate that the head starts from.
        first_order: leave second derivatives out: less time and memory; the rates are learned even so.
        scale: features are L2-normalised and multiplied by this before the head.
    """

    inner_steps: InnerSteps = 3
    inner_lr: InnerRate | None = None
    head_lr: HeadRate = 0.3
    first_order: bool = False
    scale: Scale = 4.0


class MetaSGD(Learner[MetaSGDConfig], name="meta_sgd"):
    """Gradient steps whose rates are as many as there are weights, and meta-learned."""

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
