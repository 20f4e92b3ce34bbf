"""What a sampler is: an addressable stream of episodes, each a pure function of its index."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from fewshot_nlp.episode import Episode, Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.registry import Registry

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


SAMPLERS: Registry[Callable[..., TaskSampler]] = Registry("sampler", "fewshot_nlp.sampling")
"""Samplers of one data set by name; each is called as ``SAMPLERS.get(name)(dataset, **knobs)``."""


def whole(name: str, value: object, least: int) -> None:
    """Checks that a knob is a whole number of at least ``least``.

    Raises:
        FewShotError: naming the knob, its value and the bound.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise FewShotError(f"{name} is {value!r}, but must be a whole number of at least {least}.")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The knobs that all samplers of one data set share.

    Args:
        k_shot: size of the support set, at least 1; its unit is the sampler's.
        n_query: size of the query set, at least 1; its unit is the sampler's.
        seed: at least 0; other seeds give other episodes.
        n_episodes: length of the stream, at least 1; does not change any single episode.
    """

    sampler: ClassVar[str]
    k_shot: int = 5
    n_query: int = 10
    seed: int = 0
    n_episodes: int = 600

    def __post_init__(self) -> None:
        for name, least in (("k_shot", 1), ("n_query", 1), ("seed", 0), ("n_episodes", 1)):
            whole(name, getattr(self, name), least)

    def key(self) -> dict[str, Json]:
        """What, besides data, seed and index, decides an episode: all but ``seed`` and ``n_episodes``."""
        knobs = {name: value for name, value in asdict(self).items() if name not in ("seed", "n_episodes")}
        return {"sampler": self.sampler, **knobs}


def label_choice(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """The ``labels`` knob in its normal form: sorted and unique, or None for all.

    Raises:
        FewShotError: for a single text, and for no labels at all.
    """
    if labels is None:
        return None
    if isinstance(labels, str) or not labels:
        raise FewShotError(f"labels is {labels!r}, but must be a list of labels, or None for all.")
    return tuple(sorted(set(labels)))


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

    Example:
        >>> int(generator("data", {"k_shot": 5}, 0, 7).integers(100))
        68
    """
    whole("seed", seed, 0)
    whole("index", index, 0)
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
    whole("start", start, 0)
    if stop is not None:
        whole("stop", stop, start)
    return EpisodeStream(sampler, range(start, len(sampler) if stop is None else stop))
