"""Odd values in rows, labels, glossaries and options: one short line, whatever they are."""

import numpy as np
import pandas as pd
import pytest

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.errors import listed, quoted
from fewshot_nlp.rows import joined

LONG = "x" * 3000
ROWS = [{"text": "my card was lost", "label": "card"}, {"text": "the judge and the law", "label": "law"}]
WORDS = [{"tokens": ["take", "aspirin"], "ner_tags": ["O", "B-DRUG"]}]


def message(call):
    with pytest.raises(FewShotError) as caught:
        call()
    assert 0 < len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("odd", [pd.Series(["a"]), pd.NA, np.array(["a", "b"]), ["a"] * 900, LONG, 3])
def test_a_glossary_that_is_none_is_refused_in_one_short_line(tiny_translator_folder, odd):
    model = FewShotTranslator.from_pretrained(tiny_translator_folder)
    assert "must map terms to words" in message(lambda: model.predict(["tsol"], glossary=odd))
    make = FewShotTranslator.from_pretrained
    assert "glossary is" in message(lambda: make(tiny_translator_folder, task_config={"glossary": odd}))


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (FewShotClassifier, {"threshold": None}, "threshold is None, but must be a number"),
        (FewShotClassifier, {"threshold": "0.5"}, "threshold is '0.5'"),
        (FewShotClassifier, {"multi_label": 1}, "multi_label is 1, but must be true or false"),
        (
            FewShotClassifier,
            {"multilabel": True},
            "has no setting 'multilabel'. Did you mean 'multi_label'?",
        ),
        (FewShotNER, {"cuts": None}, "cuts is None, but must be a list, each item a text"),
        (FewShotNER, {"scheme": np.array(["io", "bio"])}, "scheme is array"),
        (FewShotQA, {"null_threshold": float("nan")}, "null_threshold is nan"),
    ],
)
def test_task_options_are_checked_by_value(tiny_encoder_folder, model, options, expected):
    assert expected in message(lambda: model.from_pretrained(tiny_encoder_folder, task_config=options))


def test_languages_are_texts(tiny_translator_folder):
    make = FewShotTranslator.from_pretrained
    assert "source is 3, but" in message(lambda: make(tiny_translator_folder, task_config={"source": 3}))


def test_messages_are_short_whatever_the_labels(tiny_encoder_folder):
    clf, ner = (kind.from_pretrained(tiny_encoder_folder) for kind in (FewShotClassifier, FewShotNER))
    many = [f"label {i}" for i in range(300)]
    assert "(300 in all)" in message(lambda: clf.adapt(ROWS, labels=many))
    assert "All rows have the label 'xxx" in message(lambda: clf.adapt([{"text": "a", "label": LONG}]))
    assert "tag 1 is ['a', 'a'" in message(lambda: ner.adapt([{"tokens": ["a"], "ner_tags": [["a"] * 900]}]))
    assert "tag 1 is 'xxx" in message(lambda: ner.adapt([{"tokens": ["a"], "ner_tags": [LONG]}]))
    spans = [{"start": 0, "end": 900, "label": LONG}]
    assert "is outside the text" in message(lambda: ner.adapt([{"text": "a card", "spans": spans}]))
    wide = {f"column {i}": "x" for i in range(300)}
    assert "there is no column 'text'" in message(lambda: clf.adapt([wide]))
    clf.adapt(ROWS)
    assert "only: column 0" in message(lambda: clf.predict([wide]))


def test_long_answers_are_told_shortly(tiny_encoder_folder):
    answers = {"text": [LONG], "answer_start": [2]}
    row = {"question": "who", "context": "a  card", "answers": answers}
    assert "the context has ' card'" in message(
        lambda: FewShotQA.from_pretrained(tiny_encoder_folder).adapt([row])
    )


def test_blank_descriptions_are_none_and_broken_ones_are_mended(tiny_encoder_folder):
    clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")
    expected = clf.adapt(ROWS, labels=["card", "law"]).predict_proba(["a card"])
    blank = clf.adapt(ROWS, labels={"card": None, "law": " "}).predict_proba(["a card"])
    np.testing.assert_array_equal(blank, expected)
    clf.adapt(ROWS, labels={"card": "cut \ud83d", "law": ""})
    assert clf.descriptions == {"card": "cut \ufffd"}
    assert "description of card" in message(lambda: clf.adapt(ROWS, labels={"card": pd.NA, "law": ""}))


@pytest.mark.parametrize("odd", [3, "card", 1j, np.array(3), np.zeros((2, 2)), float("nan")])
def test_labels_that_are_no_list_are_refused(tiny_encoder_folder, odd):
    clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")
    assert "labels is " in message(lambda: clf.adapt(ROWS, labels=odd))
    clf.adapt(ROWS, labels=pd.Series(["card", "law"]))
    assert "labels is " in message(lambda: clf.add(ROWS, labels=odd))


def test_words_of_nothing_are_no_entities(tiny_encoder_folder):
    """A support set of entities alone, so that every word is tagged."""
    ner = FewShotNER.from_pretrained(tiny_encoder_folder, learner="nearest_neighbour")
    ner.adapt([{"tokens": ["aspirin", "drug"], "ner_tags": ["B-DRUG", "B-DOSE"]}], labels=["DRUG", "DOSE"])
    words = ["aspirin", "", "drug", " "]
    (entities,), (tags,) = ner.predict([words]), [p["target"] for p in ner.predictions([words])]
    whole = " ".join(words)
    assert all(whole[e["start"] : e["end"]] == e["word"] and e["word"].strip() for e in entities)
    assert len(tags) == 4


@pytest.mark.parametrize(
    ("model", "rows", "good", "empty"),
    [
        (FewShotClassifier, ROWS, "a card", " "),
        (FewShotNER, WORDS, "take aspirin", "\n"),
        (FewShotQA, [], ("who", "the judge"), ("who", "")),
    ],
)
def test_empty_texts_are_refused_on_request(tiny_encoder_folder, model, rows, good, empty):
    made = model.from_pretrained(
        tiny_encoder_folder, learner="fine_tune" if model is FewShotQA else "prototypical"
    )
    if rows:
        made.adapt(rows)
    else:
        made.adapt([{"question": "who", "context": "the judge", "answers": {"text": [], "answer_start": []}}])
    assert len(made.predict([good, empty])) == 2
    assert made.predict([good], refuse_empty=True) == made.predict([good])
    calls = [lambda: made.predict([good, empty], refuse_empty=True)]
    calls += (
        [lambda: made.predict_proba([good, empty], refuse_empty=True)] if model is FewShotClassifier else []
    )
    calls += [lambda: made.predict([good, empty], top_n=1, refuse_empty=True)] if model is FewShotQA else []
    assert all("Input 2: " in message(call) for call in calls)


def test_an_empty_text_to_translate_is_refused_on_request(tiny_translator_folder):
    made = FewShotTranslator.from_pretrained(tiny_translator_folder)
    assert made.predict([" "]) == [""]
    assert "Input 1: 'text' is empty" in message(lambda: made.predict([" "], refuse_empty=True))


def test_lists_for_messages():
    assert listed(["a", "b"]) == "a, b"
    assert listed(["x" * 100] * 3) == f"{'x' * 60}..., {'x' * 60}..., ... (3 in all)"
    assert joined([1, 2]) == "1, 2"
    assert joined(["1", "a"]) == "'1', 'a'"
    assert quoted("a  b\n") == "'a  b\\n'"
    assert quoted(pd.Series([1])).count("\n") == 0


def test_a_head_that_is_not_there_is_not_trained(tiny_encoder_folder):
    options = {"scope": "head", "start": "nearest_neighbour"}
    clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="fine_tune", learner_config=options)
    assert "the start nearest_neighbour has no head" in message(lambda: clf.adapt(ROWS))
