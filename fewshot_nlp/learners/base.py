"""What a learner is: two functions.

``fit`` turns a support batch into a state, a dictionary of tensors; ``score`` turns a state and the slots'
features into scores. The rest follows: an adapted model is a state, saving it means saving tensors, and the
meta-loss is the query set's loss under the state fitted to the support set, differentiated through ``fit``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Generic, cast, get_args

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypeVar

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.backbone.head import HeadUse, split
from fewshot_nlp.errors import FewShotError, ScienceError
from fewshot_nlp.modules.state import State, fast_weights
from fewshot_nlp.registry import Registry
from fewshot_nlp.settings import Seed, Settings, Share
from fewshot_nlp.slots import OUTSIDE, Features, MetaContext, Scores, SlotBatch

NameWeight = Annotated[float, Field(ge=0, le=100)]
"""Weight of a label's name as a support row."""


class LearnerConfig(Settings):
    """Settings of a learner; each learner has its own subclass.

    Args:
        label_names: weight of the labels' names (or descriptions) as extra support rows; 0 leaves them out.
        head_weight: weight w of the encoder's trained head of label names, where it has one. The head's
            log-probability counts w / sqrt(number of labels), the learner's the rest; 0 leaves the head out.
        seed: of all random draws of the learner.
    """

    label_names: NameWeight = 1.0
    head_weight: Share = 0.4
    seed: Seed = 0


LEARNERS: "Registry[type[Learner]]" = Registry("learner", "fewshot_nlp.learners")
"""All learners by name."""

Config = TypeVar("Config", bound=LearnerConfig, default=LearnerConfig, covariant=True)


class Learner(nn.Module, ABC, Generic[Config]):
    """Base of all learners; its own parameters (a temperature, a meta-learned head) are meta-parameters.

    A subclass gives its name and settings in its class line, ``class Ridge(Learner[RidgeConfig], name="ridge")``, and
    is then registered.

    Args:
        encoder: the backbone; shared, so its weights are not part of this module's ``state_dict``.
        config: the learner's settings.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[LearnerConfig]] = LearnerConfig
    """The class of `config`, from the class line."""

    meta_learns: ClassVar[bool] = True
    """Whether ``fit`` can be differentiated, so that the meta-loss trains the encoder through it."""

    head_use: ClassVar[HeadUse] = "mixed"
    """How the learner uses the backbone's head, where there is one."""

    order_free: ClassVar[bool] = True
    """Whether `fit` is independent of the order of the slots, up to rounding; if not, `Pipeline.support` sorts."""

    def __init_subclass__(cls, *, name: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__dict__.get("__orig_bases__", ()):
            for config in get_args(base):
                if isinstance(config, type) and issubclass(config, LearnerConfig):
                    cls.config_class = config
        if name is not None:
            cls.name = name
            LEARNERS.add(name, cls)

    def __init__(self, encoder: Backbone, config: Config | None = None) -> None:
        super().__init__()
        self.__dict__["encoder"] = encoder
        self.config: Config = config if config is not None else cast(Config, self.config_class())

    encoder: Backbone

    @abstractmethod
    def fit(self, support: SlotBatch, *, meta: bool = False) -> State:
        """The state adapted to a support set.

        Args:
            support: slots with targets; those that `Hints.label_slots` marks are label names.
            meta: keep the result differentiable in the encoder's parameters and the learner's own.
        """

    @abstractmethod
    def score(self, state: State, features: Features, batch: SlotBatch) -> Scores:
        """Scores (unnormalised log-probabilities) of slots under a state.

        Args:
            state: what `fit` returned.
            features: the encoder's vectors of the batch's slots.
            batch: the slots; its targets, where it has any, must not be used.
        """

    def adapt(self, support: SlotBatch, names: SlotBatch | None = None) -> "Adapted":
        """The model adapted to a support set; the encoder's own weights stay as they are.

        Args:
            support: slots with targets.
            names: slots of the labels' names, for a head that reads them; None leaves the head out.
        """
        if support.n_slots == 0:
            raise FewShotError(
                "The support set is empty; give at least one example, or descriptions of labels."
            )
        self.check_head()
        head = self.encoder.head
        with torch.no_grad(), self.encoder.as_loaded():
            held = {} if head is None or names is None else head.fit(self.encoder, names, support)
            no_example = bool(support.label_slot_mask.all())  # the head's scores then stand for themselves
            state = held if held and no_example else {**self.fit(support), **held}
        bad = next((key for key, value in state.items() if not torch.isfinite(value).all()), None)
        if bad is not None:
            raise ScienceError(
                f"{self.name}: {bad} became NaN or infinite while adapting to {len(support.items)} examples; "
                "lower the learning rate or the number of steps."
            )
        return Adapted(self, {key: value.detach() for key, value in state.items()})

    def check_state(self, state: State) -> None:
        """Raises `FewShotError` where a state, such as a loaded one, lacks a tensor."""

    def grow(self, state: State) -> None:
        """Makes the next `adapt` add to this state instead of replacing it; most learners refuse."""
        raise FewShotError(
            f"{self.name} learns each task alone and cannot grow; take the learner progressive."
        )

    def initial_state(self) -> State | None:
        """The state without any example; None where the head comes from the support set only."""
        return {} if self.encoder.vocabulary is not None and self.head_use == "built_on" else None

    @property
    def knows_the_rest(self) -> bool:
        """Whether the trained weights can score a class without an example and a name, such as "no entity"."""
        return self.initial_state() is not None

    def meta_loss(self, support: SlotBatch, query: SlotBatch, context: MetaContext = OUTSIDE) -> Tensor:
        """Meta-loss of one episode: `query_loss`, with a context that both batches carry.

        Args:
            support: slots with targets.
            query: slots with targets.
            context: of meta-training; its label smoothing applies to the query set only.
        """
        self.check_head()
        plain = replace(context, label_smoothing=0.0)
        return self.query_loss(replace(support, meta=plain), replace(query, meta=context))

    def query_loss(self, support: SlotBatch, query: SlotBatch) -> Tensor:
        """Loss of the query set under the state fitted to the support set; differentiable."""
        state = self.fit(support, meta=True)
        return query.loss(self.query_scores(state, query))

    def query_scores(self, state: State, batch: SlotBatch) -> Scores:
        """Scores of a batch's slots: features with the state's fast weights, then `scores_of`."""
        if not split(state)[0]:
            return self.scores_of(state, self.features(batch, fast_weights(state)), batch)
        features, view = self.encoder.views(batch, fast_weights(state))
        return self.scores_of(state, self._sound(features, batch), batch, view)

    def scores_of(
        self,
        state: State,
        features: Features,
        batch: SlotBatch,
        view: Float[Tensor, "n_slots hidden"] | None = None,
    ) -> Scores:
        """Scores of slots from features: the learner's, combined with those of the backbone's head, if it was fitted.

        Args:
            state: what `fit` returned, and what the head's `fit` returned.
            features: the encoder's vectors of the batch's slots, with the state's fast weights.
            batch: the slots.
            view: input of the head, from `Backbone.views`; None where it is the features.
        """
        head, (held, own) = self.encoder.head, split(state)
        prior = (
            None if head is None else head.scores(held, features if view is None else view, fast_weights(own))
        )
        return (
            self.score(own, features, batch) if prior is None else self.joined(state, features, batch, prior)
        )

    def joined(
        self,
        state: State,
        features: Features,
        batch: SlotBatch,
        prior: Scores,
    ) -> Scores:
        """The learner's scores combined with the head's; the head's alone where the learner's state is empty."""
        head, (held, own) = self.encoder.head, split(state)
        if head is None or not own:
            return prior
        return head.join(prior, lambda b: self.score(own, features, b), batch, held, self.config.head_weight)

    def check_head(self) -> None:
        """Raises `FewShotError` for a backbone with a vocabulary head, unless the learner builds on it."""
        if self.encoder.vocabulary is not None and self.head_use != "built_on":
            others = [name for name in LEARNERS.names() if LEARNERS.get(name).head_use == "built_on"]
            raise FewShotError(
                f"{self.name} gives scores to the classes of its support set only, but here every token of a "
                f"vocabulary is a class, most of which no support set shows; take a learner that builds on the "
                f"model's own distribution: {', '.join(others)}."
            )

    def features(
        self, batch: SlotBatch, weights: Mapping[str, Tensor] | None = None, **options: Any
    ) -> Tensor:
        """The encoder's features, checked to be finite, and perturbed by `MetaContext.disturb` in meta-training."""
        return self._sound(self.encoder.features(batch, weights, **options), batch)

    def last_layer(self, features: Features) -> Float[Tensor, "n_slots hidden"]:
        """The columns of the features that come from the last of the layers that are read."""
        return features[:, -(features.shape[1] // len(self.encoder.layers)) :]

    def _sound(self, features: Tensor, batch: SlotBatch) -> Tensor:
        if not torch.isfinite(features.sum()) and not torch.isfinite(features).all():
            rows = int((~torch.isfinite(features).all(dim=1)).sum())
            raise ScienceError(
                f"{self.name}: the encoder gave NaN or infinite features for {rows} of {batch.n_slots} slots; "
                "its weights are damaged, or dtype has too small a range (try float32)."
            )
        disturb = batch.meta.disturb
        return features if disturb is None else disturb(batch, features)


def learner_config(learner: str, given: Mapping[str, Any] | LearnerConfig, path: str = "") -> LearnerConfig:
    """The settings of a learner.

    Args:
        learner: its name.
        given: a mapping as in YAML, or an instance of the learner's settings class, which is returned as it is.
        path: where the settings stand, for error messages.

    Raises:
        FewShotError: unknown learner, a setting out of its bounds, or the settings of another learner.
    """
    kind = LEARNERS.get(learner).config_class
    if isinstance(given, kind):
        return given
    if isinstance(given, LearnerConfig):
        raise FewShotError(f"{learner} takes a {kind.__name__}, but was given a {type(given).__name__}.")
    return kind.from_dict(given, path)


class Adapted:
    """A learner with a fitted state.

    Args:
        learner: the learner that fitted the state.
        state: what `Learner.fit` returned.
    """

    def __init__(self, learner: Learner, state: State) -> None:
        learner.check_state(state)
        self.learner = learner
        self.state = state

    @torch.no_grad()
    def scores(self, batch: SlotBatch) -> Scores:
        """Scores of the slots of a batch; targets are not used."""
        with self.learner.encoder.as_loaded():
            return self.learner.query_scores(self.state, batch)

    def generate(self, batch: SlotBatch, **options: Any) -> list[list[int]]:
        """Token ids that a sequence-to-sequence model generates for each window, by the learner's scores at each step.

        Args:
            batch: windows with their sources, without slots.
            options: of `VocabularyHead.generate`.
        """
        vocabulary = self.learner.encoder.vocabulary
        if vocabulary is None:
            raise TypeError("only a model with a head for a whole vocabulary generates")

        def score(features: Tensor, prior: Tensor) -> Tensor:
            rows = replace(batch, spans=batch.spans[:0], groups=torch.arange(len(features)))
            return self.learner.joined(self.state, features, rows, prior)

        with self.learner.encoder.as_loaded():
            return vocabulary.generate(batch, score, fast_weights(self.state), **options)

    @property
    def bytes(self) -> int:
        """Bytes of the state: the memory of this task without the shared encoder."""
        return sum(value.nbytes for value in self.state.values())
