"""Contrastive tuning of the encoder on pairs of support slots, then logistic regression: the SetFit recipe.

Papers: Tunstall et al. 2022, Efficient Few-Shot Learning Without Prompts (SetFit, section 3: pairs of like and of
different examples, 2 R n of them; loss "cosine" is the squared error of their cosine similarity to 1 and to 0);
Khosla et al. 2020, Supervised Contrastive Learning (equation 2, loss "supervised").
Deviations: slots instead of sentences, so that it works for words (balanced over classes: O does not swamp entities)
and for answers (like: starts of different questions' answers; different: starts and other tokens). A step encodes its
slots once and forms all pairs among them: 120 pairs of 16 slots cost 16 encodings, where SetFit, which encodes both
sides of each pair, needs 240. Like and different pairs count half each by weight instead of being equally many.
An adapter moves unless ``scope="all"``. Label names count for the head only. It refuses translation: pairs of
like target tokens say nothing of the model's own head, which would no longer fit the tuned features.
Meta-training is first-order: the query's loss at the tuned weights under the solved head, both taken as constants of
the way that led there (as in FOMAML), moves the start. Data needed: two classes, one of them with two examples; best
from 8 a class. Choose it when classes differ in meaning more than the frozen features tell, for tens of texts.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.adamw import Descent, first_order
from fewshot_nlp.learners.base import Learner, LearnerConfig, State, check, check_choice, fast_weights
from fewshot_nlp.learners.heads import linear_scores
from fewshot_nlp.learners.inner_loop import need_adapter
from fewshot_nlp.learners.linear_probe import solved_head
from fewshot_nlp.learners.slot_pairs import Draw, draws
from fewshot_nlp.learners.start import examples_of, moving, to_move
from fewshot_nlp.slots import SlotBatch


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(LearnerConfig):
    """Settings of `Contrastive`.

    Args:
        scope: what is tuned: "adapter" or "all" weights of the encoder.
        loss: "cosine" (SetFit) or "supervised" (Khosla et al. 2020).
        iterations: R of the paper: so many pairs of either kind for each slot, within the bound; the paper has 20.
        n_pairs: bound of the number of pairs, whatever the size of the support set.
        batch_size: slots that a step encodes, from 4; their pairs are the step's.
        lr: learning rate of AdamW; None takes 1e-3 for an adapter and 2e-5 (the paper's) for all weights.
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to this norm.
        temperature: divides the similarities in the "supervised" loss.
        C: inverse strength of the L2 penalty of the logistic regression.
    """

    scope: Literal["adapter", "all"] = "adapter"
    loss: Literal["cosine", "supervised"] = "cosine"
    iterations: int = 60
    n_pairs: int = 8000
    batch_size: int = 16
    lr: float | None = None
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    temperature: float = 0.1
    C: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "scope", "adapter", "all")
        check_choice(self, "loss", "cosine", "supervised")
        check(self, "iterations", 1, 10**5)
        check(self, "n_pairs", 1, 10**7)
        check(self, "batch_size", 4, 4096)
        if self.lr is not None:
            check(self, "lr", 1e-9, 10)
        check(self, "weight_decay", 0, 10)
        check(self, "max_grad_norm", 1e-6, 1e6)
        check(self, "temperature", 1e-3, 1e3)
        check(self, "C", 1e-6, 1e9)


@LEARNERS.register("contrastive")
class Contrastive(Learner):
    """Like slots drawn together, different ones apart, before a head is solved."""

    name = "contrastive"
    config_class = ContrastiveConfig
    config: ContrastiveConfig

    def __init__(self, encoder: Backbone, config: ContrastiveConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter":
            need_adapter(encoder, self.config.seed)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Tuned fast weights, and the head solved on their features."""
        start = moving(self.encoder, self.config.scope)
        tuned = {name: w.detach() for name, w in self._tune(support).items()}
        with torch.no_grad():
            features = self.features(support, fast_weights(tuned))
        head = solved_head(features, support, self.config.label_names, self.config.C)
        return (first_order(tuned, start) if meta else tuned) | head

    def score(
        self, state: State, features: Float[Tensor, "n_slots d"], batch: SlotBatch
    ) -> Float[Tensor, "n_slots n_classes"]:
        """A linear head on L2-normalised features."""
        return linear_scores(state, F.normalize(features, dim=-1))

    @torch.enable_grad()
    def _tune(self, support: SlotBatch) -> State:
        examples = examples_of(support)
        examples = examples.select(examples.has_place)
        weights = to_move(moving(self.encoder, self.config.scope), meta=False)
        bound = min(2 * self.config.iterations * examples.n_slots, self.config.n_pairs)
        steps = draws(examples, bound, self.config.batch_size, self.config.seed) if bound else []
        if not steps:
            return weights
        rate = self.config.lr or (2e-5 if self.config.scope == "all" else 1e-3)
        descent = Descent(
            weights,
            lr=rate,
            head_lr=rate,
            steps=len(steps),
            weight_decay=self.config.weight_decay,
            max_grad_norm=self.config.max_grad_norm,
        )
        for draw in steps:
            descent.step(self.pair_loss(examples, draw, weights))
        return weights

    def pair_loss(self, examples: SlotBatch, draw: Draw, weights: State) -> Tensor:
        """The loss of a draw's pairs; each of its slots is encoded once."""
        chosen = torch.zeros(examples.n_slots, dtype=torch.bool)
        chosen[draw.slots] = True
        features = self.features(examples.select(chosen), fast_weights(weights))
        if self.config.loss == "cosine":
            return cosine_loss(features, draw)
        return supervised_loss(features, draw, self.config.temperature)


def cosine_loss(features: Float[Tensor, "n d"], draw: Draw) -> Tensor:
    """Squared error of the pairs' cosine similarity to 1 or 0; like and different pairs count half each."""
    unit = F.normalize(features, dim=-1)
    cosine = unit @ unit.T
    parts = []
    for pairs, wanted in ((draw.alike, 1.0), (draw.different, 0.0)):
        pairs = pairs.to(cosine.device)
        parts.append(((cosine - wanted).square() * pairs).sum() / pairs.sum().clamp_min(1))
    return (parts[0] + parts[1]) / 2


def supervised_loss(features: Float[Tensor, "n d"], draw: Draw, temperature: float) -> Tensor:
    """Minus the log-probability of a slot's like ones among all its pairs (Khosla et al., equation 2), averaged."""
    unit = F.normalize(features, dim=-1)
    alike = draw.alike.to(unit.device)
    among = alike | draw.different.to(unit.device)
    lonely = ~among.any(dim=1, keepdim=True)  # its row would be empty: log-softmax over nothing
    scores = (unit @ unit.T / temperature).masked_fill(~(among | lonely), -torch.inf)
    each = scores.log_softmax(dim=1).masked_fill(~alike, 0.0).sum(dim=1)
    count = alike.sum(dim=1)
    return -(each / count.clamp_min(1)).sum() / (count > 0).sum().clamp_min(1)
