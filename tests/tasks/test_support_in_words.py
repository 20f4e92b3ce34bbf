"""Support sets whose size is counted in words, as in Meta-MT (Sharaf et al. 2020)."""

import numpy as np
import pytest

from fewshot_nlp.episode import Example, TaskDataset
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling import SAMPLERS, KShot


def data(n_rows: int = 900, groups: tuple[str, ...] = ()) -> TaskDataset:
    """Row i has 1 to 20 words."""
    lengths = np.random.default_rng(0).integers(1, 21, n_rows)
    examples = tuple(
        Example({"text": " ".join([f"w{i}", *["word"] * (n - 1)])}, "x") for i, n in enumerate(lengths)
    )
    return TaskDataset(name="toy", task="any", examples=examples, label_counts=({},) * n_rows, groups=groups)


def words(examples: tuple[Example, ...]) -> list[int]:
    return [len(e.inputs["text"].split()) for e in examples]


def test_four_thousand_words_and_not_a_row_more() -> None:
    sampler = KShot(data(), 4000, 20, unit="words", seed=3)
    sizes = set()
    for index in range(4):
        episode = sampler.episode(index)
        counts = words(episode.support)
        assert 4000 <= sum(counts) < 4020
        assert len(episode.query) == 20
        assert not {e.inputs["text"] for e in episode.support} & {e.inputs["text"] for e in episode.query}
        sizes.add(len(counts))
        assert episode.episode_id == f"toy/4000-words/seed-3/{index}"
    assert len(sizes) > 1
    assert sampler.episode(1) == SAMPLERS.get("k_shot")(
        data(), k_shot=4000, n_query=20, unit="words", seed=3
    ).episode(1)


def test_groups_stay_whole() -> None:
    groups = tuple(str(i // 30) for i in range(300))
    grouped = data(300, groups)
    group_of = dict(zip((e.inputs["text"] for e in grouped.examples), groups, strict=True))
    episode = KShot(grouped, 1200, 10, unit="words").episode(0)
    assert sum(words(episode.support)) >= 1200
    support, query = ({group_of[e.inputs["text"]] for e in part} for part in (episode.support, episode.query))
    assert not support & query


def test_rows_are_drawn_as_before() -> None:
    sampler = KShot(data(), 5, 4)
    assert sampler.config.key() == {"k_shot": 5, "n_query": 4}
    assert sampler.episode(0) == KShot(data(), 5, 4, unit="rows").episode(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "tokens"}, "unit is 'tokens', but must be one of: rows, words"),
        (
            {"unit": "words", "k_shot": 10**6},
            "A support of 1000000 words with 4 queries cannot be had: toy has",
        ),
        ({"unit": "words", "k_shot": 5, "n_query": 900}, "in 900 distinct examples"),
    ],
)
def test_what_cannot_be_had(options: dict[str, object], message: str) -> None:
    with pytest.raises(FewShotError, match=message):
        KShot(data(), **{"k_shot": 5, "n_query": 4, **options})  # type: ignore[arg-type]
