"""What the values of rows may be: the one rule, told by the libraries that people's rows come from."""

import json
import logging
import re
from enum import StrEnum

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.metrics.ner import entity_scores
from fewshot_nlp.rows import (
    as_label,
    as_labels,
    as_list,
    as_offset,
    as_text,
    read_each,
    records,
    sorted_labels,
)
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tasks.label_words import readable
from fewshot_nlp.tasks.spans import checked_spans

TEXTS = [("my card was lost", 10), ("send a new card", 10), ("an order of the court", 2), ("the judge", 2)]
HALF, OTHER = "\ud83d", "\ude00"


class Colour(StrEnum):
    RED = "red"


@pytest.fixture
def clf(tiny_encoder_folder):
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")


@pytest.fixture
def ner(tiny_encoder_folder):
    return FewShotNER.from_pretrained(tiny_encoder_folder)


class TestLabels:
    @pytest.mark.parametrize(
        ("value", "label"),
        [
            ("a", "a"),
            (np.str_("a"), "a"),
            (Colour.RED, "red"),
            (3, 3),
            (np.int64(3), 3),
            (np.uint8(0), 0),
            ("7", "7"),
        ],
    )
    def test_a_label_is_a_text_or_a_whole_number(self, value, label):
        found = as_label(value, "'label'")
        assert (found, type(found)) == (label, type(label))

    @pytest.mark.parametrize(
        "value",
        [
            *(None, float("nan"), pd.NA, pd.NaT),
            *("", " \n", b"a"),
            *(True, np.bool_(False), 1.0, np.float32(2)),
            *(["a"], ("a",), {"a": 1}, {"a"}, np.array(["a"])),
        ],
        ids=repr,
    )
    def test_anything_else_is_refused_with_row_and_value(self, clf, value):
        rows = [{"text": text, "label": label} for text, label in TEXTS]
        rows[2]["label"] = value
        with pytest.raises(
            FewShotError, match=r"^Row 3: 'label' is .* of type \w+, but a label is a text"
        ) as caught:
            clf.adapt(rows)
        assert repr(value).split("\n")[0][:10] in str(caught.value)

    def test_numbers_come_back_as_numbers_in_their_natural_order(self, clf, tmp_path):
        rows = [{"text": text, "label": np.int64(label)} for text, label in TEXTS]
        clf.adapt(rows, labels={2: "law", 10: "a card"})
        assert clf.labels == [2, 10]
        assert set(map(type, clf.predict([text for text, _ in TEXTS]))) == {int}
        assert clf.evaluate(rows).keys() >= {"accuracy", "f1[2]", "f1[10]"}
        folder = clf.save_pretrained(tmp_path / "model")
        again = FewShotClassifier.from_pretrained(folder)
        assert (again.labels, again.descriptions) == ([2, 10], {2: "law", 10: "a card"})
        np.testing.assert_array_equal(again.predict_proba(["a card"]), clf.predict_proba(["a card"]))

    def test_numbers_are_predicted_as_their_names_would_be(self, tiny_encoder_folder):
        def adapted(name):
            made = FewShotClassifier.from_pretrained(
                tiny_encoder_folder, learner="prototypical", learner_config={"label_names": 0.0}
            )
            return made.adapt([{"text": text, "label": name(label)} for text, label in TEXTS])

        numbers, texts = adapted(int), adapted(lambda label: f"{label:02}")
        np.testing.assert_array_equal(numbers.predict_proba(["a"]), texts.predict_proba(["a"]))

    def test_numbers_beside_texts_are_refused(self, clf):
        with pytest.raises(FewShotError, match=r"Some labels are texts \('2'\), others numbers \(10\)"):
            clf.adapt([{"text": text, "label": "2" if label == 2 else label} for text, label in TEXTS])
        assert sorted_labels([10, 9, 10]) == (9, 10)

    @pytest.mark.parametrize(
        "labels",
        [
            [[1, 0, 0], [0, 1, 1], [0, 0, 0]],
            [[1, 0], [0, 1], [1, 0]],
            [np.array([0, 0]), np.array([1, 1]), [0, 1]],
        ],
    )
    def test_multi_hot_rows_are_refused(self, tiny_encoder_folder, labels):
        clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, task_config={"multi_label": True})
        with pytest.raises(FewShotError, match="multi-hot"):
            clf.adapt([{"text": text, "labels": row} for text, row in zip("abc", labels, strict=True)])

    def test_multi_hot_of_scikit_learn_is_refused_and_its_classes_are_not(self, tiny_encoder_folder):
        from sklearn.preprocessing import MultiLabelBinarizer

        names = [["card"], ["card", "law"], []]
        hot = MultiLabelBinarizer().fit_transform(names)
        clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, task_config={"multi_label": True})
        with pytest.raises(FewShotError, match="multi-hot"):
            clf.fit(["a", "b", "c"], np.concatenate([hot, hot[:, :1]], axis=1))
        assert clf.fit(["a", "b", "c"], names).labels == ["card", "law"]

    def test_several_labels_each_by_the_rule(self):
        assert as_labels(np.array([3, 1]), "'labels'") == [1, 3]
        assert as_labels(["b", "a", "b"], "'labels'") == ["a", "b"]
        for bad in (None, "a", ["a", None], ["a", True], ["a", 1], {"a": 1}):
            with pytest.raises(FewShotError):
                as_labels(bad, "'labels'")

    def test_rows_without_any_label(self, tiny_encoder_folder):
        for learner in ("contrastive", "stacked_probe"):
            clf = FewShotClassifier.from_pretrained(
                tiny_encoder_folder, learner=learner, task_config={"multi_label": True}
            )
            clf.adapt(
                [{"text": "my card", "labels": []}, {"text": "the law", "labels": []}], labels=["a", "b"]
            )
            assert np.isfinite(clf.predict_proba(["my card"])).all()

    @pytest.mark.parametrize("depth", ["column", "list", "struct", "list of structs"])
    def test_class_labels_of_datasets_however_deep(self, depth):
        label = datasets.ClassLabel(names=["PER", "LOC"])
        feature, value, expected = {
            "column": (label, 1, "LOC"),
            "list": (datasets.List(label), [0, 1], ["PER", "LOC"]),
            "struct": ({"of": label, "n": datasets.Value("int64")}, {"of": 0, "n": 0}, {"of": "PER", "n": 0}),
            "list of structs": (
                [{"label": label}],
                [{"label": 1}, {"label": 0}],
                [{"label": "LOC"}, {"label": "PER"}],
            ),
        }[depth]
        table = datasets.Dataset.from_list([{"x": value}], features=datasets.Features({"x": feature}))
        assert read_rows(table) == [{"x": expected}]

    def test_a_number_without_a_name_is_told_with_its_row(self):
        features = datasets.Features({"spans": [{"label": datasets.ClassLabel(names=["PER"])}]})
        table = datasets.Dataset.from_list(
            [{"spans": [{"label": 0}]}, {"spans": [{"label": -1}]}], features=features
        )
        with pytest.raises(FewShotError, match=r"Row 2: the column 'spans' holds -1, but its 1 names"):
            read_rows(table)

    @pytest.mark.parametrize("bad", [None, float("nan"), "", 0, np.int64(1), ["PER"], True], ids=repr)
    def test_a_span_is_labelled_by_a_text(self, ner, bad):
        with pytest.raises(FewShotError, match="Row 1: 'label' of span 1 is"):
            ner.adapt([{"text": "Anna lives", "spans": [{"start": 0, "end": 4, "label": bad}]}])

    @pytest.mark.parametrize("scheme", ["io", "bio"])
    def test_types_that_look_like_tags_are_names(self, tiny_encoder_folder, scheme):
        """The same sentences with other names in the same order: the same features, hence the same scores."""
        names = {"odd": ["B-cell", "I-94", "O"], "plain": ["X", "Y", "Z"]}
        found = {}
        for kind, (a, b, c) in names.items():
            ner = FewShotNER.from_pretrained(
                tiny_encoder_folder, learner="prototypical", task_config={"scheme": scheme}
            )
            ner.adapt(
                [
                    {"tokens": ["take", "aspirin", "now"], "ner_tags": ["O", f"B-{a}", f"I-{a}"]},
                    {"tokens": ["the", "judge", "paid", "cash"], "ner_tags": ["O", f"B-{b}", "O", f"B-{c}"]},
                ],
                labels={a: "pain", b: "law", c: "money"},
            )
            assert ner.labels == [a, b, c]
            entities = ner.predict(["give the judge cash and aspirin now"])[0]
            found[kind] = [
                (names[kind].index(e["entity_group"]), e["start"], e["end"], e["score"]) for e in entities
            ]
        assert found["odd"] == found["plain"]
        assert found["odd"]

    def test_scores_of_types_that_seqeval_would_change(self):
        gold = [["B--x-", "I--x-", "O", "B-x"], ["B-micro avg", "O", "B-O", "I-O"]]
        plain = [["B-A", "I-A", "O", "B-B"], ["B-C", "O", "B-D", "I-D"]]
        guess = [["B-x", "O", "O", "B-x"], ["B-micro avg", "O", "B-O", "O"]]
        other = [["B-B", "O", "O", "B-B"], ["B-C", "O", "B-D", "O"]]
        names = {"-x-": "A", "x": "B", "micro avg": "C", "O": "D"}
        odd = {k: v for k, v in entity_scores(gold, guess).items() if "[" not in k}
        expected = entity_scores(plain, other)
        assert odd == {k: v for k, v in expected.items() if "[" not in k}
        each = {k: v for k, v in entity_scores(gold, guess).items() if "[" in k}
        assert each == {f"f1[{name}]": expected[f"f1[{plain_name}]"] for name, plain_name in names.items()}

    @pytest.mark.parametrize("label", ["-", "_", "- _", "7"])
    def test_a_name_without_a_word_stays_itself(self, clf, label):
        assert readable(label) == label
        clf.adapt([{"text": text, "label": label if of == 2 else "x"} for text, of in TEXTS])
        assert set(clf.labels) == {label, "x"}


class TestNumbersAndArrays:
    @pytest.mark.parametrize("value", [4, np.int32(4), np.uint8(4), 4.0, np.float64(4)], ids=repr)
    def test_offsets_are_whole_numbers(self, value):
        assert (as_offset(value, "start"), type(as_offset(value, "start"))) == (4, int)

    @pytest.mark.parametrize(
        "value", [4.5, True, np.bool_(True), None, float("nan"), float("inf"), "4", [4]], ids=repr
    )
    def test_other_offsets_are_refused_with_row_and_value(self, ner, tiny_encoder_folder, value):
        with pytest.raises(FewShotError, match=r"^Row 1: 'end' of span 1 is .* must be a whole number"):
            ner.adapt([{"text": "Anna lives", "spans": [{"start": 0, "end": value, "label": "PER"}]}])
        row = {
            "question": "who",
            "context": "so Anna",
            "answers": {"text": ["Anna"], "answer_start": [value]},
        }
        with pytest.raises(FewShotError, match=r"^Row 1: an answer_start is .* must be a whole number"):
            FewShotQA.from_pretrained(tiny_encoder_folder).adapt([row])

    def test_parquet_and_pandas_give_what_lists_give(self, tmp_path):
        """Every nested column comes back from Parquet as numpy arrays."""
        rows = {
            "ner": [
                {"tokens": ["Anna", "lives"], "ner_tags": ["B-PER", "O"]},
                {"tokens": ["so"], "ner_tags": ["O"]},
            ],
            "question_answering": [
                {"question": "who", "context": "so Anna", "answers": {"text": ["Anna"], "answer_start": [3]}}
            ],
            "classification": [{"text": "a", "label": "x"}],
            "translation": [{"translation": {"de": "Haus", "en": "house"}}],
        }
        options = {"translation": {"source": "de", "target": "en"}}
        for name, given in rows.items():
            path = tmp_path / f"{name}.parquet"
            pq.write_table(pa.Table.from_pylist(given), path)
            task = TASKS.get(name)(**options.get(name, {}))
            expected = task.examples(given)
            for table in (
                pd.read_parquet(path),
                pq.read_table(path),
                pd.read_parquet(path).to_dict("records"),
            ):
                assert task.examples(read_rows(table, name)) == expected

    @pytest.mark.parametrize("form", ["list", "array", "struct of lists"])
    def test_spans_in_every_form(self, form):
        spans = [{"start": 0, "end": 4, "label": "PER"}, {"start": 8, "end": 14, "label": "LOC"}]
        columns = {key: [span[key] for span in spans] for key in spans[0]}
        given = {"list": spans, "array": np.array(spans, object), "struct of lists": columns}[form]
        assert checked_spans(given) == spans
        floats = pd.DataFrame(spans).astype({"start": float, "end": float}).to_dict("records")
        assert checked_spans(floats) == spans

    def test_lists_of_other_libraries(self):
        for value in (
            [1, 2],
            (1, 2),
            np.array([1, 2]),
            pd.Series([1, 2]),
            pa.array([1, 2]),
            pa.scalar([1, 2]).values,
        ):
            assert as_list(value) == [1, 2]
        for value in ("ab", b"ab", {"a": 1}, 3, np.int64(3), None, np.zeros((2, 2))):
            assert as_list(value) is None

    def test_tables_in_adapt_predict_and_evaluate(self, clf):
        frame = pd.DataFrame({"id": range(4), "text": [t for t, _ in TEXTS], "label": [y for _, y in TEXTS]})
        frame["text_pair"] = [np.nan] * 4
        clf.adapt(frame)
        expected = clf.predict([text for text, _ in TEXTS])
        for table in (frame, pa.Table.from_pandas(frame), datasets.Dataset.from_pandas(frame), frame["text"]):
            assert clf.predict(table) == expected
        assert clf.evaluate(frame)["accuracy"] == np.mean(
            [a == b for a, b in zip(expected, frame["label"], strict=True)]
        )
        assert records(frame)[0]["text"] == TEXTS[0][0]
        with pytest.raises(FewShotError, match="Input 1: there is no column 'text'"):
            clf.predict(frame.rename(columns={"text": "utterance"}))

    @pytest.mark.parametrize("form", ["list", "array", "column", "frame", "series"])
    def test_fit_takes_what_scikit_learn_takes(self, clf, form):
        texts, labels = [t for t, _ in TEXTS], [y for _, y in TEXTS]
        x, y = {
            "list": (texts, labels),
            "array": (np.array(texts), np.array(labels)),
            "column": (np.array(texts)[:, None], np.array(labels)),
            "frame": (pd.DataFrame({"utterance": texts}), pd.DataFrame({"target": labels})),
            "series": (pd.Series(texts), pd.Series(labels, dtype="category")),
        }[form]
        clf.fit(x, y)
        assert clf.labels == [2, 10]
        assert [e.inputs["text"] for e in clf._examples] == texts
        assert clf.predict(np.array(texts)[:, None]) == clf.predict(texts)

    def test_fit_names_the_row_that_is_no_text(self, clf):
        for bad in (None, float("nan"), pd.NA, 3):
            with pytest.raises(FewShotError, match="Row 2: "):
                clf.fit(["a", bad, "b"], ["x", "y", "y"])
        with pytest.raises(FewShotError, match=r"a table with the columns a, b; pass one column"):
            clf.fit(pd.DataFrame({"a": ["x"], "b": ["y"]}), ["x"])


class TestTexts:
    @pytest.mark.parametrize(
        "text", [f"cut {HALF} emoji", f"{OTHER}{HALF}", f"a{HALF}", json.loads('"\\udead"')]
    )
    def test_half_a_pair_becomes_the_replacement_character(self, text):
        mended = as_text(text, "text")
        assert len(mended) == len(text)
        assert mended == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") or OTHER in text
        mended.encode("utf-8")

    def test_every_task_reads_halves_and_says_so(self, tiny_folders, caplog):
        bad = f"cut {HALF} it"
        models = {
            FewShotClassifier: ([{"text": bad, "label": "a"}, {"text": "b", "label": "b"}], [bad]),
            FewShotNER: ([{"tokens": ["Anna", bad], "ner_tags": ["B-PER", "O"]}], [bad, ["a", bad]]),
            FewShotQA: (
                [{"question": bad, "context": bad, "answers": {"text": [f"{HALF} it"], "answer_start": [4]}}],
                [("who", bad)],
            ),
            FewShotTranslator: ([{"translation": {"xx": bad, "en": bad}}], [bad]),
        }
        for kind, (rows, inputs) in models.items():
            backbone = "seq2seq" if kind is FewShotTranslator else "encoder"
            model = kind.from_pretrained(tiny_folders[backbone], learner="nearest_neighbour")
            with caplog.at_level(logging.WARNING, logger="fewshot_nlp"):
                caplog.clear()
                model.adapt(rows)
                assert "Row 1: half a surrogate pair, read as U+FFFD (1 of" in caplog.text
                caplog.clear()
                assert len(model.predict(inputs)) == len(inputs)
                assert f"(half a surrogate pair, read as U+FFFD ({len(inputs)} of" in caplog.text.replace(
                    ": ", " ("
                )

    def test_numbers_of_what_was_mended_and_left_empty(self, caplog):
        task = TASKS.get("classification")()
        with caplog.at_level(logging.WARNING, logger="fewshot_nlp"):
            found = task.queries(["a", "", HALF, " \n"])
        assert [query is None for query in found] == [False, True, False, True]
        assert "Input 3: half a surrogate pair, read as U+FFFD (1 of 4)." in caplog.text
        assert "Input 2, 4: empty, so nothing is predicted (2 of 4)." in caplog.text

    def test_an_empty_text_abstains_and_leaves_its_neighbours_as_they_are(self, tiny_folders):
        clf = FewShotClassifier.from_pretrained(tiny_folders["encoder"], learner="prototypical")
        clf.fit([t for t, _ in TEXTS], [y for _, y in TEXTS])
        assert clf.predict(["a card", "", ["a card"], "\u00a0"]) == [
            *clf.predict(["a card"]),
            None,
            *clf.predict(["a card"]),
            None,
        ]
        np.testing.assert_allclose(clf.predict_proba(["", "a card"])[0], [0.5, 0.5])
        many = FewShotClassifier.from_pretrained(
            tiny_folders["encoder"], learner="prototypical", task_config={"multi_label": True}
        ).adapt([{"text": "a card", "labels": ["x"]}, {"text": "law", "labels": ["y"]}])
        assert many.predict([""]) == [[]]
        ner = FewShotNER.from_pretrained(tiny_folders["encoder"])
        ner.adapt([{"tokens": ["Anna", "lives"], "ner_tags": ["B-PER", "O"]}])
        assert ner.predict(["", [], ["", " "]]) == [[], [], []]
        qa = FewShotQA.from_pretrained(tiny_folders["encoder"])
        qa.adapt(
            [{"question": "who", "context": "so Anna", "answers": {"text": ["Anna"], "answer_start": [3]}}]
        )
        nothing = {"answer": "", "score": 1.0, "start": 0, "end": 0}
        assert qa.predict([("who", ""), ("", "so Anna")]) == [nothing, nothing]
        assert qa.show([("who", " ")]) == [""]
        mt = FewShotTranslator.from_pretrained(tiny_folders["seq2seq"])
        assert mt.predict(["", "the bank"])[0] == ""

    def test_neighbours_of_an_empty_text(self, tiny_encoder_folder):
        clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="nearest_neighbour")
        clf.fit([t for t, _ in TEXTS], [y for _, y in TEXTS])
        empty, full = clf.memory.neighbours(["", "a card"], k=1)
        assert empty == []
        assert len(full[0]["neighbours"]) == 1

    def test_a_row_that_is_read_for_training_must_not_be_empty(self, clf):
        with pytest.raises(FewShotError, match="Row 2: 'text' is empty; leave such rows out"):
            clf.adapt([{"text": "a", "label": "x"}, {"text": "", "label": "y"}])


class TestNumbersInMessages:
    def test_inputs_are_counted_in_the_whole_list(self, tiny_folders, monkeypatch):
        monkeypatch.setattr("fewshot_nlp.pipeline.CHUNK", 4)
        clf = FewShotClassifier.from_pretrained(tiny_folders["encoder"], learner="prototypical")
        clf.adapt([{"text": t, "text_pair": "b", "label": y} for t, y in TEXTS])
        long = "the " * 70
        with pytest.raises(FewShotError, match=r"^Input 7: the first text of the pair has 72 tokens"):
            clf.predict([("a", "b"), ("", "b"), *[("a", "b")] * 4, (long, "b")])
        with pytest.raises(FewShotError, match=r"^Input 6: it has no 'text_pair', but others have"):
            clf.predict([("a", "b")] * 5 + ["a", ("a", "b")])
        mt = FewShotTranslator.from_pretrained(tiny_folders["seq2seq"])
        with pytest.raises(
            FewShotError, match=r"^Input 6: the source text has .* tokens, but the model's window"
        ):
            mt.predict(["a"] * 5 + [long])
        qa = FewShotQA.from_pretrained(tiny_folders["encoder"])
        qa.adapt(
            [{"question": "who", "context": "so Anna", "answers": {"text": ["Anna"], "answer_start": [3]}}]
        )
        with pytest.raises(FewShotError, match=r"^Input 9: the first text of the pair has"):
            qa.predict([("who", "a")] * 8 + [(long, "a")])

    def test_the_first_error_has_the_number_of_its_value(self):
        def read(value):
            raise FewShotError("wrong.") if value < 0 else None

        with pytest.raises(FewShotError, match=r"^Line 3: wrong\.$"):
            read_each(iter([1, 2, -1, -1]), lambda v: v if v > 0 else read(v), "Line")

    @pytest.mark.parametrize(
        ("task", "row", "mapping"),
        [
            (
                "classification",
                {"id": "a1", "utterance": "Hi there", "label": "greet"},
                {"utterance": "text"},
            ),
            ("classification", {"txt": "Hi", "label": "greet"}, {"txt": "text"}),
            ("classification", {"text": "Hi", "n": 1.5, "intent": "greet"}, {"intent": "label"}),
            (
                "classification",
                {"text": "Hi", "Kategorie": "greet", "satz": "Hi there"},
                {"Kategorie": "label"},
            ),
            ("ner", {"words": ["Hi"], "ner_tags": ["O"]}, {"words": "tokens"}),
            ("ner", {"id": "0", "tokens": ["Hi"], "tags": np.array(["O"], object)}, {"tags": "ner_tags"}),
            ("ner", {"text": "Hi", "ents": []}, {"ents": "spans"}),
            (
                "question_answering",
                {"question": "who", "passage": "Anna", "answers": {"text": [], "answer_start": []}},
                {"passage": "context"},
            ),
        ],
    )
    def test_a_column_hint_names_a_column_that_is_there_and_works(
        self, tiny_encoder_folder, task, row, mapping
    ):
        kind = {"classification": FewShotClassifier, "ner": FewShotNER, "question_answering": FewShotQA}[task]
        model = kind.from_pretrained(tiny_encoder_folder)
        with pytest.raises(FewShotError, match=re.escape(f"column_mapping={mapping}")):
            model.adapt([row])
        assert model._read([row], mapping)

    def test_no_column_is_named_that_cannot_be_it(self, clf, ner, tiny_translator_folder):
        for call in (
            lambda: clf.adapt([{"text": "a", "score": 1.5, "also": None}]),
            lambda: clf.adapt([{"n": 3, "label": 1}]),
            lambda: ner.adapt([{"text": "a", "label": "PER"}]),
        ):
            with pytest.raises(FewShotError, match=r"there is no column '\w+'.*; add it\.$|Add it\.$"):
                call()
        clf.fit([t for t, _ in TEXTS], [y for _, y in TEXTS])
        with pytest.raises(FewShotError, match=r"only: utterance; rename 'utterance' to 'text'\.$"):
            clf.predict([{"utterance": "a"}])
        mt = FewShotTranslator.from_pretrained(tiny_translator_folder)
        with pytest.raises(FewShotError, match=r"no 'xx' among its languages, only: de, en; put"):
            mt.adapt([{"translation": {"de": "a", "en": "b"}}])
        with pytest.raises(FewShotError, match=r"task_config=\{'source': 'fr', 'target': 'nl'\}"):
            TASKS.get("translation")().examples([{"translation": {"fr": "a", "nl": "b"}}])
