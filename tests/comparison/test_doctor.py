import json

import numpy as np
import pytest

from fewshot_nlp import FewShotError, doctor
from fewshot_nlp.cli import main
from fewshot_nlp.comparison.diagnosis import _harm, _left_out, _log_loss

TEXTS = {
    "lost card": [
        "I lost my card",
        "My bank card was stolen",
        "Somebody took my card",
        "I cannot find my debit card",
    ],
    "opening hours": [
        "When do you open?",
        "Are you open on Sunday?",
        "What are your opening hours?",
        "How late is the shop open?",
    ],
    "weather": [
        "Will it rain today?",
        "Is it sunny in Paris?",
        "How cold will it be tomorrow?",
        "Is a storm coming?",
    ],
}
ROWS = [{"text": text, "label": label} for label, texts in TEXTS.items() for text in texts]

WRONG = {"text": "My card has been stolen from my bag", "label": "weather"}
ASKED = ["Is the shop open when it rains?", "Somebody stole my bank card"]


@pytest.fixture(scope="module")
def planted():
    twice = {"text": "when do you OPEN", "label": "opening hours"}
    other = {"text": "Will it rain today", "label": "lost card"}
    return doctor([*ROWS, WRONG, twice, other], unlabelled=ASKED)


class TestFaults:
    def test_one_input_with_two_labels(self, planted):
        [item] = planted.contradicting
        assert item["rows"] == [9, 15]
        assert item["targets"] == ['"weather"', '"lost card"']

    def test_a_row_that_repeats_another_but_for_case_and_marks(self, planted):
        assert {"rows": [5, 14], "text": "When do you open?", "similarity": 1.0} in planted.repeated

    def test_a_wrong_label_hurts_most(self):
        assert doctor([*ROWS, WRONG]).harmful[0]["row"] == 13

    def test_the_text_between_two_labels_is_labelled_first(self, planted):
        assert [item["text"] for item in planted.next] == ASKED

    def test_sound_rows_have_no_fault(self):
        found = doctor(ROWS)
        assert not found.contradicting + found.repeated + found.confused
        assert found.counts == dict.fromkeys(TEXTS, 4)

    def test_a_label_under_two_names(self):
        rows = [*ROWS, *({"text": f"{row['text']} Please tell me.", "label": "open?"} for row in ROWS[4:8])]
        assert doctor(rows).confused[0]["labels"] == ["open?", "opening hours"]


def test_the_harm_of_a_row_by_brute_force():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.arange(12) % 3

    def loss(rows, scored):
        total = []
        for i in scored:
            means = []
            for c in range(3):
                mean = x[[j for j in rows if y[j] == c and j != i]].sum(axis=0)
                means.append(mean / np.linalg.norm(mean))
            scores = 16 * np.array(means) @ x[i]
            total.append(min(np.log(np.exp(scores).sum()) - scores[y[i]], np.log(3)))
        return float(np.mean(total))

    everyone = range(12)
    found = dict(_harm(x, y, 3))
    for i in everyone:
        others = [j for j in everyone if j != i]
        expected = loss(everyone, others) - loss(others, others)
        assert found.get(i, 0.0) == pytest.approx(max(expected, 0.0), abs=1e-9)
    assert _log_loss(_left_out(x, y, 3), y).mean() == pytest.approx(loss(everyone, everyone))


def test_other_tasks_are_looked_at_for_contradictions(tiny_encoder_folder):
    rows = [{"tokens": ["give", "aspirin"], "ner_tags": ["O", tag]} for tag in ("B-DRUG", "O")]
    found = doctor(rows, task="ner", encoder=str(tiny_encoder_folder))
    assert found.contradicting[0]["rows"] == [1, 2]
    with pytest.raises(FewShotError, match="for classification"):
        doctor(rows, task="ner", encoder=str(tiny_encoder_folder), unlabelled=["a"])
    with pytest.raises(FewShotError, match="no rows"):
        doctor([], encoder=str(tiny_encoder_folder))


def test_the_command_line(tmp_path, tiny_encoder_folder, capsys):
    data, texts = tmp_path / "rows.jsonl", tmp_path / "texts.txt"
    data.write_text("\n".join(map(json.dumps, [*ROWS, ROWS[0]])))
    texts.write_text("my card\nopen today\n")
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "doctor",
                    str(data),
                    "--unlabelled",
                    str(texts),
                    "--encoder",
                    str(tiny_encoder_folder),
                    *more,
                ]
            )
        assert ended.value.code == 0
    *said, last = capsys.readouterr().out.splitlines()
    assert said[0] == "13 rows, 3 labels; fewest: opening hours 4, weather 4, lost card 5."
    assert any(line.startswith("  rows 1, 13: I lost my card") for line in said)
    assert {item["text"] for item in json.loads(last)["next"]} <= {"my card", "open today"}
