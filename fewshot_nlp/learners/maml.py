"""MAML: meta-learn weights from which a few gradient steps on a support set suffice.

Papers: Finn, Abbeel, Levine 2017, Model-Agnostic Meta-Learning (equation 1 and algorithm 2; ``first_order=True``
is its first-order variant, FOMAML); Raghu et al. 2020, Rapid Learning or Feature Reuse (``scope="head"`` is ANIL);
Triantafillou et al. 2020, Meta-Dataset, section 3 (``head="prototypes"`` is Proto-MAML).
Deviations: the inner parameters are a PEFT adapter's, not the whole model's; the head starts at zero or at the
prototypes, so that any number of classes in any order can be met, unless ``head="meta"`` is asked for; a model with a head of
its own (a translation model) keeps it.
Data needed: meta-training; without it this is few-step fine-tuning. Choose it when many source tasks resemble
the target and the features themselves must move.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import FAST, Learner, LearnerConfig, State, check, check_choice
from fewshot_nlp.learners.heads import LearnedHead, linear_scores, prototype_head
from fewshot_nlp.learners.inner_loop import Weights, need_adapter, sgd_steps
from fewshot_nlp.slots import SlotBatch


@dataclass(frozen=True, kw_only=True)
class MAMLConfig(LearnerConfig):
    """Settings of `MAML`.

    Args:
        inner_steps: gradient steps on the support set, from 1.
        inner_lr: their learning rate for the adapter.
        head_lr: their learning rate for the head.
        first_order: leave second derivatives out (FOMAML): less time and memory.
        scope: "adapter" moves adapter and head, "head" only the head (ANIL).
        head: where the head starts: "zeros", "prototypes" (Proto-MAML), or "meta": learned by meta-training as in
            the paper, for tasks whose classes are always the same; such a model predicts before any example.
        n_classes: with "meta", the number of classes: 2 for question answering.
        scale: features are L2-normalised and multiplied by this before the head.
    """

    inner_steps: int = 5
    inner_lr: float = 0.1
    head_lr: float = 1.0
    first_order: bool = False
    scope: Literal["adapter", "head"] = "adapter"
    head: Literal["zeros", "prototypes", "meta"] = "prototypes"
    n_classes: int = 2
    scale: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "inner_steps", 1, 1000)
        check(self, "inner_lr", 1e-8, 10)
        check(self, "head_lr", 1e-8, 100)
        check(self, "scale", 1e-3, 1e3)
        check_choice(self, "scope", "adapter", "head")
        check(self, "n_classes", 1, 10**6)
        check_choice(self, "head", "zeros", "prototypes", "meta")


@LEARNERS.register("maml")
class MAML(Learner):
    """Gradient steps on fast weights, differentiated through."""

    name = "maml"
    config_class = MAMLConfig
    uses_prior = True
    config: MAMLConfig

    def __init__(self, encoder: Backbone, config: MAMLConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter":
            need_adapter(encoder, self.config.seed)
        elif encoder.own_head:
            raise FewShotError("The head is the model's own and stays as it is; take scope='adapter'.")
        self.head: LearnedHead | None = None
        if self.config.head == "meta":
            self.head = LearnedHead(self.config.n_classes, encoder.dimension)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Fast weights of adapter and head after the inner steps."""
        second_order = meta and not self.config.first_order
        examples = support.select(~support.anchor_mask)
        with torch.enable_grad():
            weights = self._start(support, meta, second_order)
            if not examples.n_slots:
                return weights
            names = [n for n in weights if n.startswith(FAST)]
            fixed = None if names else self.features(examples)

            def loss(w: Weights) -> Tensor:
                features = fixed
                if features is None:
                    fast = {n.removeprefix(FAST): w[n] for n in names}
                    features = self.features(examples, fast, double_backward=second_order)
                return examples.loss(self.scores_of(w, features, examples))

            return sgd_steps(
                weights,
                loss,
                steps=self.config.inner_steps,
                rate=lambda name, _: self.config.inner_lr if name.startswith(FAST) else self.config.head_lr,
                second_order=second_order,
            )

    def score(
        self, state: State, features: Float[Tensor, "n_slots d"], batch: SlotBatch
    ) -> Float[Tensor, "n_slots n_classes"]:
        """A linear head on the features, or the model's own head where it has one."""
        return batch.prior if batch.prior is not None else linear_scores(state, self._scaled(features))

    def _scaled(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) * self.config.scale

    def initial(self) -> State | None:
        """With ``head="meta"`` the adapter as it is and the meta-learned head."""
        return super().initial() if self.head is None else {**self._moving(), **self.head.state()}

    def _moving(self) -> Weights:
        adapter = self.encoder.adapter if self.config.scope == "adapter" else {}
        return {FAST + name: parameter for name, parameter in adapter.items()}

    def _start(self, support: SlotBatch, meta: bool, second_order: bool) -> Weights:
        weights = self._moving()
        if not self.encoder.own_head:
            weights["head.weight"], weights["head.bias"] = self._initial_head(support, second_order)
        if meta:  # clones, so that the adapter's inner gradient does not also run through the head's start
            return {
                n: w.clone() if w.requires_grad else w.detach().requires_grad_() for n, w in weights.items()
            }
        return {n: w.detach().clone().requires_grad_() for n, w in weights.items()}

    def _initial_head(self, support: SlotBatch, second_order: bool) -> tuple[Tensor, Tensor]:
        if self.head is not None:
            state = self.head.state(support.n_classes)
            return state["head.weight"], state["head.bias"]
        dimension = self.encoder.dimension
        if self.config.head == "zeros":
            zeros = torch.zeros(
                support.n_classes, dimension + 1, device=self.encoder.device, dtype=self.encoder.feature_dtype
            )
            return zeros[:, :dimension].clone(), zeros[:, dimension].clone()
        features = self._scaled(self.features(support, double_backward=second_order))
        return prototype_head(features, support, self.config.label_names)
