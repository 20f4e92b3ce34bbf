"""The order in which rows are given does not matter to any default, bit for bit."""

import random

import pytest
import torch

from fewshot_nlp import FewShotClassifier, FewShotNER
from fewshot_nlp.errors import FewShotError

WORDS = {
    "law": "judge law court order letter change".split(),  # noqa: SIM905
    "drug": "aspirin blood dose drug pain mg".split(),  # noqa: SIM905
    "money": "account bank card cash money pay".split(),  # noqa: SIM905
}


def texts(n: int, several: bool) -> list[dict]:
    """Rows whose label shows in one word of three, so that folds and weights depend on who is in them."""
    draw, rows = random.Random(0), []
    every = [word for words in WORDS.values() for word in words]
    for number in range(n):
        label = sorted(WORDS)[number % 3]
        words = [draw.choice(WORDS[label]), *draw.choices(every, k=2)]
        labels = [label for label, own in WORDS.items() if set(own) & set(words)]
        rows.append({"text": " ".join([*words, str(number)]), "label": labels if several else label})
    return rows


def sentences(n: int) -> list[dict]:
    draw, rows = random.Random(1), []
    for number in range(n):
        words = ["give", "the", draw.choice(WORDS["drug"]), "to", draw.choice(WORDS["law"]), str(number)]
        tags = ["O", "O", "B-DRUG", "O", draw.choice(["B-LAW", "O"]), "O"]
        rows.append({"tokens": words, "ner_tags": tags})
    return rows


CASES = {
    "default texts": (FewShotClassifier, {"learner_config": {"steps": 2}}, texts(27, False)),
    "stacked_probe": (FewShotClassifier, {"learner": "stacked_probe"}, texts(27, False)),
    "several labels": (
        FewShotClassifier,
        {"learner": "stacked_probe", "task_config": {"multi_label": True}},
        texts(27, True),
    ),
    "default words": (FewShotNER, {}, sentences(12)),
    "context_probe": (FewShotNER, {"learner": "context_probe"}, sentences(12)),
    "fine_tune": (
        FewShotClassifier,
        {
            "learner": "fine_tune",
            "learner_config": {"steps": 4, "batch_size": 8, "folds": 2, "scope": "head"},
        },
        texts(12, False),
    ),
    "turing memory": (FewShotClassifier, {"learner": "memory_augmented"}, texts(12, False)),
}


@pytest.mark.parametrize("case", CASES)
def test_five_permutations_give_the_same_model(case, tiny_encoder_folder):
    facade, options, rows = CASES[case]
    model = facade.from_pretrained(tiny_encoder_folder, **options)
    queries = [row.get("text") or row["tokens"] for row in rows[:5]]
    first = model.adapt(rows)
    state, decoding = first._model.adapted.state, first._model.decoding_parameters
    answers = model.predict(queries)
    for seed in range(5):
        other = model.adapt(random.Random(seed).sample(rows, len(rows)))
        assert other._model.adapted.state.keys() == state.keys()
        for name, value in other._model.adapted.state.items():
            assert torch.equal(value, state[name]), name
        for name, value in other._model.decoding_parameters.items():
            assert torch.equal(value, decoding[name]), name
        assert model.predict(queries) == answers


def test_a_refused_row_keeps_its_number(tiny_encoder_folder):
    rows = [
        {"text": t, "text_pair": "bank", "label": t[0]} for t in ("the card", "my law", "a " * 60, "pay me")
    ]
    model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="stacked_probe")
    with pytest.raises(FewShotError, match="Row 3: the first text of the pair has 62 tokens"):
        model.adapt(rows)
