"""Questions without an answer: the threshold of a support set that has none."""

import numpy as np
import pytest
import transformers
from families import SIX, SIZE, of_family

from fewshot_nlp import FewShotQA
from fewshot_nlp.tasks.answers import BELOW, choose_threshold

NOTHING = {"text": [], "answer_start": []}


def answers(folder, learner):
    """What a model says that was adapted to questions without an answer."""
    rows = [
        {"question": f"{word} was it?", "context": "my bank lost the card", "answers": NOTHING}
        for word in ("who", "when", "where")
    ]
    qa = FewShotQA.from_pretrained(folder, learner=learner).adapt(rows)
    asked = [("who paid?", "the doctor told the judge"), ("why?", "pain"), ("which?", "my order and letter")]
    return [found["answer"] for found in qa.predict(asked)]


@pytest.mark.parametrize("learner", ["prototypical", "nearest_neighbour", "fine_tune"])
def test_a_support_without_answers_teaches_to_abstain(tiny_encoder_folder, learner):
    assert answers(tiny_encoder_folder, learner) == ["", "", ""]


@pytest.mark.parametrize(
    "config",
    [
        transformers.RobertaConfig(**SIZE, **SIX),
        transformers.ElectraConfig(**SIZE, embedding_size=32, max_position_embeddings=66),
    ],
    ids=lambda config: config.model_type,
)
def test_other_families_abstain_too(config, tiny_encoder_folder, tmp_path):
    assert answers(of_family(tmp_path, tiny_encoder_folder, config), "prototypical") == ["", "", ""]


@pytest.mark.parametrize(
    ("margins", "gains", "threshold"),
    [
        ([1.0, -2.0, -40.0], [-1.0, -1.0, -1.0], -np.inf),
        ([np.inf, np.inf], [0.0, 0.0], -np.inf),
        ([-3.0, -1.0, np.inf], [-1.0, -1.0, 0.5], -np.inf),
        ([-4.0, -3.0, -2.0, -1.0], [-1.0, -1.0, -1.0, 0.1], -4.0 - BELOW),
        ([-3.0, 1.0], [0.5, -1.0], np.inf),
        ([-3.0, -1.0], [1.0, 0.5], 0.0),
    ],
)
def test_thresholds(margins, gains, threshold):
    assert choose_threshold(np.array(margins), np.array(gains)) == threshold
