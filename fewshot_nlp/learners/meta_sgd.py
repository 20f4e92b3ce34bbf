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
from fewshot_nlp.learners.gradient import GradientConfig, GradientLearner, HeadRate, InnerSteps
from fewshot_nlp.modules.rates import LearnedRates
from fewshot_nlp.modules.start import fast_parameters


class MetaSGDConfig(GradientConfig):
    """Settings of `MetaSGD`.

    Args:
        first_order: no second derivatives: less time and memory; the rates are still learned.
    """

    inner_steps: InnerSteps = 3
    head_lr: HeadRate = 0.3
    first_order: bool = False


class MetaSGD(GradientLearner[MetaSGDConfig], name="meta_sgd"):
    """Gradient steps with one meta-learned rate for each weight (equation 5)."""

    def __init__(self, encoder: Backbone, config: MetaSGDConfig | None = None) -> None:
        super().__init__(encoder, config)
        shapes = {name: weight.shape for name, weight in fast_parameters(encoder).items()}
        heads = {"head.weight": torch.Size([encoder.dimension]), "head.bias": torch.Size([])}
        self.rates = LearnedRates(self.start_rates(), shapes | heads).to(encoder.device)
