"""Causes of mistakes on toy rows whose answers are known."""

import json

import pytest
from toys import ROWS

from fewshot_nlp import FewShotError
from fewshot_nlp.cli import main
from fewshot_nlp.comparison import find_mistakes
from fewshot_nlp.episode import read_episodes
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training.recipes import own_recipe


@pytest.fixture(scope="module")
def planted():
    """Rows with a label that the text does not tell, so that no learner can have it right."""
    rows = ROWS["classification"](8, 0)
    return [
        {**row, "label": "law" if row["label"] == "money" and i % 2 else row["label"]}
        for i, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def found(planted, tiny_encoder_folder):
    return find_mistakes(
        planted, task="classification", learner="ridge", encoder=str(tiny_encoder_folder), k_shot=2, repeats=2
    )


def test_each_row_is_predicted_once_in_a_repeat(found, planted):
    assert len(found.scored) == 2 * len(planted)
    wrong = [s for s in found.scored if s.example.target != s.predicted]
    assert sum(n for _, n in found.causes) == len(wrong) > 0
    assert all(s.score == 0 for s in wrong)
    assert found.about[0][1] == max(
        (f"{s.example.target} -> {s.predicted}" for s in wrong),
        key=[f"{s.example.target} -> {s.predicted}" for s in wrong].count,
    )


def test_groups_divide_the_predictions(found):
    for trait in found.scored[0].traits:
        mine = [group for group in found.groups() if group[0] == trait]
        assert sum(n for _, _, n, _, _ in mine) == len(found.scored)
        mean = sum(n * mean for _, _, n, mean, _ in mine) / len(found.scored)
        assert mean == pytest.approx(sum(s.score for s in found.scored) / len(found.scored))


def test_worst_episodes_are_a_source_of_training(found, tmp_path):
    path = tmp_path / "worst.jsonl"
    number = found.write_worst(path, n=2)
    assert number == len(path.read_text().splitlines())
    assert f"{number} rows" in own_recipe("classification", [str(path)])
    episodes, _ = read_episodes(tmp_path / "worst.episodes.jsonl")
    assert episodes == [episode for _, episode in found.worst(2)]
    scores = [score for score, _ in found.worst(99)]
    assert scores == sorted(scores)


def test_the_command_marks_entities_on_its_page(tmp_path, tiny_encoder_folder, capsys):
    data, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
    data.write_text("\n".join(map(json.dumps, ROWS["ner"](5, 0))))
    options = [
        "--task",
        "ner",
        "--learner",
        "prototypical",
        "--encoder",
        str(tiny_encoder_folder),
        "--k_shot",
        "2",
    ]
    with pytest.raises(SystemExit, match="0"):
        main(["errors", str(data), *options, "--repeats", "1", "--page", str(page), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert set(said["causes"]) <= {"boundary", "type", "both", "missed", "invented"}
    assert said["headline"].split(":")[0] in page.read_text()
    assert '<mark class="' in page.read_text()


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        (("the blue card", 4), "card", ["boundary"]),
        (("the blue card", 4), "The blue card!", []),
        (("card", 1), "", ["missed"]),
        (None, "card", ["invented"]),
        (("card", 1), "bank", ["elsewhere"]),
        (None, "", []),
    ],
)
def test_answers(gold, predicted, kinds):
    def target(text, start=0):
        return {"text": [text] if text else [], "answer_start": [start] if text else []}

    found = TASKS.get("question_answering")().mistakes(target(*(gold or ("",))), target(predicted))
    assert [kind for kind, _ in found] == kinds


def test_several_labels():
    task = TASKS.get("classification")(multi_label=True)
    assert task.mistakes(["a", "b"], ["b", "c"]) == [("missed", "a"), ("invented", "c")]


def test_a_learner_that_refuses_is_one_line(tiny_translator_folder):
    options = {"encoder": str(tiny_translator_folder), "learner": "ridge", "k_shot": 2, "repeats": 1}
    with pytest.raises(FewShotError, match="ridge could not be adapted: "):
        find_mistakes(ROWS["translation"](3, 0), task="translation", **options)
