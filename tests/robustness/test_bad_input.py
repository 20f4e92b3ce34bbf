"""Users' mistakes: one line with the numbers and the fix, and nothing lost."""

import threading

import numpy as np
import pytest
import torch

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER

ROWS = [
    {"text": "my card was lost", "label": "card"},
    {"text": "send a new card", "label": "card"},
    {"text": "an order of the court", "label": "law"},
    {"text": "the judge and the law", "label": "law"},
]
SENTENCES = [
    {"tokens": ["take", "aspirin", "now"], "ner_tags": ["O", "B-DRUG", "O"]},
    {"tokens": ["the", "judge", "paid", "cash"], "ner_tags": ["O", "B-PER", "O", "B-SUM"]},
    {"tokens": ["aspirin", "for", "the", "judge"], "ner_tags": ["B-DRUG", "O", "O", "B-PER"]},
]


@pytest.fixture
def clf(tiny_encoder_folder):
    return FewShotClassifier.from_pretrained(tiny_encoder_folder)


@pytest.fixture
def ner(tiny_encoder_folder):
    return FewShotNER.from_pretrained(tiny_encoder_folder)


def message(call):
    with pytest.raises(FewShotError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "The support set is empty; give at least one row"),
        (ROWS[:2], "All rows have the label 'card'; classification needs at least 2"),
        (
            [*ROWS, {"text": "my card was lost", "label": "law"}],
            "Rows 1 and 5 have the same input but different targets",
        ),
        (
            [{"txt": "a", "label": "b"}],
            "there is no column 'text', which classification needs; there are: 'txt', 'label'",
        ),
        ([{"text": "a"}], "Row 1: there is no column 'label'"),
        ([{"text": 3, "label": "b"}], "Row 1: 'text' is 3 of type int, but must be a text"),
        ([ROWS[0], {"text": "  ", "label": "b"}], "Row 2: 'text' is empty"),
        (
            [{"text": "a", "label": ""}],
            "Row 1: 'label' is '' of type str, but a label is a text",
        ),
        ([{"text": "a", "label": 2.5}], "Row 1: 'label' is 2.5 of type float, but a label is"),
        (["just a text"], "Row 1 is a str, but every row must be a dictionary"),
        (
            [{"text": "a", "text_pair": "b", "label": "x"}, {"text": "c", "label": "y"}],
            "Row 2: it has no 'text_pair', but others have; give it for all or none",
        ),
    ],
)
def test_bad_classification_rows(clf, rows, expected):
    assert expected in message(lambda: clf.adapt(rows))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"tokens": ["a", "b"], "ner_tags": ["O"]}], "Row 1: 2 tokens but 1 tags"),
        ([{"tokens": ["a"], "ner_tags": [0]}], "Row 1: tag 1 is 0 of type int"),
        (
            [{"tokens": "a b", "ner_tags": ["O", "O"]}],
            "Row 1: 'tokens' is 'a b' of type str, but must be a list",
        ),
        ([{"tokens": ["a", 1], "ner_tags": ["O", "O"]}], "Row 1: a token is 1 of type int"),
        ([{"tokens": [], "ner_tags": []}], "Row 1: 'tokens' is empty"),
        ([{"tokens": ["a"], "ner_tags": ["O"]}], "has no label at all"),
        ([{"text": "a b", "spans": [{"start": 0}]}], "must have 'start', 'end' and 'label'"),
    ],
)
def test_bad_ner_rows(ner, rows, expected):
    assert expected in message(lambda: ner.adapt(rows))


def test_a_failed_adapt_leaves_the_model_as_it_was(clf):
    clf.adapt(ROWS)
    before = clf.predict_proba(["a card"])
    message(lambda: clf.adapt([]))
    message(lambda: clf.adapt(ROWS, labels=["card"]))
    assert np.array_equal(clf.predict_proba(["a card"]), before)
    assert clf.labels == ["card", "law"]


def test_predicting_before_adapting_and_bad_inputs(clf):
    assert "call adapt(rows) first" in message(lambda: clf.predict(["a"]))
    clf.adapt(ROWS)
    assert "Input 2: an input is 3 of type int" in message(lambda: clf.predict(["a", 3]))
    assert "put it in [ ]" in message(lambda: clf.predict("a text"))
    assert clf.predict([]) == []
    assert clf.predict_proba([]).shape == (0, 2)


def test_a_label_unseen_in_the_support_is_named_when_evaluating(clf, ner):
    clf.adapt(ROWS)
    text = message(lambda: clf.evaluate([{"text": "a dose", "label": "drug"}]))
    assert "the label 'drug', which the support set had not" in text
    assert "card, law" in text
    ner.adapt(SENTENCES)
    assert "'ORG'" in message(lambda: ner.evaluate([{"tokens": ["bank"], "ner_tags": ["B-ORG"]}]))


def test_labels_must_cover_the_rows_and_be_described_by_texts(clf):
    assert "'law', which is not among the given labels: card" in message(
        lambda: clf.adapt(ROWS, labels=["card"])
    )
    assert "description of card" in message(lambda: clf.adapt(ROWS, labels={"card": 3, "law": "courts"}))


def test_adapt_replaces_and_add_extends(clf, tmp_path, tiny_encoder_folder):
    clf.adapt(ROWS)
    clf.adapt([{"text": "a dose", "label": "drug"}, {"text": "the bank", "label": "bank"}])
    assert clf.labels == ["bank", "drug"]
    clf.add(ROWS)
    assert clf.labels == ["bank", "card", "drug", "law"]
    again = FewShotClassifier.from_pretrained(tiny_encoder_folder)
    again.adapt([{"text": "a dose", "label": "drug"}, {"text": "the bank", "label": "bank"}, *ROWS])
    np.testing.assert_allclose(clf.predict_proba(["a card"]), again.predict_proba(["a card"]), atol=1e-6)
    assert "call adapt() first" in message(
        lambda: FewShotClassifier.from_pretrained(tiny_encoder_folder).add(ROWS)
    )


def test_labels_without_rows_come_from_their_descriptions(clf, ner):
    clf.adapt(ROWS, labels={"card": "", "law": "", "drug": "a dose of aspirin for pain"})
    assert clf.labels == ["card", "drug", "law"]
    assert clf.predict_proba(["a dose of aspirin"]).shape == (1, 3)
    clf.adapt([], labels={"card": "a bank card", "law": "a court order"})
    assert set(clf.predict(["the court", "my card"])) <= {"card", "law"}
    ner.adapt(SENTENCES[:1], labels={"DRUG": "a medicine", "ORG": "a bank"})
    assert ner.labels == ["DRUG", "ORG"]


def test_damaged_weights_give_one_line_not_wrong_answers(clf):
    weights = clf.pipeline.learner.encoder.model.embeddings.word_embeddings.weight.data
    weights[:] = torch.nan
    assert "NaN or infinite features for 6 of 6 slots" in message(lambda: clf.adapt(ROWS))


def test_very_long_texts_are_read_to_the_end(clf, ner):
    clf.adapt(ROWS)
    filler = "the of and to " * 7200
    assert len(filler) > 100_000
    long = clf.predict_proba([filler + "court " * 2000, filler])
    assert not np.allclose(long[0], long[1])
    ner.adapt(SENTENCES)
    text = "now " * 25_000 + "aspirin"
    entities = ner.predict([text])[0]
    assert all(text[e["start"] : e["end"]] == e["word"] for e in entities)


TEXTS = {
    "emoji": "take 💊 aspirin 👩🏽‍⚕️ now",
    "combining marks": "Zoe\u0308 took aspirin",
    "right to left": "קח aspirin עכשיו",
    "CRLF": "take\r\naspirin\r\nnow\r\n",
    "tabs and no-break spaces": "take\taspirin\u00a0now",
    "zero width": "take\u200baspirin now",
    "nothing but marks": "!? … —",
}


@pytest.mark.parametrize("name", TEXTS)
def test_offsets_are_exact_in_any_script(ner, name):
    ner.adapt(SENTENCES)
    text = TEXTS[name]
    (entities,) = ner.predict([text])
    assert all(text[e["start"] : e["end"]] == e["word"] for e in entities)
    assert all(0 < e["score"] <= 1 for e in entities)
    (tags,) = [p["target"] for p in ner.predictions([text])]
    assert len(tags) == len(ner.pipeline.task.query(text).inputs["tokens"])


def test_two_threads_may_predict_at_once(clf):
    clf.adapt(ROWS)
    texts = [
        f"{a} {b} {c}" for a in ("a", "the", "my") for b in ("card", "law", "court") for c in ("lost", "paid")
    ]
    expected = clf.predict_proba(texts)
    wrong = []

    def work():
        for _ in range(5):
            if not np.array_equal(clf.predict_proba(texts), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_scikit_learn_habits(clf):
    clf.fit([r["text"] for r in ROWS], [r["label"] for r in ROWS])
    proba = clf.predict_proba(["a card", "the court"])
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert [clf.labels[i] for i in proba.argmax(axis=1)] == clf.predict(["a card", "the court"])
    assert "3 texts but 2 labels" in message(lambda: clf.fit(["a", "b", "c"], ["x", "y"]))


def test_unknown_options_name_the_known_ones(tiny_encoder_folder):
    make = FewShotNER.from_pretrained
    assert "Did you mean 'maml'" in message(lambda: make(tiny_encoder_folder, learner="mamml"))
    assert "scheme is 'bilou', but must be one of: io, bio" in message(
        lambda: make(tiny_encoder_folder, task_config={"scheme": "bilou"})
    )
    assert "has no setting 'colour'. It has: scheme, tr" in message(
        lambda: make(tiny_encoder_folder, task_config={"colour": 1})
    )
    assert "over the encoder's window of 64" in message(lambda: make(tiny_encoder_folder, max_length=128))
