"""Contrastive tuning of the encoder's top layers on support slots; heads before and after tuning are averaged.

Papers: Khosla et al. 2020, Supervised Contrastive Learning (equation 2, loss "supervised"); Tunstall et al. 2022,
Efficient Few-Shot Learning Without Prompts (SetFit, section 3; loss "cosine" is the squared error of the pairs'
cosine similarity to 1 and to 0); Wortsman et al. 2022, Robust fine-tuning of zero-shot models (output-space ensemble
of the models before and after tuning).
Deviations: slots instead of sentences, so that it works for words (balanced over classes: O does not swamp entities)
and for answers (positive pairs: starts of different questions' answers; negative pairs: starts and other tokens). A
step encodes its slots once and forms all pairs among them. The name of each label, encoded before tuning, is one more
positive sample of its class. Positive and negative pairs have equal total weight in the "cosine" loss. Texts are cut
to their first tokens. The output of the layers below the adapter is computed once. The head is `stacked_probe`,
SetFit's a logistic regression (``head="linear_probe"``), and the head before tuning keeps a share of the prediction,
which bounds the harm of a bad tuning. It takes 20 steps of up to 32 slots whatever the data, where SetFit with R = 20
(``num_iterations``) takes 2.5 steps of 16 pairs for each text: for 2 labels of 8 texts 320 texts are encoded instead
of 1,280, for 4 of 16 texts 640 instead of 5,120; and they form 2,400 pairs instead of 640, and 9,920 instead of
2,560. Probabilities are tempered (Guo et al. 2017, section 4.2). No support slot is held out from tuning, so that how
to find the temperature was learned on other tasks (`scale_of`).
It refuses translation: pairs of target tokens do not train the model's own head, which would no longer fit the tuned
features. Meta-training is first-order (Finn et al. 2017, section 5.2): the gradient of the query loss at the tuned
weights, with the fitted heads as constants, is applied to the initial weights. Or it is Reptile (Nichol et al. 2018,
algorithm 2) on the support set alone: the initial weights move towards the tuned ones. With ``start="meta"`` the
learner owns the initial weights, and the head before tuning uses the encoder's features. With ``learned_rates`` each
weight matrix has a learned factor of AdamW's rate (after Li et al. 2017, Meta-SGD); tuned minus initial weights are
taken as proportional to it.
Data needed: two classes, one of them with two examples; best from 8 a class. Choose it for texts, when seconds to
adapt are fine.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.base import Learner, LearnerConfig
from fewshot_nlp.learners.stacked_probe import INFORMATION
from fewshot_nlp.modules.adamw import Descent, first_order
from fewshot_nlp.modules.inner_loop import Weights, bfloat16
from fewshot_nlp.modules.rates import LearnedRates, parameter_name
from fewshot_nlp.modules.slot_pairs import Draw, draws
from fewshot_nlp.modules.start import differentiable_copy, examples_of, fast_parameters, towards
from fewshot_nlp.modules.state import State, fast_weights
from fewshot_nlp.settings import GradientNorm, LearningRate, Scale, Share, WeightDecay
from fewshot_nlp.slots import Features, Scores, SlotBatch

OVERFIT = 0.916
"""Of `scale_of`; learned on nine sets of texts, see evaluation/results/journal.md."""
SCALE = "scale"
"""In a state, the inverse temperature; absent: 1."""
TUNED, BEFORE = "tuned.", "before."
"""Begin the keys of a state that belong to the heads after and before tuning."""
RATE_GAIN = 30.0
"""A learned factor is 1 + this times its parameter, so that one outer rate suits both it and adapter weights."""
LEAST_FACTOR = 0.03


class ContrastiveConfig(LearnerConfig):
    """Settings of `Contrastive`.

    Args:
        label_names: above 0, names are samples of the "supervised" loss and support rows of the head, with the head's
            own weight for names.
        steps: of AdamW; 0 tunes nothing. The time to adapt grows with it; beyond 20 steps the gain is small.
        scope: what is tuned: "adapter" or "all" weights of the encoder.
        top_layers: number of last layers that get the adapter, where the encoder has none yet.
        loss: "supervised" (Khosla et al. 2020) or "cosine" (SetFit).
        batch_size: slots in a step, from 4; the loss is over all pairs of them.
        longest: tokens of a text that are used in tuning.
        lr: learning rate of AdamW; None takes 1e-3 for an adapter and 2e-5 (SetFit's) for all weights.
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to this norm.
        temperature: divides the similarities in the "supervised" loss.
        head: learner that fits the heads; one with a closed-form or convex solution.
        head_config: its settings.
        before: share of the head before tuning in the mixture of probabilities, in [0, 1]: a bad tuning adds at most
            -log(before) nats to the loss; at 0 there is none.
        calibrate: temper the mixture's probabilities, which changes no decision; where texts have one label each and
            the head can tell its information (`stacked_probe`).
        bfloat16: compute the encoder in bfloat16 while tuning; None does so where the processor has instructions for
            it.
        start: initial weights of tuning: the encoder's "adapter" (or all its weights), or "meta": the learner's own
            meta-learned copy, so that the features before tuning do not change (``train: learner``).
        outer: how meta-training updates the initial weights: by the "first_order" gradient of the query's loss, or by
            "reptile".
        learned_rates: meta-learn a factor of the rate for each weight matrix or vector; with ``outer: first_order``
            only.
    """

    steps: Annotated[int, Field(ge=0, le=10**5)] = 20
    scope: Literal["adapter", "all"] = "adapter"
    top_layers: Annotated[int, Field(ge=1, le=1000)] = 3
    loss: Literal["supervised", "cosine"] = "supervised"
    batch_size: Annotated[int, Field(ge=4, le=4096)] = 32
    longest: Annotated[int, Field(ge=8, le=10**6)] = 80
    lr: LearningRate | None = None
    weight_decay: WeightDecay = 0.01
    max_grad_norm: GradientNorm = 1.0
    temperature: Scale = 0.1
    head: str = "stacked_probe"
    head_config: Mapping[str, Any] = field(default_factory=dict)
    before: Share = 0.5
    calibrate: bool = True
    bfloat16: bool | None = None
    start: Literal["adapter", "meta"] = "adapter"
    outer: Literal["first_order", "reptile"] = "first_order"
    learned_rates: bool = False

    @model_validator(mode="after")
    def _rates_have_gradients(self) -> Self:
        if self.learned_rates and self.outer == "reptile":
            raise FewShotError(
                "learned_rates is on, but Reptile has no gradient for them; take outer='first_order'."
            )
        return self

    @model_validator(mode="after")
    def _head_solves(self) -> Self:
        head = LEARNERS.get(self.head)
        if not hasattr(head, "solve"):
            solving = [name for name in LEARNERS.names() if hasattr(LEARNERS.get(name), "solve")]
            raise FewShotError(f"head is {self.head!r}, but must be one of: {', '.join(solving)}.")
        head.config_class.from_dict(self.head_config, "head_config")
        return self


class Contrastive(Learner[ContrastiveConfig], name="contrastive"):
    """Contrastive tuning, then a head on the tuned features."""

    order_free = False

    def __init__(self, encoder: Backbone, config: ContrastiveConfig | None = None) -> None:
        super().__init__(encoder, config)
        if self.config.scope == "adapter" and not encoder.adapter:
            _attach(encoder, self.config)
        head: Any = LEARNERS.get(self.config.head)
        self.head = head(encoder, head.config_class.from_dict(self.config.head_config))
        own = fast_parameters(encoder, self.config.scope)
        self.start: nn.ParameterDict | None = None
        if self.config.start == "meta":
            self.start = nn.ParameterDict(
                {parameter_name(name): nn.Parameter(w.detach().clone()) for name, w in own.items()}
            )
        self.rates: LearnedRates | None = None
        if self.config.learned_rates:
            self.rates = LearnedRates(dict.fromkeys(own, 1.0), gain=RATE_GAIN)
            self.rates.to(encoder.device)

    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """Tuned fast weights, and the heads fitted before and after tuning."""
        start, factors = self._start(), self._factors()
        kept = self.config.scope == "all" or self.encoder.lower is not None
        with nullcontext() if kept else self.encoder.cache_frozen_layers():
            with torch.no_grad():
                state = {BEFORE + name: value for name, value in self.head.fit(support).items()}
            tuned = {name: w.detach() for name, w in self._tune(support).items()}
            with torch.no_grad():
                features = self.features(support, fast_weights(tuned))
                after = self.head.solve(features, support)
        information = state.get(BEFORE + INFORMATION)
        state = state if self.config.before else {}
        if state and information is not None and self.config.calibrate:
            state[SCALE] = scale_of(information, after[INFORMATION])
        state |= {TUNED + name: value for name, value in after.items()}
        return (first_order(tuned, start, factors) if meta else tuned) | state

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Query loss; with Reptile a surrogate whose gradient in the initial weights is initial - tuned."""
        if self.config.outer == "first_order":
            return super().query_loss(support, query)
        state = self.fit(support)
        with torch.no_grad():
            reached = query.loss(self.query_scores(state, query))
        return towards(reached, self._start(), state)

    def query_scores(self, state: State, batch: SlotBatch) -> Scores:
        """As every learner's; features before and after tuning come from the same lower layers."""
        with self.encoder.sharing_lower_layers():
            return super().query_scores(state, batch)

    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """The mixture of both heads; features before tuning are computed here."""
        after: Tensor = self.head.score(_part(TUNED, state), features, batch)
        before = _part(BEFORE, state)
        if not before:
            return after
        old = self.head.score(before, self.features(batch), batch)
        if batch.normaliser == "independent":  # a score is the log-odds of its class
            return self._mixed(F.logsigmoid(after), F.logsigmoid(old)) - self._mixed(
                F.logsigmoid(-after), F.logsigmoid(-old)
            )
        mixed = self._mixed(batch.log_probabilities(after), batch.log_probabilities(old))
        return batch.log_probabilities(mixed * state[SCALE]) if SCALE in state else mixed

    def _mixed(self, after: Tensor, before: Tensor) -> Tensor:
        """The log of the mean of two probabilities, given their logs."""
        share = torch.tensor(self.config.before, dtype=after.dtype, device=after.device)
        return torch.logaddexp(after + (1 - share).log(), before + share.log())

    def _start(self) -> Weights:
        """The initial weights of tuning, which meta-training learns."""
        own = fast_parameters(self.encoder, self.config.scope)
        if self.start is None:
            return own
        return {name: self.start[parameter_name(name)] for name in own}

    def _factors(self) -> Weights:
        """Learned factors of the rates, by weight; empty where they are not learned."""
        if self.rates is None:
            return {}
        return {name: self.rates(name).clamp_min(LEAST_FACTOR) for name in self.rates.start}

    @torch.enable_grad()
    def _tune(self, support: SlotBatch) -> State:
        examples = examples_of(support)
        examples = examples.select(examples.has_place).beginnings(self.config.longest)
        weights = differentiable_copy(self._start(), meta=False)
        steps = draws(examples, self.config.steps, self.config.batch_size, self.config.seed)
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
            factors={name: float(factor.detach()) for name, factor in self._factors().items()},
        )
        names = self._names(support)
        for draw in steps:
            descent.step(self.pair_loss(examples, draw, weights, names))
        return weights

    def _names(self, support: SlotBatch) -> tuple[Tensor, Tensor] | None:
        """Features of the labels' names before tuning, and their targets."""
        label_slots = support.select(support.label_slot_mask)
        if self.config.label_names == 0 or self.config.loss != "supervised" or label_slots.n_slots == 0:
            return None
        with torch.no_grad():
            return self.last_layer(self.features(label_slots)), label_slots.target_matrix

    def pair_loss(
        self, examples: SlotBatch, draw: Draw, weights: State, names: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The loss of a draw's pairs; each of its slots is encoded once.

        Args:
            examples: slots with targets.
            draw: indices of the step's slots, and their pairs.
            weights: fast weights that the slots are encoded with.
            names: features of label names, and their targets: samples of their classes.
        """
        chosen = torch.zeros(examples.n_slots, dtype=torch.bool)
        chosen[draw.slots] = True
        with bfloat16(self.encoder.device, self.config.bfloat16):
            features = self.last_layer(self.features(examples.select(chosen), fast_weights(weights)))
        if self.config.loss == "cosine":
            return cosine_loss(features, draw)
        if names is not None:
            features, draw = _with_names(features, draw, examples.target_matrix[draw.slots], *names)
        return supervised_loss(features, draw, self.config.temperature)


def scale_of(before: Float[Tensor, ""], tuned: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Inverse temperature of the mixture, in (0, 1].

    It falls with what tuned features seem to tell beyond those before tuning, the less those told.

    Args:
        before: information of the head before tuning about slots that it was not fitted to, at most 1.
        tuned: the same of the head after tuning, whose features were fitted to these slots too.
    """
    return torch.exp(-OVERFIT * (tuned - before).clamp_min(0) * (1 - before))


def _attach(encoder: Backbone, config: ContrastiveConfig) -> None:
    """LoRA of rank 8 on all linear modules of the top layers."""
    from peft import LoraConfig

    n_layers = int(encoder.model.config.num_hidden_layers)
    adapter = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    encoder.attach(adapter, min(config.top_layers, n_layers), config.seed)


def _part(prefix: str, state: State) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _with_names(
    features: Tensor, draw: Draw, targets: Tensor, names: Tensor, name_targets: Tensor
) -> tuple[Tensor, Draw]:
    """Adds the names of the classes in a draw: positive for slots of their class, negative for all others."""
    present = (name_targets * targets.amax(dim=0)).sum(dim=1) > 0
    rows = torch.cat([targets, name_targets[present]])
    alike = rows @ rows.T > 0
    old = len(targets)
    alike[:old, :old] = draw.alike
    different = ~alike
    different[:old, :old] = draw.different
    joined = Draw(
        slots=draw.slots, alike=alike.fill_diagonal_(False), different=different.fill_diagonal_(False)
    )
    return torch.cat([features, names[present].to(features)]), joined


def cosine_loss(features: Float[Tensor, "n d"], draw: Draw) -> Tensor:
    """Squared error of the pairs' cosine similarity to 1 or 0; positive and negative pairs have equal total weight."""
    unit = F.normalize(features, dim=-1)
    cosine = unit @ unit.T
    parts = []
    for pairs, wanted in ((draw.alike, 1.0), (draw.different, 0.0)):
        pairs = pairs.to(cosine.device)
        parts.append(((cosine - wanted).square() * pairs).sum() / pairs.sum().clamp_min(1))
    return (parts[0] + parts[1]) / 2


def supervised_loss(features: Float[Tensor, "n d"], draw: Draw, temperature: float) -> Tensor:
    """Mean negative log-probability of a slot's positives among all its pairs (Khosla et al., equation 2)."""
    unit = F.normalize(features, dim=-1)
    alike = draw.alike.to(unit.device)
    among = alike | draw.different.to(unit.device)
    lonely = ~among.any(dim=1, keepdim=True)  # its row would be empty: log-softmax over nothing
    scores = (unit @ unit.T / temperature).masked_fill(~(among | lonely), -torch.inf)
    each = scores.log_softmax(dim=1).masked_fill(~alike, 0.0).sum(dim=1)
    count = alike.sum(dim=1)
    return -(each / count.clamp_min(1)).sum() / (count > 0).sum().clamp_min(1)
