"""The episodes of a data set card: which split, which sampler, how many labels."""

from dataclasses import asdict, dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from fewshot_nlp.sampling import TaskSampler
    from fewshot_nlp.sources import DatasetCard


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How episodes are drawn from a card's rows; every field is one command-line option."""

    card: str
    split: str
    k_shot: int
    n_query: int
    n_episodes: int
    seed: int
    n_way: int | None = None
    """None for all labels."""
    labels: tuple[str, ...] | None = None
    """Labels to draw from; None for all."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further knobs of the sampler."""

    def to_json(self, sampler: "TaskSampler") -> dict[str, Any]:
        """The protocol with the sampler that it led to."""
        name = getattr(getattr(sampler, "config", None), "sampler", type(sampler).__name__)
        return {**asdict(self), "n_way": "all" if self.n_way is None else self.n_way, "sampler": name}


def choose_split(card: "DatasetCard", split: str | None) -> str:
    """The split that is asked for; else "test" where the card has one, else its last."""
    if split is not None:
        return split
    return "test" if "test" in card.splits else list(card.splits)[-1]


def choose_ways(card: "DatasetCard", n_way: str | None, n_labels: int | None = None) -> int | None:
    """The number of labels that is asked for; else 5 for classification, and None (all) for other tasks.

    Args:
        card: the data set.
        n_way: what stands on the command line.
        n_labels: number of labels to draw from; None for all of the card.
    """
    from fewshot_nlp.cli.arguments import n_way as parse
    from fewshot_nlp.tasks import TASKS

    if n_way is not None:
        return parse(n_way)
    usual = TASKS.get(card.task).usual_ways
    return None if usual is None else min(usual, n_labels or len(card.labels))


def make_sampler(card: "DatasetCard", protocol: Protocol) -> "TaskSampler":
    """The sampler of a card's task over the rows of a split.

    Raises:
        FewShotError: the rows cannot be had, or the data has too few examples for the protocol.
    """
    from fewshot_nlp.sampling import SAMPLERS
    from fewshot_nlp.sources import load_rows
    from fewshot_nlp.tasks import TASKS

    task = TASKS.get(card.task).of_languages(card.language)
    dataset = task.dataset(
        load_rows(card.name, protocol.split), card.name, card.domain, group_column=card.group_column
    )
    knobs: dict[str, Any] = {
        "k_shot": protocol.k_shot,
        "n_query": protocol.n_query,
        "seed": protocol.seed,
        "n_episodes": protocol.n_episodes,
    }
    if task.has_labels:
        knobs |= {"n_way": protocol.n_way, "labels": protocol.labels}
    elif protocol.n_way is not None or protocol.labels is not None:
        raise FewShotError(f"{card.name} is for {card.task}, without labels; leave --n-way and --label out.")
    name = task.sampler
    make = SAMPLERS.get(name)
    known = [key for key in signature(make).parameters if key not in ("dataset", *knobs)]
    for option in protocol.options:
        if option not in known:
            raise FewShotError(
                f"The sampler {name} has no option {option!r}. It has: {', '.join(known) or 'none'}."
            )
    return make(dataset, **knobs, **protocol.options)
