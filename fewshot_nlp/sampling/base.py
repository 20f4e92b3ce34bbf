"""What a sampler is: an addressable stream of episodes, each a pure function of its index."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
from pydantic import Field, field_validator

from fewshot_nlp.episode import Episode, Json, TaskDataset, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.registry import Registry
from fewshot_nlp.sampling.rows import RowIndex
from fewshot_nlp.settings import Seed, Settings, Several, check, hints_of

RESTARTS = 50
"""How often an episode that cannot be completed is begun again, with other random numbers."""


@runtime_checkable
class TaskSampler(Protocol):
    """An addressable stream of episodes.

    ``episode(i)`` is a pure function of (data set fingerprint, config, seed, i), for every i from 0 on: calls
    may come in any order, in any process. ``len()`` is how many episodes the stream is meant to have; it does
    not change what any of them is.
    """

    def episode(self, index: int) -> Episode:
        """Episode number ``index``, from 0 on."""
        ...

    def __len__(self) -> int: ...


SAMPLERS: "Registry[type[Sampler[Any]]]" = Registry("sampler", "fewshot_nlp.sampling")
"""Samplers of one data set by name; each is called as ``SAMPLERS.get(name)(dataset, **knobs)``."""
AtLeastOne = Annotated[int, Field(ge=1)]


class SamplerConfig(Settings):
    """The knobs that all samplers of one data set share.

    Args:
        k_shot: size of the support set, at least 1; its unit is the sampler's.
        n_query: size of the query set, at least 1; its unit is the sampler's.
        seed: at least 0; other seeds give other episodes.
        n_episodes: length of the stream, at least 1; does not change any single episode.
    """

    k_shot: AtLeastOne = 5
    n_query: AtLeastOne = 10
    seed: Seed = 0
    n_episodes: AtLeastOne = 600

    def key(self) -> dict[str, Json]:
        """What, besides data, seed and index, decides an episode: all but ``seed`` and ``n_episodes``."""
        return {name: value for name, value in self.to_dict().items() if name not in ("seed", "n_episodes")}


class LabelledConfig(SamplerConfig):
    """Knobs of samplers that draw labels first.

    Args:
        n_way: labels in an episode; None for all.
        labels: labels to draw from; None for all.
    """

    n_way: AtLeastOne | None = 5
    labels: Annotated[Several[str], Field(min_length=1)] | None = None

    @field_validator("labels")
    @classmethod
    def _sorted(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return labels and tuple(sorted(set(labels)))


Config = TypeVar("Config", bound=SamplerConfig)


class Sampler(ABC, Generic[Config]):
    """Base of the samplers of one data set.

    A subclass gives its name and knobs in its class line, ``class KShot(Sampler[KShotConfig], name="k_shot")``, and is
    then registered.

    Args:
        dataset: the data.
        config: the knobs.

    Attributes:
        n_examples: how many distinct examples there are to draw from.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[SamplerConfig]]
    """The class of `config`, from the class line."""

    def __init_subclass__(cls, *, name: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.name = name
        (cls.config_class,) = get_args(cls.__dict__["__orig_bases__"][0])
        SAMPLERS.add(name, cls)

    def __init__(self, dataset: TaskDataset, config: Config) -> None:
        self.dataset, self.config = dataset, config
        self._index = RowIndex(dataset)
        self.n_examples = len(self._index.rows)

    @abstractmethod
    def episode(self, index: int) -> Episode:
        """Episode number ``index``, from 0 on."""

    def __len__(self) -> int:
        return self.config.n_episodes

    def _generator(self, index: int) -> np.random.Generator:
        """The random numbers of an episode."""
        key = {"sampler": self.name, **self.config.key()}
        return generator(self.dataset.fingerprint, key, self.config.seed, index)

    @classmethod
    def check_options(cls, options: Mapping[str, Any], given: Iterable[str], path: str = "") -> None:
        """Refuses options that the sampler does not have, or whose values do not fit.

        Args:
            options: knobs by name.
            given: knobs that are set elsewhere, and are no options here.
            path: where the options stand, for messages.
        """
        known = [knob for knob in hints_of(cls.config_class) if knob not in given]
        odd = next((option for option in options if option not in known), None)
        if odd is not None:
            raise FewShotError(
                f"The sampler {cls.name} has no option {odd!r}. It has: {', '.join(known) or 'none'}."
            )
        cls.config_class.from_dict(options, path)


def generator(fingerprint: str, config: Mapping[str, Json], seed: int, index: int) -> np.random.Generator:
    """The random numbers of one episode.

    The first three arguments give, through SHA-256, the entropy of a `numpy.random.SeedSequence`; the index
    picks its child. So the numbers are the same in every process and under every ``PYTHONHASHSEED``.

    Args:
        fingerprint: the data set's.
        config: JSON values that decide an episode.
        seed: at least 0.
        index: the episode's number, at least 0.

    Raises:
        FewShotError: for a negative seed or index.

    Examples:
        >>> int(generator("data", {"k_shot": 5}, 0, 7).integers(100))
        68
    """
    check("seed", seed, Seed)
    check("index", index, Seed)
    entropy = int(sha256(canonical_json([fingerprint, dict(config), seed])), 16)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(index,)))


@dataclass(frozen=True)
class EpisodeStream:
    """Episodes made one by one, as often as one goes through them, with the seed that they were drawn by.

    Args:
        sampler: makes them.
        indices: which.
    """

    sampler: TaskSampler
    indices: range

    @property
    def seed(self) -> int | None:
        """The sampler's; None for one that does not tell."""
        return getattr(getattr(self.sampler, "config", None), "seed", None)

    def __iter__(self) -> Iterator[Episode]:
        return (self.sampler.episode(index) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def episodes(sampler: TaskSampler, start: int = 0, stop: int | None = None) -> EpisodeStream:
    """Episodes ``start`` to ``stop`` (exclusive), made one by one.

    Args:
        sampler: the stream.
        start: first index, at least 0.
        stop: end index, at least ``start``; None for ``len(sampler)``.

    Raises:
        FewShotError: for indices out of these ranges, at the call.
    """
    check("start", start, Seed)
    check("stop", stop, Annotated[int, Field(ge=start)] | None)
    return EpisodeStream(sampler, range(start, len(sampler) if stop is None else stop))
