"""Learning to initialise: a network writes the initial head from the support set, then a few gradient steps.

Paper: Bansal, Jha, McCallum 2020, Learning to Few-Shot Learn Across Diverse Natural Language Classification Tasks
(LEOPARD): the mean of a network over a class's examples is that class's weight and bias; then gradient steps on head
and task-specific layers, with a learned rate for each layer.
Deviations: the network's output is added to the prototype head and is zero before meta-training. The
task-specific layers are a PEFT adapter, the shared ones the frozen model, instead of upper and lower layers of
BERT. The head reads the features themselves: there is no further network between encoder and head (the paper's h_phi),
which in the paper is adapted too. A rate belongs to a weight, for all steps. Head and steps use the whole support set,
not a batch each. Classes that do not exclude each other get the
output for their slots minus that for all others. A model with a head of its own (a translation model) keeps it, and
the learner is MAML with learned rates.
Data needed: meta-training on tasks with different classes; without it this is Proto-MAML.
Choose it over `maml` where tasks differ in the number and kind of their classes and few steps must do.
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners.gradient import GradientConfig, GradientLearner
from fewshot_nlp.modules.heads import class_means, prototype_head, residual_network
from fewshot_nlp.modules.inner_loop import Weights
from fewshot_nlp.modules.rates import LearnedRates
from fewshot_nlp.modules.start import scaled_normalize, seeded
from fewshot_nlp.slots import SlotBatch


class InitializerConfig(GradientConfig):
    """Settings of `Initializer`.

    Args:
        inner_steps: gradient steps on the support set; 0 takes the head that the network writes.
        first_order: no second derivatives, as in the paper: less time and memory.
        hidden: width of the network that writes the head.
    """

    first_order: bool = False
    hidden: Annotated[int, Field(ge=1, le=10**5)] = 128


class Initializer(GradientLearner[InitializerConfig], name="initializer"):
    """A written head, then gradient steps."""

    def __init__(self, encoder: Backbone, config: InitializerConfig | None = None) -> None:
        super().__init__(encoder, config)
        self.rates = LearnedRates(self.start_rates()).to(encoder.device)
        self.network: nn.Sequential | None = None
        if encoder.vocabulary is None:
            d = encoder.dimension
            with seeded(self.config.seed):
                network = residual_network(d, self.config.hidden, d + 1)
            self.network = network.to(encoder.device, encoder.feature_dtype)

    def head_start(self, support: SlotBatch, double_backward: bool) -> Weights:
        """Prototype head plus the mean of the network over each class's slots."""
        if self.network is None:
            return {}
        features = self.features(support, double_backward=double_backward)
        features = scaled_normalize(features, self.config.scale)
        weight, bias = prototype_head(features, support, self.config.label_names)
        means, _ = class_means(self.network(features), support, self.config.label_names)
        change = means[0] - means[1] if len(means) == 2 else means[0]
        return {"head.weight": weight + change[:, :-1], "head.bias": bias + change[:, -1]}
