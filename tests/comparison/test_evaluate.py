import json
import re
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import make_tiny_encoder
from sklearn.model_selection import StratifiedKFold
from toys import ROWS

from fewshot_nlp import FewShotError, evaluate
from fewshot_nlp.cli import main
from fewshot_nlp.comparison.own_rows import own_rows
from fewshot_nlp.comparison.plan import Plan, make_plan
from fewshot_nlp.models import FewShotModel


@pytest.fixture(scope="module")
def texts():
    return ROWS["classification"](6, 0)


@pytest.fixture(scope="module")
def options(tiny_encoder_folder):
    return {
        "task": "classification",
        "encoder": str(tiny_encoder_folder),
        "k_shot": [1, 3],
        "repeats": 3,
        "budget": None,
    }


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
        budget=None,
    )
    assert found.score(learner, 2).n == 3
    assert str(found).startswith("Best with 2 examples")


def test_a_learner_that_refuses_is_named_with_its_reason(tiny_translator_folder):
    options = {
        "task": "translation",
        "encoder": str(tiny_translator_folder),
        "k_shot": [2],
        "repeats": 3,
        "budget": None,
    }
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
    options = {"encoder": str(tiny_encoder_folder), "k_shot": [1], "repeats": 3, "budget": None}
    evaluate(rows, task="question_answering", learners=["nearest_neighbour"], **options)
    [data] = seen
    plan = make_plan(data, [1], 100, 0)
    for pool, tested in plan.folds(1, 0):
        contexts = [{data.examples[row].inputs["context"] for row in part} for part in (pool, tested)]
        assert not contexts[0] & contexts[1]


class TestResuming:
    def test_cut_short_and_resumed_equals_unbroken(self, texts, options, found, tmp_path):
        path = tmp_path / "cells.jsonl"
        learners = ["prototypical", "ridge"]
        evaluate(texts, learners=learners, path=path, **options)
        lines = path.read_text().splitlines(keepends=True)
        assert len(lines) == 1 + 3 * 2 * 4 * 2  # a first line; repeats, sizes, candidates, folds
        path.write_text("".join(lines[:7]) + lines[7][:20])
        again = evaluate(texts, learners=learners, path=path, **options)
        for name in learners:
            assert again.score(name, 3) == found.score(name, 3)

    def test_another_run_is_refused_and_another_learner_is_not(self, texts, options, tmp_path):
        path = tmp_path / "cells.jsonl"
        evaluate(texts, learners=["ridge"], path=path, **options)
        before = path.read_bytes()
        with pytest.raises(FewShotError, match=r"another run \(another rows\)"):
            evaluate(texts[:-1], learners=["ridge"], path=path, **options)
        with pytest.raises(FewShotError, match=r"another run \(another seed\)"):
            evaluate(texts, learners=["ridge"], path=path, seed=1, **options)
        assert path.read_bytes() == before
        evaluate(texts, learners=["prototypical"], path=path, **options)
        assert path.read_bytes().startswith(before)

    @pytest.mark.parametrize("text", ['{"text": "a", "label": "b"}\n', "hello\nworld\n", "\xff\x00"])
    def test_a_file_of_something_else_stays_as_it_is(self, texts, options, tmp_path, text):
        path = tmp_path / "rows.jsonl"
        path.write_text(text)
        with pytest.raises(FewShotError, match="is no file of results"):
            evaluate(texts, learners=["ridge"], path=path, **options)
        assert path.read_text() == text

    @pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
    def test_two_processes_cut_short_and_resumed_equal_one(self, texts, options, found, tmp_path, backend):
        cluster = nullcontext()
        if backend == "dask":  # one for both runs
            cluster = pytest.importorskip("distributed").Client(
                n_workers=2, threads_per_worker=1, dashboard_address=None
            )
        elif backend == "ray":
            pytest.importorskip("ray")
        path, learners = tmp_path / "cells.jsonl", ["prototypical", "ridge"]
        with cluster:
            evaluate(texts, learners=learners, path=path, n_jobs=2, backend=backend, **options)
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(lines[:9]))
            again = evaluate(texts, learners=learners, path=path, n_jobs=2, backend=backend, **options)
        for name in learners:
            assert again.score(name, 3) == found.score(name, 3)

    def test_a_backend_that_is_not_installed_is_told_with_the_remedy(self, texts, options, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(FewShotError, match=r'pip install "fewshot_nlp\[ray\]"'):
            evaluate(texts, learners=["ridge"], backend="ray", **options)
        with pytest.raises(FewShotError, match=r"no backend 'spark'\. Known: loky, dask, ray"):
            evaluate(texts, learners=["ridge"], backend="spark", **options)


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"repeats": 1}, "repeats is 1"),
            ({"repeats": 3.5}, "repeats is 3.5"),
            ({"k_shot": [0]}, "k_shot is"),
            ({"k_shot": [1.5]}, "k_shot is"),
            ({"k_shot": "1"}, "k_shot is"),
            ({"k_shot": [500]}, r"k_shot=\["),
            ({"max_scored": 0}, "max_scored is 0"),
            ({"n_jobs": 0}, "n_jobs is 0"),
            ({"budget": -1.0}, "budget is -1"),
            ({"path": "."}, "is a folder"),
            ({"task": "clasification"}, "classification"),
            ({"learners": ["ridgee"]}, "ridge"),
            ({"learner_config": {"maml": {}}}, "'maml', which is not compared"),
            ({"group_column": "doc"}, "'doc'"),
        ],
    )
    def test_one_line(self, texts, options, change, message):
        with pytest.raises(FewShotError, match=message):
            evaluate(texts, **{"learners": ["ridge"], **options, **change})

    def test_no_rows_and_one_label(self, texts, options):
        with pytest.raises(FewShotError, match="no rows"):
            evaluate([], learners=["ridge"], **options)
        with pytest.raises(FewShotError, match="All rows have the label 'law'"):
            evaluate([{**row, "label": "law"} for row in texts], learners=["ridge"], **options)


class TestPlantedFaults:
    def test_repeated_rows_are_told_of_and_change_no_score(self, texts, options, found):
        again = evaluate([*texts, texts[0], texts[4]], learners=["ridge"], **options)
        assert again.score("ridge", 3) == found.score("ridge", 3)
        assert "2 of 20 rows repeat the input of an earlier one and are left out." in again.notes

    def test_a_sentence_written_twice_never_stands_on_both_sides(self, texts, tiny_encoder_folder):
        task = FewShotModel.from_pretrained(tiny_encoder_folder, task="classification").pipeline.task
        twice = [*texts, *({**row, "text": f"{row['text'].upper()} !"} for row in texts)]
        data, notes = own_rows(task, twice, None)
        assert notes == ["18 rows differ from another by case, marks or spaces alone; they stay on one side."]
        plan = make_plan(data, [3], 100, 0)
        for _, episode in plan.parts(3, 0):
            sides = [
                {e.inputs["text"].casefold().strip(" !") for e in s} for s in (episode.support, episode.query)
            ]
            assert not sides[0] & sides[1]

    def test_a_scored_row_in_the_support_set_is_refused(self, texts, options, monkeypatch):
        monkeypatch.setattr(
            Plan, "support", lambda self, pool, k, repeat, fold: list(range(len(self.dataset)))
        )
        with pytest.raises(FewShotError, match="query inputs are also in the support set"):
            evaluate(texts, learners=["ridge"], **options)

    def test_a_divided_group_is_refused(self, texts, options, monkeypatch):
        monkeypatch.setattr("fewshot_nlp.comparison.plan.StratifiedGroupKFold", StratifiedKFold)
        rows = [{**row, "doc": i % 5} for i, row in enumerate(texts)]
        with pytest.raises(FewShotError, match="would be learned from and scored at once"):
            evaluate(rows, learners=["ridge"], group_column="doc", **options)

    def test_shuffled_labels_are_told_of(self, texts, options):
        rows = [
            {**row, "label": texts[(i * 7 + i // 3) % len(texts)]["label"]} for i, row in enumerate(texts)
        ]
        assert "nothing is learned" in evaluate(rows, learners=["ridge"], **options).headline

    def test_a_record_that_was_changed_is_computed_again(self, texts, options, found, tmp_path, caplog):
        path = tmp_path / "cells.jsonl"
        evaluate(texts, learners=["ridge"], path=path, **options)
        first, record, *rest = path.read_text().splitlines()
        changed = json.loads(record)
        changed["predicted"] = changed["gold"]
        path.write_text("\n".join([first, json.dumps(changed), *rest]) + "\n")
        again = evaluate(texts, learners=["ridge"], path=path, **options)
        assert "1 results are not as they were written" in caplog.text
        assert again.score("ridge", 3) == found.score("ridge", 3)

    def test_a_metric_of_another_definition_does_not_come_from_the_file(
        self, texts, options, tmp_path, monkeypatch
    ):
        """Records hold predictions: scores follow the metric as it is now."""
        path = tmp_path / "cells.jsonl"
        evaluate(texts, learners=["ridge"], path=path, **options)
        monkeypatch.setattr(
            "fewshot_nlp.tasks.classification.single_label_scores", lambda *_: {"accuracy": 0.25}
        )
        assert evaluate(texts, learners=["ridge"], path=path, **options).score("ridge", 3).mean == 0.25

    def test_other_weights_take_no_record_of_these(self, texts, options, tmp_path):
        path = tmp_path / "cells.jsonl"
        evaluate(texts, learners=["ridge"], path=path, **options)
        before = len(path.read_text().splitlines())
        other = {**options, "encoder": str(make_tiny_encoder(tmp_path / "other", seed=1))}
        evaluate(texts, learners=["ridge"], path=path, **other)
        assert len(path.read_text().splitlines()) == 2 * before - 1


class TestTime:
    def test_learners_on_one_encoder_share_it_and_its_features(self, found):
        shared = {id(c.pipeline().learner.encoder) for c in found.candidates}
        assert len(shared) == 1
        assert shared.pop() == id(found.candidates[0].pipeline().learner.encoder)

    def test_a_small_budget_makes_less_and_says_so(self, texts, options):
        found = evaluate(texts, learners=["ridge"], **{**options, "repeats": 9, "budget": 0.01})
        assert found.score("ridge", found.shots[-1]).n == 3
        assert any(
            "examples were left out and only 9 rows, of one half, are scored" in n for n in found.notes
        )
        assert any(note.startswith("3 of 9 repeats were made: one takes about") for note in found.notes)
        assert "held out" in found.protocol


class TestCommandLine:
    def test_rows_to_page(self, texts, tiny_encoder_folder, tmp_path, capsys):
        data, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
        data.write_text("\n".join(map(json.dumps, texts)))
        given = ["--task", "classification", "--encoder", tiny_encoder_folder, "--repeats", 3, "--page", page]
        given += ["--budget", "null"]
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
        assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", html)

    def test_several_learners_need_rows(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "--card", "medical_ner", "--learner", "ridge", "maml"])
        assert ended.value.code == 2
        assert "--data" in capsys.readouterr().err
