"""Which tasks are drawn when: easy ones first, those with a high loss more often, none too near the target.

Sources: curricula that admit more and more of an ordered set of tasks, Bengio et al. 2009 and, for the linear
schedule, Platanios et al. 2019 (equation 3); harder tasks drawn more often, Liu et al. 2020 (adaptive task sampling),
with the exponential weights of Sagawa et al. 2020 (algorithm 1) on a moving mean of each source's loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling import Mixture, generator
from fewshot_nlp.settings import Settings, Share

if TYPE_CHECKING:
    from fewshot_nlp.training.config import SamplerSettings


class Selection(Settings):
    """How tasks are selected; by default every episode is drawn as ``mixture`` says, from all rows.

    Args:
        diversity_rows: rows of each source from which the mixture's diversity is measured; 0: it is not.
        curriculum: what grows: "n_way", from 2 labels on; "k_shot", from the largest support set to all sizes;
            "sources", from the first in the list, which should be the easiest, to all; or "none".
        curriculum_share: share of the outer steps after which all is drawn that is drawn without; in (0, 1].
        hard_temperature: sources are drawn in proportion to ``exp(recent loss / temperature)`` times their share of
            the mixture; above 0, lower draws hard ones more. None: by the mixture alone.
        hard_decay: of the moving mean loss of a source, per episode of it; in [0, 1).
        hard_floor: share of episodes that the mixture alone still decides, so that no source dries up; in [0, 1].
        leakage_ngram: rows of the sources that share so many words in a row with the targets (all splits but
            "train") or the meta-validation sets are left out; from 1, 8 is usual. None: only equal inputs are.
        leakage_max_share: a source that would lose more than this share of its rows is refused; in [0, 1].
        leakage_drop_sources: leave such a source out instead, and say so.

    Raises:
        FewShotError: naming a value out of its range.
    """

    diversity_rows: Annotated[int, Field(ge=0)] = 1000
    curriculum: Literal["none", "n_way", "k_shot", "sources"] = "none"
    curriculum_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    hard_temperature: Annotated[float, Field(gt=0)] | None = None
    hard_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    hard_floor: Share = 0.2
    leakage_ngram: Annotated[int, Field(ge=1)] | None = None
    leakage_max_share: Share = 0.2
    leakage_drop_sources: bool = False


def stages(
    curriculum: str,
    settings: "SamplerSettings",
    sources: Sequence[str],
    make: Callable[["SamplerSettings"], Mixture],
) -> list[Mixture]:
    """The mixtures of a curriculum, easiest first; the last one is the mixture without a curriculum.

    Args:
        curriculum: as for `Selection`.
        settings: how episodes are drawn at the end.
        sources: names of the sources, easiest first.
        make: the mixture of all sources, whose samplers are named ``<source>/<k_shot>``, under some settings.

    Raises:
        FewShotError: there is nothing that could grow.
    """
    last = make(settings)
    if curriculum == "none":
        return [last]
    if curriculum == "n_way":
        if settings.n_way is None or settings.n_way < 3:
            raise FewShotError(f"The curriculum n_way needs sampler.n_way from 3 on, not {settings.n_way}.")
        return [*(make(replace(settings, n_way=n)) for n in range(2, settings.n_way)), last]
    sizes = map(str, sorted(settings.k_shots, reverse=True))
    order = list(sizes if curriculum == "k_shot" else sources)
    if len(order) < 2:
        raise FewShotError(f"The curriculum {curriculum} needs two of them or more, not {order[0]} alone.")
    result = []
    for n in range(1, len(order)):
        names = [name for name in last.samplers if name.rsplit("/", 1)[curriculum == "k_shot"] in order[:n]]
        samplers = {name: last.samplers[name] for name in names}
        weights = {name: last.probabilities[name] for name in names}
        result.append(Mixture(samplers, weights, seed=last.config.seed, keys=last.keys))
    return [*result, last]


class SelectedTasks:
    """The stream of training episodes under a curriculum and hard-task sampling.

    ``episode(index)`` is a function of the index and of `losses`, which changes between outer steps only, by
    numbers that all processes share; so whoever restores `losses` draws the same episodes again.

    Args:
        stages: mixtures, easiest first; one alone for no curriculum.
        selection: settings.
        meta_batch: episodes in an outer step.
        outer_steps: of the whole run.

    Attributes:
        losses: the moving mean loss of each source met so far; empty without hard-task sampling.
    """

    def __init__(
        self, stages: Sequence[Mixture], selection: Selection, *, meta_batch: int, outer_steps: int
    ) -> None:
        self._stages, self._selection, self._meta_batch = tuple(stages), selection, meta_batch
        self._growing = max(1.0, selection.curriculum_share * outer_steps)
        self.losses: dict[str, float] = {}

    def mixture(self, step: int) -> Mixture:
        """The curriculum's mixture in an outer step."""
        last = len(self._stages) - 1
        return self._stages[min(last, int(step * last / self._growing))]

    def weights(self, step: int) -> dict[str, float]:
        """The probability of each ``<source>/<k_shot>`` in an outer step."""
        plain, selection = self.mixture(step).probabilities, self._selection
        if selection.hard_temperature is None or not self.losses:
            return plain
        top = max(self.losses.values())  # a source not met yet counts as the hardest, so that it is met soon
        raw = {
            name: p * exp((self.losses.get(_source(name), top) - top) / selection.hard_temperature)
            for name, p in plain.items()
        }
        floor, total = selection.hard_floor, sum(raw.values())
        if not total:  # the hardest source has no weight or is not admitted yet, and all others underflow
            return plain
        return {name: floor * p + (1 - floor) * raw[name] / total for name, p in plain.items()}

    def shares(self, step: int) -> dict[str, float]:
        """The probability of each source in an outer step."""
        result: dict[str, float] = {}
        for name, weight in self.weights(step).items():
            result[_source(name)] = result.get(_source(name), 0.0) + weight
        return result

    def source(self, index: int) -> str:
        """The data set of episode ``index``."""
        return _source(self._sampler(index))

    def episode(self, index: int) -> Episode:
        """Episode number ``index``."""
        return self.mixture(index // self._meta_batch).samplers[self._sampler(index)].episode(index)

    def learn(self, step: int, losses: Sequence[float]) -> None:
        """Takes in the losses of an outer step's episodes, in their order."""
        if self._selection.hard_temperature is None:
            return
        first, decay = step * self._meta_batch, self._selection.hard_decay
        sources = [self.source(first + i) for i in range(len(losses))]
        for source, loss in zip(sources, losses, strict=True):
            self.losses[source] = decay * self.losses.get(source, loss) + (1 - decay) * loss

    def _sampler(self, index: int) -> str:
        step = index // self._meta_batch
        if self._selection.hard_temperature is None:
            return self.mixture(step).source(index)
        weights = self.weights(step)  # not in the generator: a rounding error must not change the draw
        drawn = generator("", {"sampler": "hard"}, self.mixture(step).config.seed, index).random()
        place = int(np.searchsorted(np.cumsum(list(weights.values())), drawn, side="right"))
        return list(weights)[min(place, len(weights) - 1)]

    def __len__(self) -> int:
        return len(self._stages[-1])


def _source(sampler: str) -> str:
    return sampler.rpartition("/")[0]
