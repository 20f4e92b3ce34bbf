"""All settings of a meta-training run, from a YAML file and the command line; an unknown key is an error."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal, TypeVar

from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling.base import whole
from fewshot_nlp.training.augmentation import Augmentation
from fewshot_nlp.training.regularisation import Regularisation
from fewshot_nlp.training.selection import Selection

Settings = TypeVar("Settings")

SAME_CORPUS = (
    frozenset({"hwu64", "liu54"}),
    frozenset({"squad_v1", "squad_v2", "xquad_de", "xquad_en", "xquad_es"}),
    frozenset({"snips_intents", "snips_slots"}),
)
"""Data sets whose rows come from one corpus: training on one of them shows the others."""
TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows to draw episodes from.

    Args:
        name: a data set card's name, or the path of a file with rows.
        split: of a card; several joined by "+": "train+validation".
        labels: labels to keep; None for all. Needed where a data set has a class that is none ("oos").
    """

    name: str
    split: str = "train"
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How episodes are drawn from each source.

    Args:
        name: a sampler's; None takes the task's: n_way_k2k_shot for ner, n_way_k_shot for classification,
            k_shot for others.
        n_way: labels in an episode, from 1; None for all. A source with fewer labels gives all that it has.
        k_shot: support size, in the sampler's unit, from 1; a list draws each episode's from it.
        n_query: query size, in the sampler's unit, from 1.
        options: further knobs of the sampler, such as ``query: rows``.
    """

    name: str | None = None
    n_way: int | None = 5
    k_shot: int | tuple[int, ...] = 5
    n_query: int = 10
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def k_shots(self) -> tuple[int, ...]:
        """``k_shot`` as a tuple."""
        return (self.k_shot,) if isinstance(self.k_shot, int) else self.k_shot

    def __post_init__(self) -> None:
        if self.n_way is not None:
            whole("sampler.n_way", self.n_way, 1)
        whole("sampler.n_query", self.n_query, 1)
        if not self.k_shots or len(set(self.k_shots)) < len(self.k_shots):
            raise FewShotError(
                f"sampler.k_shot is {self.k_shot}, but must be a number, or different numbers."
            )
        for k in self.k_shots:
            whole("sampler.k_shot", k, 1)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Which encoder, and how it is read; arguments as for `Encoder.from_pretrained`."""

    name: str | None = None
    layers: tuple[int, ...] = (-1,)
    pooling: Literal["mean", "first"] | None = None
    max_length: int | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """Settings of `meta_train`.

    Args:
        task: name of the task.
        task_config: its options.
        learner: name of the learner.
        learner_config: its settings.
        encoder: which encoder, and how it is read.
        adapter: a `peft.PeftConfig` as a mapping with ``peft_type``; None: none, or the learner's default.
        top_layers: put the adapter into the last k layers only; None for all.
        train: what of the encoder is meta-trained: its "adapter", "all" of it, or nothing: only what the
            "learner" owns. The learner's own parameters are trained in every case.
        sources: data sets to draw training episodes from.
        sampler: how episodes are drawn.
        mixture: how often each source is drawn: "uniform", "size", "temperature", or a weight for each name.
        temperature: above 0; with ``mixture="temperature"``: 1 is "size", larger draws small sources more.
        selection: curriculum, hard-task sampling, leakage guard, and the measure of the mixture's diversity.
        val_sources: data sets to draw meta-validation episodes from; none of them may be a source.
        val_class_fraction: share of each source's classes that is held out for meta-validation; in [0, 1).
        val_sampler: how meta-validation episodes are drawn; None: as for training.
        n_val_episodes: number of meta-validation episodes, always the same ones; from 2.
        val_every: outer steps between meta-validations, from 1.
        val_seed: seed of the meta-validation episodes, apart from ``seed``, so that runs can be compared.
        best_by: which figure chooses the best model: the mean meta-validation "loss" or primary "metric".
        patience: the run ends after this many meta-validations without a better one, from 1; None: never early.
        targets: data sets that the result will be measured on; a run that trains on one of them is refused.
        ship: whether the weights will be given away; then every source must allow it (its card says).
        outer_lr: highest learning rate of the outer loop; in (0, 1e12], tens of which only make it diverge.
        optimizer: "adamw" or "sgd".
        momentum: of "sgd"; in [0, 1). 0 makes the outer step a plain one, as Reptile's is.
        weight_decay: on matrices; vectors and scalars have none; from 0.
        warmup: outer steps during which the rate rises linearly from 0; from 0.
        schedule: of the rate after the warm-up: "linear" or "cosine" to 0, or "constant".
        meta_batch: episodes in an outer step, over all processes; a multiple of their number.
        outer_steps: number of outer steps, from 1.
        max_grad_norm: the outer gradient is scaled down to this norm; None for never.
        label_smoothing: share of the probability of the query's targets spread over all classes; in [0, 1).
        regularisation: dropout, labels dealt anew, names left out, the information penalty, mixed features.
        augmentation: words left out, mentions and words replaced, paraphrases, joined labels.
        cache_mb: mebibytes of memory that keep what the layers below the adapter gave for a text, so that a text met
            again costs less; from 0: keep nothing.
        cache_folder: folder that keeps them on disk too, for later runs and for more texts than memory holds.
        gradient_checkpointing: keep no activations of the encoder's passes, but run them again for their gradient:
            less memory, for inner loops of many steps; more time.
        seed: of the episodes, the adapter's start and all else that is drawn at random.
        deterministic: take deterministic kernels only, and fail where there is none; on a CPU runs repeat anyway.
        trackers: where else the figures go: "tensorboard", "trackio", "wandb", "mlflow"; their packages are needed.
        output_dir: folder for ``best``, ``final``, ``checkpoints``, ``log.jsonl``, ``config.yaml``; all processes
            must see it.
        save_every: outer steps between checkpoints, from 1.
        keep_last: how many checkpoints are kept, from 1; 2 survive a damaged newest one.
        resume: "auto" goes on from the newest whole checkpoint in ``output_dir``; "never" wants a new folder.

    Raises:
        FewShotError: naming a value out of its range, or a data set that is a source and also measured on.
    """

    task: str
    learner: str
    sources: tuple[Source, ...]
    output_dir: str
    task_config: dict[str, Any] = field(default_factory=dict)
    learner_config: dict[str, Any] = field(default_factory=dict)
    encoder: EncoderSettings = EncoderSettings()
    adapter: dict[str, Any] | None = None
    top_layers: int | None = None
    train: Literal["adapter", "all", "learner"] = "adapter"
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    mixture: Literal["uniform", "size", "temperature"] | dict[str, float] = "uniform"
    temperature: float | None = None
    selection: Selection = field(default_factory=Selection)
    val_sources: tuple[Source, ...] = ()
    val_class_fraction: float = 0.0
    val_sampler: SamplerSettings | None = None
    n_val_episodes: int = 40
    val_every: int = 50
    val_seed: int = 0
    best_by: Literal["loss", "metric"] = "loss"
    patience: int | None = None
    targets: tuple[str, ...] = ()
    ship: bool = False
    outer_lr: float = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.01
    warmup: int = 0
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    meta_batch: int = 4
    outer_steps: int = 200
    max_grad_norm: float | None = 1.0
    label_smoothing: float = 0.0
    regularisation: Regularisation = field(default_factory=Regularisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    cache_mb: int = 512
    cache_folder: str | None = None
    gradient_checkpointing: bool = False
    seed: int = 0
    deterministic: bool = False
    trackers: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    save_every: int = 50
    keep_last: int = 2
    resume: Literal["auto", "never"] = "auto"

    def __post_init__(self) -> None:
        for name in ("n_val_episodes", "val_every", "meta_batch", "outer_steps", "save_every", "keep_last"):
            whole(name, getattr(self, name), 2 if name == "n_val_episodes" else 1)
        for name in ("val_seed", "warmup", "seed", "cache_mb"):
            whole(name, getattr(self, name), 0)
        for name in ("top_layers", "patience"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        if self.patience is not None and not (self.val_sources or self.val_class_fraction):
            raise FewShotError(
                f"patience is {self.patience} meta-validations, but there are none; give val_sources or "
                "val_class_fraction."
            )
        _number("outer_lr", self.outer_lr, 0.0, 1e12, open_low=True)
        _number("momentum", self.momentum, 0.0, 0.999)
        _number("weight_decay", self.weight_decay, 0.0, 10.0)
        _number("label_smoothing", self.label_smoothing, 0.0, 0.99)
        _number("val_class_fraction", self.val_class_fraction, 0.0, 0.99)
        if self.max_grad_norm is not None:
            _number("max_grad_norm", self.max_grad_norm, 0.0, 1e12, open_low=True)
        if self.warmup > self.outer_steps:
            raise FewShotError(f"warmup is {self.warmup}, but there are only {self.outer_steps} outer_steps.")
        for name, known in (
            ("train", ("adapter", "all", "learner")),
            ("best_by", ("loss", "metric")),
            ("optimizer", ("adamw", "sgd")),
            ("schedule", ("linear", "constant", "cosine")),
            ("resume", ("auto", "never")),
        ):
            if getattr(self, name) not in known:
                raise FewShotError(
                    f"{name} is {getattr(self, name)!r}, but must be one of: {', '.join(known)}."
                )
        odd = next((name for name in self.trackers if name not in TRACKERS), None)
        if odd is not None:
            raise FewShotError(f"trackers has {odd!r}, but must be of: {', '.join(TRACKERS)}.")
        if not self.sources:
            raise FewShotError("sources is empty; name at least one data set to draw episodes from.")
        if not self.output_dir:
            raise FewShotError("output_dir is empty; name a folder.")
        self._check_apart()

    def _check_apart(self) -> None:
        """No data set is both trained on and measured on."""
        sources = [source.name for source in self.sources]
        twice = next((name for name in sources if sources.count(name) > 1), None)
        if twice is not None:
            raise FewShotError(f"{twice!r} is among the sources twice; join its splits with '+'.")
        measured = [(s.name, "a val_source") for s in self.val_sources] + [
            (t, "a target") for t in self.targets
        ]
        for name, role in measured:
            if name in sources:
                raise FewShotError(
                    f"{name!r} is a source and {role}: figures on it would say nothing about unseen data. "
                    "Leave it out of one, or hold out classes with val_class_fraction."
                )
            kin = next((s for family in SAME_CORPUS if name in family for s in sources if s in family), None)
            if kin is not None:
                raise FewShotError(
                    f"{name!r} is {role}, but the source {kin!r} comes from the same corpus; leave one out."
                )
        if self.val_sources and self.val_class_fraction:
            raise FewShotError("Give val_sources or val_class_fraction, not both.")

    def to_json(self) -> dict[str, Json]:
        """The settings as JSON."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def parse_config(arguments: Sequence[str]) -> MetaTrainConfig:
    """The settings of a command line: ``--config file.yaml`` and overrides such as ``--outer_steps 2``.

    Raises:
        FewShotError: one line, for an unknown key, a value of a wrong type or out of range, or no such file.

    Example:
        >>> sources = '--sources=[{"name": "wnut17"}]'
        >>> parse_config(["--task=ner", "--learner=maml", "--output_dir=out", sources]).meta_batch
        4
    """
    return parse_as(MetaTrainConfig, arguments)


def parse_as(kind: type[Settings], given: Sequence[str] | Mapping[str, Json]) -> Settings:
    """Settings of some kind from a command line, or from JSON; errors as for `parse_config`."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with settings")
    parser.add_class_arguments(kind)
    try:
        parsed = (
            parser.parse_object(dict(given)) if isinstance(given, Mapping) else parser.parse_args(list(given))
        )
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # renamed in 4.49
        values = dict(instantiate(parsed))
    except jsonargparse.ArgumentError as error:
        raise FewShotError(" ".join(str(error).split())) from error
    values.pop("config", None)
    return kind(**values)


def _plain(value: Any) -> Json:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not good or not low <= value <= high or (open_low and value == low):  # type: ignore[operator]
        where = f"above {low:g}, to {high:g}" if open_low else f"from {low:g} to {high:g}"
        raise FewShotError(f"{name} is {value!r}, but must be a number {where}.")
