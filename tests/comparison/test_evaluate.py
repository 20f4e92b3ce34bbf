import json
import re

import numpy as np
import pytest
from toys import ROWS

from fewshot_nlp import FewShotError, evaluate
from fewshot_nlp.cli import main
from fewshot_nlp.comparison.plan import make_plan


@pytest.fixture(scope="module")
def texts():
    return ROWS["classification"](6, 0)


@pytest.fixture(scope="module")
def options(tiny_encoder_folder):
    return {"task": "classification", "encoder": str(tiny_encoder_folder), "k_shot": [1, 3], "repeats": 3}


@pytest.fixture(scope="module")
def found(texts, options):
    return evaluate(texts, learners=["prototypical", "ridge"], **options)


class TestScores:
    def test_the_majority_is_a_third_of_three_equal_labels(self, found):
        """Each fold scores a label's rows alike, so a constant guess is right for one label a fold."""
        assert found.score("majority", 3).mean == pytest.approx(1 / 3, abs=0.12)

    def test_a_learner_that_reads_the_cue_beats_it(self, found):
        gain = found.difference("ridge", 3, "majority")
        assert gain.mean > gain.half > 0

    def test_shuffled_labels_leave_nothing_to_learn(self, texts, options):
        labels = np.random.default_rng(3).permutation([row["label"] for row in texts]).tolist()
        rows = [{"text": row["text"], "label": y} for row, y in zip(texts, labels, strict=True)]
        found = evaluate(rows, learners=["ridge"], **options)
        assert found.score("ridge", 3).mean < 0.6
        assert found.difference("ridge", 3, "majority").p_value > 0.01

    def test_the_headline_names_the_best(self, found):
        assert found.best.name in found.headline
        assert f"{found.score(found.best.name, 3)}" in found.headline
        assert found.score(found.best.name, 3).mean == max(
            found.score(c.name, 3).mean for c in found.candidates
        )


@pytest.mark.parametrize("task", ["ner", "question_answering", "translation"])
def test_other_tasks(task, tiny_encoder_folder, tiny_translator_folder):
    folder = tiny_translator_folder if task == "translation" else tiny_encoder_folder
    learner = "nearest_neighbour"
    found = evaluate(
        ROWS[task](5, 0),
        task=task,
        encoder=str(folder),
        learners=[learner],
        k_shot=[2],
        repeats=3,
        max_scored=8,
    )
    assert found.score(learner, 2).n == 3
    assert str(found).startswith("Best with 2 examples")


def test_a_learner_that_refuses_is_named_with_its_reason(tiny_translator_folder):
    options = {"task": "translation", "encoder": str(tiny_translator_folder), "k_shot": [2], "repeats": 3}
    found = evaluate(ROWS["translation"](3, 0), learners=["ridge"], max_scored=4, **options)
    assert "ridge" in found.refused("ridge")
    assert f"refused: {found.refused('ridge')}" in str(found)
    assert found.best.name == "no example"


def test_questions_on_one_text_stay_in_one_fold(tiny_encoder_folder, monkeypatch):
    from fewshot_nlp.comparison import run

    seen = []
    monkeypatch.setattr(run, "make_plan", lambda data, *rest: seen.append(data) or make_plan(data, *rest))
    rows = [
        {**row, "question": f"{row['question']} {i}"}
        for i in range(2)
        for row in ROWS["question_answering"](2, 0)
    ]
    options = {"encoder": str(tiny_encoder_folder), "k_shot": [1], "repeats": 3}
    evaluate(rows, task="question_answering", learners=["nearest_neighbour"], **options)
    [data] = seen
    plan = make_plan(data, [1], 100, 0)
    for pool, tested in plan.folds(0):
        contexts = [{data.examples[row].inputs["context"] for row in part} for part in (pool, tested)]
        assert not contexts[0] & contexts[1]


class TestResuming:
    def test_cut_short_and_resumed_equals_unbroken(self, texts, options, found, tmp_path):
        path = tmp_path / "cells.jsonl"
        learners = ["prototypical", "ridge"]
        evaluate(texts, learners=learners, path=path, **options)
        lines = path.read_text().splitlines(keepends=True)
        assert len(lines) == 3 * 2 * 4
        path.write_text("".join(lines[:7]) + lines[7][:20])
        again = evaluate(texts, learners=learners, path=path, **options)
        for name in learners:
            assert again.score(name, 3) == found.score(name, 3)

    def test_other_rows_do_not_take_old_scores(self, texts, options, tmp_path):
        path = tmp_path / "cells.jsonl"
        evaluate(texts, learners=["ridge"], path=path, **options)
        before = len(path.read_text().splitlines())
        evaluate(texts[:-1], learners=["ridge"], path=path, **options)
        assert len(path.read_text().splitlines()) == 2 * before

    def test_two_processes_find_the_same(self, texts, options, found):
        twice = evaluate(texts, learners=["prototypical", "ridge"], n_jobs=2, **options)
        assert [twice.score(n, 3) for n in ("prototypical", "ridge")] == [
            found.score(n, 3) for n in ("prototypical", "ridge")
        ]


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"repeats": 1}, "repeats is 1"),
            ({"task": "clasification"}, "classification"),
            ({"learners": ["ridgee"]}, "ridge"),
            ({"learner_config": {"maml": {}}}, "'maml', which is not compared"),
            ({"group_column": "doc"}, "'doc'"),
        ],
    )
    def test_one_line(self, texts, options, change, message):
        with pytest.raises(FewShotError, match=message):
            evaluate(texts, **{"learners": ["ridge"], **options, **change})


class TestCommandLine:
    def test_rows_to_page(self, texts, tiny_encoder_folder, tmp_path, capsys):
        data, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
        data.write_text("\n".join(map(json.dumps, texts)))
        given = ["--task", "classification", "--encoder", tiny_encoder_folder, "--repeats", 3, "--page", page]
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    str(a)
                    for a in [
                        "evaluate",
                        "--data",
                        data,
                        *given,
                        "--learner",
                        "ridge",
                        "matching",
                        "--k-shot",
                        1,
                        3,
                    ]
                ]
            )
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert re.search(r"^learner +1 +3 ", said, re.MULTILINE)
        assert {"ridge", "matching", "majority"} <= set(re.findall(r"^\w+", said, re.MULTILINE))
        html = page.read_text()
        assert said.splitlines()[0].split(".")[0] in html
        assert "<svg" in html
        assert not re.findall(r"""(?:src|href)=["'](?!#)""", html)

    def test_several_learners_need_rows(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "--card", "medical_ner", "--learner", "ridge", "maml"])
        assert ended.value.code == 2
        assert "--data" in capsys.readouterr().err
