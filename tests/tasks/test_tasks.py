"""Tasks: rows to slots, tags, transitions, decoding, metrics."""

import itertools

import numpy as np
import pytest
import torch
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2
from vectors import Vectors, slots

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.nearest_neighbour import NearestNeighbour, NearestNeighbourConfig
from fewshot_nlp.metrics.classification import multi_label_scores, single_label_scores
from fewshot_nlp.metrics.ner import entity_scores
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tasks.label_words import readable
from fewshot_nlp.tasks.tags import check_tags, spans_to_tags, tag_spans
from fewshot_nlp.tasks.transitions import abstract, hidden_markov, legal_bio, viterbi
from fewshot_nlp.tokenization.segmentation import split_words


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder_folder):
    return Encoder.from_pretrained(tiny_encoder_folder).tokenizer


def batch_with(normaliser, targets, groups=None, n_classes=3):
    n = len(targets)
    return SlotBatch(
        items=(),
        windows=[],
        types=None,
        spans=np.zeros((0, 4), int),
        groups=torch.arange(n) if groups is None else torch.tensor(groups),
        classes=tuple("abcdefg"[:n_classes]),
        pooling="text",
        normaliser=normaliser,
        targets=targets,
    )


def test_losses_are_negative_log_likelihoods():
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
    exclusive = batch_with("classes", torch.tensor([0, 1, 2]))
    p = scores.softmax(1)
    expected = -(p[0, 0].log() + p[1, 1].log() + p[2, 2].log()) / 3
    torch.testing.assert_close(exclusive.loss(scores), expected)
    y = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]])
    q = scores.sigmoid()
    independent = -(y * q.log() + (1 - y) * (1 - q).log()).mean()
    torch.testing.assert_close(batch_with("independent", y).loss(scores), independent)


def test_positions_are_normalised_over_the_slots_of_an_example():
    scores = torch.tensor([[1.0, 0.0], [2.0, 5.0], [0.0, 1.0], [3.0, 3.0], [1.0, 2.0]])
    starts_ends = torch.tensor([[1.0, 0], [0, 1], [0, 0], [1, 0], [0, 1]])
    batch = batch_with("positions", starts_ends, groups=[0, 0, 0, 1, 1], n_classes=2)
    log = batch.log_probabilities(scores)
    torch.testing.assert_close(log[:3].exp().sum(0), torch.ones(2))
    torch.testing.assert_close(log[3:].exp().sum(0), torch.ones(2))
    expected = -(log[0, 0] + log[1, 1] + log[3, 0] + log[4, 1]) / 4
    torch.testing.assert_close(batch.loss(scores), expected)


def test_selecting_slots_keeps_their_features(tiny_encoder_folder):
    encoder = Encoder.from_pretrained(tiny_encoder_folder)
    task = TASKS.get("ner")()
    rows = [
        {"tokens": ["the", "court", "paid"], "ner_tags": ["O", "B-X", "O"]},
        {"tokens": ["my"] * 90, "ner_tags": ["O"] * 90},
    ]
    batch = task.collate(
        task.examples(rows), ["X"], encoder.tokenizer, with_targets=True, descriptions={"X": "law"}
    )
    keep = torch.zeros(batch.n_slots, dtype=torch.bool)
    keep[[1, 2, 50, 92, 93]] = True
    part = batch.select(keep)
    torch.testing.assert_close(encoder.features(part), encoder.features(batch)[keep])
    assert part.gold.tolist() == batch.gold[keep].tolist()
    assert part.label_slot_mask.tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "I-X", "I-X", "I-Y"], ["O", "B-X", "I-X", "B-Y"]),
        (["B-X", "I-Y"], ["B-X", "B-Y"]),
        (["S-X", "B-Y", "E-Y", "U-Z", "B-Z", "L-Z"], ["B-X", "B-Y", "I-Y", "B-Z", "B-Z", "I-Z"]),
        (["U-Z", "L-Z"], ["B-Z", "B-Z"]),
        (["B-a-b", "I-a-b"], ["B-a-b", "I-a-b"]),
    ],
)
def test_tags_are_repaired_in_the_stated_way(tags, expected):
    assert check_tags(tags) == expected


@pytest.mark.parametrize(
    ("tags", "message"), [(["X"], "tag 1 is 'X'"), (["O", 3], "tag 2 is 3 of type int"), (["B-"], "'B-'")]
)
def test_other_tags_are_refused(tags, message):
    with pytest.raises(FewShotError, match=message):
        check_tags(tags)


def test_a_lone_inside_tag_can_be_refused():
    task = TASKS.get("ner")(repair="error")
    with pytest.raises(FewShotError, match="Row 1: tag 2 is 'I-X', but no X begins before it"):
        task.examples([{"tokens": ["a", "b"], "ner_tags": ["O", "I-X"]}])


def test_spans_and_tags_round_trip():
    text = "Dr. Zoë Ng (né Smith) paid 1,250.50 € — twice."
    offsets = split_words(text)
    assert [text[a:b] for a, b in offsets][:5] == ["Dr", ".", "Zoë", "Ng", "("]
    assert "1,250.50" in [text[a:b] for a, b in offsets]
    spans = [{"start": 4, "end": 10, "label": "PER"}, {"start": 27, "end": 37, "label": "SUM"}]
    tags = spans_to_tags(offsets, spans, text)
    found = [(label, text[offsets[a][0] : offsets[b - 1][1]]) for label, a, b in tag_spans(tags)]
    assert found == [("PER", "Zoë Ng"), ("SUM", "1,250.50 €")]


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"start": 0, "end": 99, "label": "X"}, "outside the text of 9 characters"),
        ({"start": 4, "end": 5, "label": "X"}, "holds no word"),
        ({"start": 0, "end": 7, "label": "Y"}, "overlaps another"),
    ],
)
def test_bad_spans_are_refused(span, message):
    task = TASKS.get("ner")()
    with pytest.raises(FewShotError, match=message):
        task.examples([{"text": "some text", "spans": [{"start": 0, "end": 4, "label": "X"}, span]}])


@pytest.mark.parametrize(
    ("text", "spans", "tokens", "tags"),
    [
        ("aspirins help", [(0, 7, "DRUG")], ["aspirin", "s", "help"], ["B-DRUG", "O", "O"]),
        ("10mg now", [(0, 2, "NUM"), (2, 4, "UNIT")], ["10", "mg", "now"], ["B-NUM", "B-UNIT", "O"]),
        ("meta-learning", [(0, 4, "A")], ["meta", "-", "learning"], ["B-A", "O", "O"]),
        ("l\u2019homme", [(2, 7, "B")], ["l", "\u2019", "homme"], ["O", "O", "B-B"]),
        ("我在北京。", [(2, 4, "LOC")], list("我在北京。"), ["O", "O", "B-LOC", "I-LOC", "O"]),
        ("東京タワーへ", [(0, 5, "LOC")], list("東京タワーへ"), ["B-LOC", *["I-LOC"] * 4, "O"]),
        ("서울에서", [(0, 2, "LOC")], list("서울에서"), ["B-LOC", "I-LOC", "O", "O"]),
        (
            "ไปกรุงเทพ",
            [(2, 9, "LOC")],
            ["ไ", "ป", "ก", "รุ", "ง", "เ", "ท", "พ"],
            ["O", "O", "B-LOC", *["I-LOC"] * 5],
        ),
    ],
)
def test_a_word_is_cut_where_a_span_begins_or_ends(text, spans, tokens, tags):
    row = {"text": text, "spans": [{"start": a, "end": b, "label": label} for a, b, label in spans]}
    (example,) = TASKS.get("ner")().examples([row])
    assert (example.inputs["tokens"], example.target) == (tokens, tags)


def test_words_are_cut_as_in_the_support_set():
    rows = [
        {"text": "take 10mg now", "spans": [{"start": 5, "end": 7, "label": "N"}]},
        {"text": "gonna take 5 ml", "spans": [{"start": 3, "end": 5, "label": "X"}]},
        {"text": "gonna B12", "spans": [{"start": 6, "end": 9, "label": "V"}]},
    ]
    plain = TASKS.get("ner")()
    task, examples = plain.suited(plain.examples(rows))
    assert task.cuts == ("10|mg", "gon|na")
    assert examples[2].inputs["tokens"] == ["gon", "na", "B", "12"]
    assert examples[2].target == ["O", "O", "B-V", "I-V"]
    assert task.query("gonna 250mg x2").inputs["tokens"] == ["gon", "na", "250", "mg", "x", "2"]
    assert plain.suited(plain.examples(rows[2:])) == (plain, plain.examples(rows[2:]))


def brute_force(emissions, decoding_parameters):
    best, best_score = None, -np.inf
    for path in itertools.product(range(emissions.shape[1]), repeat=len(emissions)):
        score = decoding_parameters["start"][path[0]] + sum(
            emissions[i, c] + decoding_parameters["offset"][c] for i, c in enumerate(path)
        )
        score += sum(decoding_parameters["step"][a, b] for a, b in itertools.pairwise(path))
        if score > best_score:
            best, best_score = path, score
    return list(best)


@pytest.mark.parametrize("kind", ["legal", "hidden_markov", "abstract"])
def test_viterbi_is_brute_force_on_every_sentence_of_a_batch(kind):
    rng = np.random.default_rng(0)
    classes = ("O", "B-X", "I-X", "B-Y", "I-Y")
    sentences = [np.array([0, 1, 2, 0]), np.array([3, 4, 4]), np.array([1, 0, 3])]
    decoding_parameters = {
        "legal": legal_bio(classes),
        "hidden_markov": hidden_markov(classes, sentences),
        "abstract": abstract(5, sentences),
    }[kind]
    lengths = np.array([3, 1, 5, 0, 2, 5])
    emissions = rng.normal(size=(lengths.sum(), 5)) * 2
    got = viterbi(emissions, lengths, decoding_parameters)
    ends = np.cumsum(lengths)
    for n, end in zip(lengths, ends, strict=True):
        if n:
            assert got[end - n : end].tolist() == brute_force(emissions[end - n : end], decoding_parameters)


def test_transition_rows_are_probabilities():
    classes = ("O", "B-X", "I-X", "B-Y", "I-Y")
    sentences = [np.array([0, 1, 2, 0]), np.array([3, 4, 4])]
    from fewshot_nlp.tasks.transitions import EVIDENCE

    rows = np.exp(hidden_markov(classes, sentences)["step"] / EVIDENCE)
    np.testing.assert_allclose(rows.sum(1), 1)
    assert rows[0, 2] == rows[3, 2] == 0
    rows = np.exp(abstract(3, [np.array([0, 1, 1, 2])])["step"])
    np.testing.assert_allclose(rows.sum(1), 1)


def test_transitions_of_the_hybrid_are_counted_by_hand():
    """Two sentences: O 2 times, B-X, I-X and B-Y once, I-Y twice; each class's share has one more."""
    from fewshot_nlp.tasks.transitions import EVIDENCE, NO_ENTITY, SMOOTHING

    rule = hidden_markov(("O", "B-X", "I-X", "B-Y", "I-Y"), [np.array([0, 1, 2, 0]), np.array([3, 4, 4])])
    offset = -EVIDENCE * np.log(np.array([3, 2, 2, 2, 3]) / 12)
    np.testing.assert_allclose(rule["offset"], offset + NO_ENTITY * np.eye(5)[0])
    new = np.array([2.5, 1.5, 0, 1.5, 0]) / 5.5  # half a time more than it was come to
    begun, going = 2.5 / 3, 1.5 / 3  # of 2 beginnings 2 go on, of 2 insides 1
    on = [(1 + SMOOTHING * begun), SMOOTHING * going, 1 + SMOOTHING * begun, 1 + SMOOTHING * going]
    step = [new]
    for tag, goes_on in enumerate(np.array(on) / (1 + SMOOTHING), start=1):
        step.append((1 - goes_on) * new)
        step[-1][(tag + 1) // 2 * 2] = goes_on
    np.testing.assert_allclose(np.exp(rule["step"] / EVIDENCE), step, atol=1e-12)
    np.testing.assert_allclose(np.exp(rule["start"]), new)


def test_structshots_transitions_are_counted_by_hand():
    """2 O-O, 3 O-I, 3 I-O, 4 to the same and 1 to another type, 3 begin outside and 2 inside; each plus one."""
    sentences = [[0, 0, 1, 1, 0, 2], [1, 2, 2, 0], [0, 0], [3], [0, 3, 3, 3, 0]]
    rule = abstract(4, [np.array(tags) for tags in sentences])
    np.testing.assert_allclose(np.exp(rule["start"]), np.array([4, 1, 1, 1]) / 7)
    inside = np.array([[4, 5, 1, 1], [4, 1, 5, 1], [4, 1, 1, 5]]) / 11  # 2 / 11 to others: two types
    np.testing.assert_allclose(np.exp(rule["step"]), [[3 / 7, 4 / 21, 4 / 21, 4 / 21], *inside])
    assert not rule["offset"].any()
    one = abstract(2, [np.array([0, 1, 1, 0, 1])])  # no O-O, 2 O-I, 1 I-O, 1 I-I
    np.testing.assert_allclose(np.exp(one["step"]), [[1 / 4, 3 / 4], [1 / 2, 1 / 2]])
    np.testing.assert_allclose(np.exp(one["start"]), [2 / 3, 1 / 3])


def test_structshot_is_its_authors_code():
    """Emissions and tags of Yang & Katiyar's code (tau 1), given the transitions of these sentences."""
    rows = [[2, 1, 0], [1, 0, 2], [0, 3, 1], [1, 2, 2], [-1, 1, 4], [3, 1, 1]]
    queries = [[1, 1, 1], [0, 1, 2], [2, 0, 1], [1, 3, 0]]
    encoder = Vectors(torch.tensor([*rows, *queries], dtype=torch.float64))
    learner = NearestNeighbour(encoder, NearestNeighbourConfig(temperature=0.5))
    scores = learner.adapt(slots(range(6), [0, 0, 1, 1, 2, 2], 3)).scores(slots(range(6, 10), [0] * 4, 3))
    emissions = [
        [-0.45081, -0.0755, -0.25922],
        [-0.4, -0.21115, -0.10263],
        [-0.4, -0.80743, -0.11224],
        [-0.58579, -0.2, -0.85584],
    ]
    np.testing.assert_allclose(scores, emissions, atol=6e-6)
    sentences = [[0, 0, 1, 1, 0, 2], [1, 2, 2, 0], [0, 0], [2], [0, 2, 2, 2, 0]]
    rule = abstract(3, [np.array(tags) for tags in sentences])
    assert scores.argmax(1).tolist() == [1, 2, 2, 1]
    assert viterbi(scores.log_softmax(1).numpy(), np.array([4]), rule).tolist() == [0, 2, 2, 0]


def test_structshot_decodes_by_the_transitions_of_its_support_set(tokenizer):
    """Scores that leave a word's type open are decided by its neighbours'."""
    task = TASKS.get("ner")(transitions="abstract")
    tags = ["O", "B-X", "I-X", "I-X", "O", "B-Y", "I-Y", "I-Y"]
    rows = [{"tokens": ["the", "bank", "of", "court", "my", "card", "to", "pay"], "ner_tags": tags}]
    support = task.collate(task.examples(rows), ["X", "Y"], tokenizer, with_targets=True)
    batch = task.collate([task.query("bank of court")], ["X", "Y"], tokenizer, with_targets=False)
    scores = torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 1.1], [0.0, 2.0, 0.0]])
    assert task.decode(scores, batch)[0]["target"] == ["B-X", "B-Y", "B-X"]
    assert task.decode(scores, batch, task.calibrate(support))[0]["target"] == ["B-X", "I-X", "I-X"]


def test_decoded_entities_have_exact_offsets(tokenizer):
    task = TASKS.get("ner")()
    text = "my 👩‍👩‍👧 aspirin e\u0301tude\r\nשלום judge"
    query = task.query(text)
    batch = task.collate([query], ["X"], tokenizer, with_targets=False)
    scores = torch.zeros(batch.n_slots, 2)
    words = query.inputs["tokens"]
    assert words == ["my", "👩‍👩‍👧", "aspirin", "e\u0301tude", "שלום", "judge"]
    for chosen in range(len(words)):
        scores = torch.full((batch.n_slots, 2), 0.0)
        scores[:, 0], scores[chosen] = 5.0, torch.tensor([0.0, 5.0])
        (entity,) = task.decode(scores, batch)[0]["entities"]
        assert text[entity["start"] : entity["end"]] == entity["word"] == words[chosen]
        assert entity["score"] == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-6)


def test_words_given_as_tokens_have_offsets_into_the_joined_text(tokenizer):
    task = TASKS.get("ner")(scheme="bio")
    batch = task.collate([task.query(["the", "high", "court"])], ["X"], tokenizer, with_targets=False)
    scores = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    (entity,) = task.decode(scores, batch, task.calibrate(batch_like(batch)))[0]["entities"]
    assert entity == {
        "entity_group": "X",
        "score": entity["score"],
        "word": "high court",
        "start": 4,
        "end": 14,
    }


@pytest.mark.parametrize(("scheme", "per_type"), [("io", 1), ("bio", 2)])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_entitys_score_is_the_mean_probability_of_its_type(number, scheme, per_type, tokenizer):
    task, types = TASKS.get("ner")(scheme=scheme), ["X", "Y", "Z"]
    batch = task.collate([task.query(["the", "high", "court"])], types, tokenizer, with_targets=False)
    scores = torch.randn(3, 1 + 3 * per_type, generator=torch.Generator().manual_seed(number))
    of_type = [c for c, name in enumerate(batch.classes) if name.endswith(types[number])]
    assert len(of_type) == per_type
    scores[0, 0] = 5.0
    scores[1, of_type[0]] = scores[2, of_type[-1]] = 5.0  # begins, goes on
    (entity,) = task.decode(scores, batch)[0]["entities"]
    probabilities = np.exp(scores) / np.exp(scores).sum(dim=1, keepdim=True)
    assert (entity["entity_group"], entity["word"]) == (types[number], "high court")
    assert entity["score"] == pytest.approx(float(probabilities[1:, of_type].sum(dim=1).mean()), abs=1e-6)


def batch_like(batch):
    from dataclasses import replace

    return replace(batch, targets=torch.zeros(batch.n_slots, dtype=torch.long)).select(
        torch.zeros(3, dtype=torch.bool)
    )


@pytest.mark.parametrize(
    ("name", "options", "labels", "told"),
    [
        ("classification", {}, [], "has no label at all"),
        ("classification", {"multi_label": True}, [], "has no label at all"),
        ("ner", {}, [], "has no label at all"),
        ("classification", {}, ["a"], "All rows have the label 'a'; classification needs at least 2"),
        ("classification", {"multi_label": True}, ["a"], None),
        ("classification", {}, ["a", "b"], None),
        ("ner", {}, ["a"], None),
        ("question_answering", {}, [], None),
    ],
)
def test_labels_from_which_something_can_be_learned(name, options, labels, told):
    task = TASKS.get(name)(**options)
    if told is None:
        task.check_labels(labels)
        return
    with pytest.raises(FewShotError, match=told):
        task.check_labels(labels)


def test_pairs_and_several_labels(tokenizer):
    task = TASKS.get("classification")(multi_label=True)
    rows = [
        {"text": "the card", "text_pair": "was lost", "labels": ["b", "a"]},
        {"text": "a dog", "text_pair": "and all", "labels": []},
    ]
    examples = task.examples(rows)
    assert [e.target for e in examples] == [["a", "b"], []]
    batch = task.collate(examples, ["a", "b"], tokenizer, with_targets=True, descriptions={"b": "letter b"})
    assert batch.gold.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert batch.types is not None
    assert batch.types[0] == [0, 0, 0, 0, 1, 1, 1]
    got = task.decode(
        torch.tensor([[3.0, -3.0], [-1.0, -2.0]]),
        task.collate(examples, ["a", "b"], tokenizer, with_targets=False),
    )
    assert [p["target"] for p in got] == [["a"], []]


def test_a_long_second_text_is_divided_and_a_long_first_text_refused(tokenizer):
    task = TASKS.get("classification")()
    query = task.query(("the card", "lost " * 200))
    batch = task.collate([query], ["a", "b"], tokenizer, with_targets=False)
    assert len(batch.windows) > 3
    assert all(w[:4] == batch.windows[0][:4] for w in batch.windows)
    with pytest.raises(
        FewShotError,
        match="Row 1: the first text of the pair has 202 tokens, but it must fit half of the window of 64",
    ):
        task.collate([task.query(("lost " * 200, "the card"))], ["a", "b"], tokenizer, with_targets=False)


@pytest.mark.parametrize(
    ("name", "words"), [("card_payment", "card payment"), ("GetWeather", "get weather"), ("DNA", "dna")]
)
def test_label_names_become_words(name, words):
    assert readable(name) == words


def test_entity_scores_are_seqevals_strict_ones():
    gold = [["B-X", "I-X", "O"], ["B-Y", "O"], ["O", "B-X"]]
    got = [["B-X", "O", "O"], ["B-Y", "O"], ["O", "B-Y"]]
    scores = entity_scores(gold, got)
    assert scores["entity_f1_strict_iob2"] == f1_score(gold, got, mode="strict", scheme=IOB2)
    assert scores["entity_precision_strict_iob2"] == pytest.approx(1 / 3)
    assert scores["f1[Y]"] == pytest.approx(2 / 3)
    assert entity_scores([["O"]], [["O"]])["entity_f1_strict_iob2"] == 1.0
    assert entity_scores([["O"]], [["B-X"]])["entity_f1_strict_iob2"] == 0.0


def test_entity_scores_are_those_of_seqevals_report_on_tags_at_random():
    """Tags that are no IOB2 are among them; where nobody has an entity, scores are 1 by definition."""
    rng = np.random.default_rng(0)
    tags = ["O", "O", "O", *(f"{place}-{kind}" for place in "BI" for kind in "XYZ")]
    for _ in range(100):
        gold = [rng.choice(tags, rng.integers(1, 8)).tolist() for _ in range(3)]
        got = [[t if rng.random() < 0.6 else str(rng.choice(tags)) for t in row] for row in gold]
        if all(t == "O" for row in gold + got for t in row):
            continue
        report = classification_report(
            gold, got, mode="strict", scheme=IOB2, output_dict=True, zero_division=0
        )
        scores = entity_scores(gold, got)
        expected = {name: row["f1-score"] for name, row in report.items() if name in "XYZ" and row["support"]}
        assert {name: scores[f"f1[{name}]"] for name in expected} == pytest.approx(expected)
        for name, other in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert scores[f"entity_{name}_strict_iob2"] == pytest.approx(report["micro avg"][other])


def test_classification_scores_by_hand():
    scores = single_label_scores(["a", "a", "b"], ["a", "c", "b"], ["a", "b", "c"])
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    many = multi_label_scores([["a"], ["a", "b"], []], [["a"], ["a"], ["b"]], ["a", "b"])
    assert many["accuracy"] == pytest.approx(1 / 3)
    assert many["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert many["macro_f1"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("gold", "got", "expected"),
    [
        ([["O", "O"]], [["O", "O"]], 1.0),
        ([["O", "O"], ["O"]], [["O", "B-X"], ["O"]], 0.0),
        ([["O"], ["B-X"]], [["O"], ["O"]], 0.0),
    ],
)
def test_without_any_gold_entity_abstaining_is_right(gold, got, expected):
    scores = entity_scores(gold, got)
    names = ("entity_f1_strict_iob2", "macro_entity_f1_strict_iob2", "entity_recall_strict_iob2")
    assert [scores[name] for name in names] == [expected] * 3
    flat = [f1_score(gold, got, mode="strict", scheme=IOB2, zero_division=1)]
    assert flat == [expected], "seqeval says so with zero_division=1"
