"""Questions without an answer: the threshold of a support set that has none."""

import numpy as np
import pytest

from fewshot_nlp import FewShotQA
from fewshot_nlp.tasks.answers import BELOW, choose_threshold

NOTHING = {"text": [], "answer_start": []}


@pytest.mark.parametrize("learner", ["prototypical", "nearest_neighbour", "fine_tune"])
def test_a_support_without_answers_teaches_to_abstain(tiny_encoder_folder, learner):
    rows = [
        {"question": f"{word} was it?", "context": "my bank lost the card", "answers": NOTHING}
        for word in ("who", "when", "where")
    ]
    qa = FewShotQA.from_pretrained(tiny_encoder_folder, learner=learner).adapt(rows)
    asked = [("who paid?", "the doctor told the judge"), ("why?", "pain"), ("which?", "my order and letter")]
    assert [found["answer"] for found in qa.predict(asked)] == ["", "", ""]


@pytest.mark.parametrize(
    ("margins", "gains", "threshold"),
    [
        ([1.0, -2.0, -40.0], [-1.0, -1.0, -1.0], -np.inf),
        ([np.inf, np.inf], [0.0, 0.0], -np.inf),
        ([-3.0, -1.0, np.inf], [-1.0, 0.5, 0.0], -3.0 - BELOW),
        ([-3.0, -1.0], [1.0, 0.5], 0.0),
    ],
)
def test_thresholds(margins, gains, threshold):
    assert choose_threshold(np.array(margins), np.array(gains)) == threshold
