"""One stream of episodes from several, each index drawing its source by stated weights."""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling.base import AtLeastOne, TaskSampler, generator
from fewshot_nlp.settings import Seed, Settings

Weights = Literal["uniform", "size", "temperature"] | Mapping[str, float]


@runtime_checkable
class SizedSampler(TaskSampler, Protocol):
    """A sampler that knows how many distinct examples it draws from."""

    n_examples: int


class MixtureConfig(Settings):
    """Knobs of `Mixture`.

    Args:
        weights: how often each source is drawn.
        temperature: of the weights, where they have one.
        seed: of the draw of sources.
        n_episodes: length of the stream.
    """

    weights: Weights = "uniform"
    temperature: Annotated[float, Field(gt=0)] | None = None
    seed: Seed = 0
    n_episodes: AtLeastOne | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.temperature is not None) != (self.weights == "temperature"):
            raise FewShotError(
                f"temperature is {self.temperature!r} and weights is {self.weights!r}; give a temperature "
                'with weights="temperature", and only then.'
            )
        return self


class Mixture:
    """Draws the source of every episode at random, and passes its own index on to it.

    Args:
        samplers: name to source; their order does not matter.
        weights: "uniform"; "size", in proportion to the sources' examples; "temperature", to
            ``n_examples ** (1 / temperature)`` (Arivazhagan et al. 2019; 1 is "size", and above it small
            sources are drawn more); or a weight of at least 0 for each name.
        temperature: above 0; with ``weights="temperature"`` only.
        seed: at least 0; of the draw of sources, not of the sources.
        n_episodes: length of the stream, at least 1; None for the sum of the sources'.
        keys: for some names what stands for them in the draw, so that it does not depend on what a source is called.

    Attributes:
        probabilities: name to probability, sorted by what stands for the name in the draw.

    Raises:
        FewShotError: no sources, or weights that do not fit them.

    Examples:
        >>> from fewshot_nlp.episode import Example, TaskDataset
        >>> from fewshot_nlp.sampling import KShot
        >>> examples = tuple(Example({"text": f"text {i}"}, "") for i in range(8))
        >>> data = TaskDataset(name="toy", task="any", examples=examples, label_counts=({},) * 8)
        >>> sources = {"big": KShot(data, 2, 2), "small": KShot(data.take([0, 1]), 1, 1)}
        >>> Mixture(sources, "size").probabilities
        {'big': 0.8, 'small': 0.2}
    """

    def __init__(
        self,
        samplers: Mapping[str, TaskSampler],
        weights: Weights = "uniform",
        *,
        temperature: float | None = None,
        seed: int = 0,
        n_episodes: int | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.keys = {name: (keys or {}).get(name, name) for name in samplers}
        self.config = MixtureConfig(
            weights=weights, temperature=temperature, seed=seed, n_episodes=n_episodes
        )
        if not samplers:
            raise FewShotError("A mixture needs at least one sampler.")
        self.samplers = {name: samplers[name] for name in sorted(samplers, key=self.keys.__getitem__)}
        raw = self._weights()
        total = sum(raw.values())
        self.probabilities: dict[str, float] = {name: weight / total for name, weight in raw.items()}
        self._names = tuple(self.probabilities)
        drawn = {self.keys[name]: share for name, share in self.probabilities.items()}
        self._key = {"sampler": "mixture", "probabilities": drawn}
        own = self.config.n_episodes
        self._length = sum(map(len, self.samplers.values())) if own is None else own

    def _weights(self) -> dict[str, float]:
        weights = self.config.weights
        if isinstance(weights, Mapping):
            if sorted(weights) != sorted(self.samplers):
                raise FewShotError(
                    f"weights are given for {', '.join(sorted(weights))}, but the samplers are "
                    f"{', '.join(self.samplers)}; give one for each."
                )
            for name, weight in weights.items():
                if not (isfinite(weight) and weight >= 0):
                    raise FewShotError(f"The weight of {name!r} is {weight!r}, but must be at least 0.")
            if not any(weights.values()):
                raise FewShotError("All weights are 0; at least one must be above it.")
            return {name: float(weights[name]) for name in self.samplers}
        if weights == "uniform":
            return dict.fromkeys(self.samplers, 1.0)
        power = 1 / (self.config.temperature or 1)
        result = {}
        for name, sampler in self.samplers.items():
            if not isinstance(sampler, SizedSampler):
                raise FewShotError(
                    f"The sampler {name!r} has no n_examples, which weights={weights!r} needs; give a weight "
                    "for each name."
                )
            result[name] = float(sampler.n_examples) ** power
        return result

    def source(self, index: int) -> str:
        """The name of the source of episode ``index``, without making the episode."""
        rng = generator("", self._key, self.config.seed, index)
        return self._names[int(rng.choice(len(self._names), p=list(self.probabilities.values())))]

    def episode(self, index: int) -> Episode:
        """Episode number ``index`` of its source."""
        return self.samplers[self.source(index)].episode(index)

    def __len__(self) -> int:
        return self._length
