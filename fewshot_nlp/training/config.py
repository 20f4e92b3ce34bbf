"""All settings of a meta-training run, from a YAML file and the command line; an unknown key is an error."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fewshot_nlp.arguments import read_arguments
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, LearnerConfig, learner_config
from fewshot_nlp.sampling import SAMPLERS
from fewshot_nlp.settings import Seed, Settings, Several, Share, WeightDecay
from fewshot_nlp.tasks import TASKS, Task
from fewshot_nlp.training.augmentation import Augmentation
from fewshot_nlp.training.regularisation import Regularisation
from fewshot_nlp.training.selection import Selection

AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
ShareBelowOne = Annotated[float, Field(ge=0, le=0.99)]
SHARED_KNOBS = ("k_shot", "n_query", "n_way", "seed", "n_episodes")
"""Knobs of samplers that stand beside ``options``, or are the run's."""
SAME_CORPUS = (
    frozenset({"hwu64", "liu54"}),
    frozenset({"squad_v1", "squad_v2", "xquad_de", "xquad_en", "xquad_es"}),
    frozenset({"snips_intents", "snips_slots"}),
)
"""Data sets whose rows come from one corpus: training on one of them shows the others."""


class Source(Settings):
    """Rows to draw episodes from.

    Args:
        name: a data set card's name, or the path of a file with rows.
        split: of a card; several joined by "+": "train+validation".
        labels: labels to keep; None for all. Needed where a data set has a class that is none ("oos").
        group_column: a column, such as a document's id: rows with one value stay on one side of an episode. None: the
            card's; of a file "document", where its rows have that, else the task's (questions on one context).
    """

    name: str
    split: str = "train"
    labels: Several[str] | None = None
    group_column: str | None = None


class SamplerSettings(Settings):
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
    n_way: AtLeastOne | None = 5
    k_shot: AtLeastOne | Annotated[Several[AtLeastOne], Field(min_length=1)] = 5
    n_query: AtLeastOne = 10
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def k_shots(self) -> tuple[int, ...]:
        """``k_shot`` as a tuple."""
        return (self.k_shot,) if isinstance(self.k_shot, int) else self.k_shot

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        if len(set(self.k_shots)) < len(self.k_shots):
            raise FewShotError(f"k_shot is {self.k_shot}, but must be a number, or different numbers.")
        return self


class EncoderSettings(Settings):
    """Which encoder, and how it is read; see `Encoder.from_pretrained`.

    Args:
        name: a folder, or "org/name" on the Hub; None takes the bundled one.
        layers: those whose features are read: 0 the embeddings, -1 the last, or a share of the depth, in [0, 1].
        pooling: a word's vector: the "mean" of its tokens', or the "first" one's; None takes the task's.
        max_length: tokens of a window, from 1; None takes the model's own.
        revision: branch, tag or commit on the Hub.
        dtype: of the weights; None takes float32.
    """

    name: str | None = None
    layers: Several[int | Share] = (-1,)
    pooling: Literal["mean", "first"] | None = None
    max_length: AtLeastOne | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None


class OuterLoop(Settings):
    """How the meta-parameters are moved.

    Args:
        steps: number of outer steps, from 1.
        meta_batch: episodes in an outer step, over all processes; a multiple of their number.
        lr: highest learning rate; in (0, 1e12], tens of which only make it diverge.
        optimizer: "adamw" or "sgd".
        momentum: of "sgd"; in [0, 1). 0 makes the outer step a plain one, as Reptile's is.
        weight_decay: on matrices; vectors and scalars have none; from 0.
        warmup: outer steps during which the rate rises linearly from 0; from 0.
        schedule: of the rate after the warm-up: "linear" or "cosine" to 0, or "constant".
        max_grad_norm: the outer gradient is scaled down to this norm; None for never.
        label_smoothing: share of the probability of the query's targets spread over all classes; in [0, 1).
        regularisation: dropout, labels dealt anew, names left out, the information penalty, mixed features.
    """

    steps: AtLeastOne = 200
    meta_batch: AtLeastOne = 4
    lr: Positive = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, le=0.999)] = 0.9
    weight_decay: WeightDecay = 0.01
    warmup: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    max_grad_norm: Positive | None = 1.0
    label_smoothing: ShareBelowOne = 0.0
    regularisation: Regularisation = Regularisation()

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup > self.steps:
            raise FewShotError(f"warmup is {self.warmup}, but there are only {self.steps} steps.")
        return self


class Data(Settings):
    """What training episodes are drawn from, and how.

    Args:
        sources: data sets to draw training episodes from.
        sampler: how episodes are drawn.
        mixture: how often each source is drawn: "uniform", "size", "temperature", or a weight for each name.
        temperature: above 0; with ``mixture="temperature"``: 1 is "size", larger draws small sources more.
        selection: curriculum, hard-task sampling, leakage guard, and the measure of the mixture's diversity.
        augmentation: words left out, mentions and words replaced, paraphrases, joined labels.
        targets: data sets or files that the result will be measured on; a run that trains on one of them is refused,
            and rows of the sources whose input is also theirs (but for white space, case, NFC) are left out.
        ship: whether the weights will be given away; then every source must allow it (its card says).
    """

    sources: Annotated[Several[Source], Field(min_length=1)]
    sampler: SamplerSettings = SamplerSettings()
    mixture: Literal["uniform", "size", "temperature"] | dict[str, float] = "uniform"
    temperature: float | None = None
    selection: Selection = Selection()
    augmentation: Augmentation = Augmentation()
    targets: Several[str] = ()
    ship: bool = False

    @model_validator(mode="after")
    def _sources_differ(self) -> Self:
        names = [source.name for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise FewShotError(f"{twice!r} is among the sources twice; join its splits with '+'.")
        return self


class Validation(Settings):
    """By which episodes the best model is chosen.

    Args:
        sources: data sets to draw meta-validation episodes from; none of them may be trained on.
        class_fraction: share of each training source's classes that is held out for meta-validation; in [0, 1).
        sampler: how meta-validation episodes are drawn; None: as for training.
        n_episodes: number of meta-validation episodes, always the same ones; from 2.
        every: outer steps between meta-validations, from 1.
        seed: of the meta-validation episodes, apart from ``run.seed``, so that runs can be compared.
        best_by: which figure chooses the best model: the mean meta-validation "loss" or primary "metric".
        patience: the run ends after this many meta-validations without a better one, from 1; None: never early.
    """

    sources: Several[Source] = ()
    class_fraction: ShareBelowOne = 0.0
    sampler: SamplerSettings | None = None
    n_episodes: Annotated[int, Field(ge=2)] = 40
    every: AtLeastOne = 50
    seed: Seed = 0
    best_by: Literal["loss", "metric"] = "loss"
    patience: AtLeastOne | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.sources and self.class_fraction:
            raise FewShotError("Give sources or class_fraction, not both.")
        if self.patience is not None and not (self.sources or self.class_fraction):
            raise FewShotError(
                f"patience is {self.patience} meta-validations, but there are none; give sources or class_fraction."
            )
        return self


class Run(Settings):
    """Where a run writes, how it is repeated, and what it may use.

    Args:
        output_dir: folder for ``best``, ``final``, ``checkpoints``, ``log.jsonl``, ``config.yaml``; all processes
            must see it.
        seed: of the episodes, the adapter's start and all else that is drawn at random.
        deterministic: take deterministic kernels only, and fail where there is none; on a CPU runs repeat anyway.
        cache_mb: mebibytes of memory that keep what the layers below the adapter gave for a text, so that a text met
            again costs less; from 0: keep nothing.
        gradient_checkpointing: keep no activations of the encoder's passes, but run them again for their gradient:
            less memory, for inner loops of many steps; more time.
        trackers: where else the figures go: "tensorboard", "trackio", "wandb", "mlflow"; their packages are needed.
        save_every: outer steps between checkpoints, from 1.
        keep_last: how many checkpoints are kept, from 1; 2 survive a damaged newest one.
        resume: "auto" goes on from the newest whole checkpoint in ``output_dir``; "never" wants a new folder.
    """

    output_dir: Annotated[str, Field(min_length=1)]
    seed: Seed = 0
    deterministic: bool = False
    cache_mb: Annotated[int, Field(ge=0)] = 512
    gradient_checkpointing: bool = False
    trackers: Several[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = ()
    save_every: AtLeastOne = 50
    keep_last: AtLeastOne = 2
    resume: Literal["auto", "never"] = "auto"


class MetaTrainConfig(Settings):
    """Settings of `meta_train`.

    Args:
        task: name of the task.
        task_config: its options, which `fewshot-nlp tasks` tells.
        learner: name of the learner.
        learner_config: its settings, which `fewshot-nlp learners NAME` tells.
        encoder: which encoder, and how it is read.
        adapter: a `peft.PeftConfig` as a mapping with ``peft_type``; None: none, or the learner's default.
        top_layers: put the adapter into the last k layers only; None for all.
        train: what of the encoder is meta-trained: its "adapter", "all" of it, or nothing: only what the
            "learner" owns. The learner's own parameters are trained in every case.
        data: what training episodes are drawn from, and how.
        validation: by which episodes the best model is chosen.
        outer: the outer loop.
        run: where the run writes, how it is repeated, and what it may use.

    Raises:
        SettingsError: naming each value out of its range; a data set that is a source and also measured on.
    """

    task: str
    task_config: Annotated[Task, Field(validate_default=True)] = field(default_factory=dict)  # type: ignore[assignment]
    learner: str
    learner_config: Annotated[LearnerConfig, Field(validate_default=True)] = LearnerConfig()
    encoder: EncoderSettings = EncoderSettings()
    adapter: dict[str, Any] | None = None
    top_layers: AtLeastOne | None = None
    train: Literal["adapter", "all", "learner"] = "adapter"
    data: Data
    validation: Validation = Validation()
    outer: OuterLoop = OuterLoop()
    run: Run

    @field_validator("task", "learner")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        (TASKS if info.field_name == "task" else LEARNERS).get(name)
        return name

    @field_validator("task_config", mode="before")
    @classmethod
    def _of_the_task(cls, value: Any, info: ValidationInfo) -> Any:
        if "task" not in info.data:  # an unknown one, which is told by itself
            return TASKS.get(TASKS.names()[0])()
        kind = TASKS.get(info.data["task"])
        return value if isinstance(value, kind) else kind.from_dict(value)

    @field_validator("learner_config", mode="before")
    @classmethod
    def _of_the_learner(cls, value: Any, info: ValidationInfo) -> Any:
        if "learner" not in info.data:  # an unknown one, which is told by itself
            return LearnerConfig()
        return learner_config(info.data["learner"], {} if type(value) is LearnerConfig else value)

    @model_validator(mode="after")
    def _options_of_the_samplers(self) -> Self:
        usual = TASKS.get(self.task).sampler
        for path, settings in (("data", self.data.sampler), ("validation", self.validation.sampler)):
            if settings is not None:
                kind = SAMPLERS.get(settings.name or usual)
                kind.check_options(settings.options, SHARED_KNOBS, f"{path}.sampler.options")
        return self

    @model_validator(mode="after")
    def _apart(self) -> Self:
        """No data set is both trained on and measured on."""
        sources = [source.name for source in self.data.sources]
        measured = [(s.name, "one of validation.sources") for s in self.validation.sources]
        measured += [(target, "a target") for target in self.data.targets]
        for name, role in measured:
            if name in sources:
                raise FewShotError(
                    f"{name!r} is a source and {role}: figures on it would say nothing about unseen data. "
                    "Leave it out of one, or hold out classes with validation.class_fraction."
                )
            kin = next((s for family in SAME_CORPUS if name in family for s in sources if s in family), None)
            if kin is not None:
                raise FewShotError(
                    f"{name!r} is {role}, but the source {kin!r} comes from the same corpus; leave one out."
                )
        return self


def parse_config(arguments: Sequence[str], base: Mapping[str, Any] | None = None) -> MetaTrainConfig:
    """The settings of a command line: ``--config file.yaml`` and overrides such as ``--outer.steps 2``.

    ``--allow-code`` lets them name a function that is imported. ``base`` holds settings that they override.

    Raises:
        FewShotError: a line for each unknown key and each value of a wrong type or out of range; no such file.

    Examples:
        >>> sources = '--data.sources=[{"name": "wnut17"}]'
        >>> parse_config(["--task=ner", "--learner=maml", "--run.output_dir=out", sources]).outer.meta_batch
        4
    """
    flags = [word for word in arguments if word.replace("_", "-") == "--allow-code"]
    config = read_arguments(MetaTrainConfig, [word for word in arguments if word not in flags], base)
    return config if flags else without_code(config)


def without_code(config: MetaTrainConfig) -> MetaTrainConfig:
    """The same settings.

    Raises:
        FewShotError: they name a function whose module would be imported, and so run.
    """
    hook = config.data.augmentation.paraphrase
    if isinstance(hook, str):
        raise FewShotError(
            f"data.augmentation.paraphrase is {hook!r}, whose module would be imported and run; read it first, then "
            "add --allow-code."
        )
    return config
