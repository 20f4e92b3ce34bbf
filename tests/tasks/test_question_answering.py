"""Question answering: windows, targets, decoding, metrics, the meta-learned head, bad input."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import make_tiny_encoder

from fewshot_nlp import FewShotQA, meta_train
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.bundled import shipped_folder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.metrics.question_answering import (
    span_scores,
    squad_normalised,
    token_f1,
    unicode_normalised,
)
from fewshot_nlp.persistence.storage import load, new_pipeline, save
from fewshot_nlp.sampling import KShot
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tasks.answers import answer_spans, choose_threshold, mark_answer
from fewshot_nlp.training import MetaTrainConfig
from fewshot_nlp.training.config import (
    Data,
    EncoderSettings,
    OuterLoop,
    Run,
    SamplerSettings,
    Source,
    Validation,
)

TASK = TASKS.get("question_answering")()
CONTEXT = "Give 20 mg of aspirin at 8 am."
WORDS = ["court", "bank", "drug", "the", "of", "to", "in", "was", "my", "a"]


def row(context=CONTEXT, text=("20 mg",), start=(5,), question="how much"):
    return {
        "question": question,
        "context": context,
        "answers": {"text": list(text), "answer_start": list(start)},
    }


def long_row(n_words, place, question="where is it"):
    """A context of many words, the answer at a chosen word."""
    words = [WORDS[i % len(WORDS)] for i in range(n_words)]
    words[place] = "aspirin"
    start = len(" ".join([*words[:place], ""]))
    return row(" ".join(words), ["aspirin"], [start], question)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder):
    return Encoder.from_pretrained(tiny_encoder_folder)


def collate(encoder, rows, with_targets=True):
    return TASK.collate(TASK.examples(rows), (), encoder.tokenizer, with_targets=with_targets)


def gold_scores(batch, value=30.0):
    return batch.target_matrix * value


@pytest.fixture
def pipeline(tiny_encoder_folder):
    def make(learner="fine_tune", task_config=None, **config):
        encoder = Encoder.from_pretrained(tiny_encoder_folder)
        return new_pipeline("question_answering", task_config or {}, encoder, learner, config)

    return make


# Slots


def test_a_slot_for_no_answer_then_one_for_each_context_token(encoder):
    batch = collate(encoder, [row(), row("aspirin", ["aspirin"], [0])])
    first = [CONTEXT[a:b] for a, b in batch.hints.offsets[1 : (batch.groups == 0).sum()]]
    assert "".join(first) == CONTEXT.replace(" ", "")
    assert batch.hints.offsets[0].tolist() == [0, 0]
    assert (batch.groups == 1).sum() == 2
    assert batch.n_slots == len(batch.hints.offsets) == len(np.unique(batch.spans[:, 0]))


def test_long_contexts_have_every_token_once_from_the_window_with_most_context(encoder):
    example = long_row(150, 100)
    batch = collate(encoder, [example])
    assert len(batch.windows) > 3
    texts = [example["context"][a:b] for a, b in batch.hints.offsets[1:]]
    assert " ".join(texts) == example["context"]
    tokens = batch.spans[batch.spans[:, 0] > 0]
    assert sorted(tokens[:, 0]) == list(range(1, 151))
    ids = encoder.tokenizer.tokenizer.convert_tokens_to_ids
    assert all(batch.windows[w][a] == ids(texts[slot - 1]) for slot, w, a, _ in tokens)
    null = batch.spans[batch.spans[:, 0] == 0]
    assert null[:, 1].tolist() == list(range(len(batch.windows)))
    assert (null[:, 2:] == [0, 1]).all()
    # Where two windows share tokens, the one that goes on longer after them takes the later half.
    question = len(encoder.tokenizer.tokenizer("where is it")["input_ids"])
    for w, left in itertools.pairwise(range(len(batch.windows))):
        last = tokens[tokens[:, 1] == w][:, 2].max()
        after = len(batch.windows[w]) - 2 - last
        before = tokens[tokens[:, 1] == left][:, 2].min() - question
        assert abs(after - before) <= 1


@pytest.mark.parametrize("place", [0, 37, 75, 149])
def test_an_answer_anywhere_in_a_long_context_has_its_slots(encoder, place):
    example = long_row(150, place)
    batch = collate(encoder, [example])
    start, end = batch.target_matrix.T
    assert start.nonzero().flatten().tolist() == end.nonzero().flatten().tolist() == [place + 1]
    [prediction] = TASK.decode(gold_scores(batch), batch)
    assert prediction["target"] == example["answers"]


def test_several_answers_share_the_loss(encoder):
    example = row(text=["20 mg", "20 mg of aspirin"], start=[5, 5])
    batch = collate(encoder, [example])
    assert batch.target_matrix.sum(0).tolist() == [1.0, 2.0]
    scores = torch.randn(batch.n_slots, 2, generator=torch.Generator().manual_seed(0))
    log = scores.log_softmax(0)
    start = batch.target_matrix[:, 0].argmax()
    ends = batch.target_matrix[:, 1].nonzero().flatten()
    expected = -(log[start, 0] + log[ends, 1].logsumexp(0)) / 2  # any of them counts in full
    torch.testing.assert_close(batch.loss(scores), expected)


def test_no_answer_is_the_first_slot(encoder):
    batch = collate(encoder, [row(), row(text=[], start=[])])
    n = int((batch.groups == 0).sum())
    assert batch.target_matrix[n].tolist() == [1.0, 1.0]
    assert batch.target_matrix[n + 1 :].sum() == 0
    answers = [
        p["target"] for p in TASK.decode(gold_scores(batch), batch, {"null_threshold": torch.tensor(0.0)})
    ]
    assert answers == [{"text": ["20 mg"], "answer_start": [5]}, {"text": [], "answer_start": []}]


def test_selected_slots_keep_their_offsets(encoder):
    batch = collate(encoder, [row(), row("aspirin", ["aspirin"], [0])])
    second = batch.select(batch.groups == 1)
    assert second.hints.offsets.tolist() == [[0, 0], [0, 7]]


def test_only_windows_around_the_targets_are_learned_from(encoder):
    nothing = {**long_row(150, 20), "answers": {"text": [], "answer_start": []}}
    batch = collate(encoder, [long_row(150, 100), nothing, row()])
    near = batch.crop_to_targets()
    owner = [
        next(g for s, w, *_ in near.spans if w == i for g in [int(near.groups[s])])
        for i in range(len(near.windows))
    ]
    assert owner.count(0) == 1
    assert owner.count(1) == owner.count(0) + len(batch.windows) - len(near.windows)
    assert owner.count(2) == 1
    assert near.target_matrix.sum(0).tolist() == batch.target_matrix.sum(0).tolist()
    start = int(near.target_matrix[:, 0].argmax())
    assert long_row(150, 100)["context"][slice(*near.hints.offsets[start])] == "aspirin"
    assert (near.spans[near.spans[:, 0] == 0][:, 1] == 0).all()


@pytest.mark.parametrize("place", [0, 70, 149])
def test_a_stretch_about_the_answer_is_cut_out_of_its_window(encoder, place):
    context = long_row(150, place)["context"]
    near = collate(encoder, [long_row(150, place), row()]).crop_to_targets()
    first = [
        near.crop_to_targets(6, seed).select(near.crop_to_targets(6, seed).groups == 0) for seed in range(9)
    ]
    texts = set()
    for cut in first:
        text = " ".join(context[a:b] for a, b in cut.hints.offsets)
        assert text in context
        assert text.split().count("aspirin") == 1
        assert len(text.split()) == 6
        [start, end] = cut.target_matrix.argmax(0)
        assert context[cut.hints.offsets[start, 0] : cut.hints.offsets[end, 1]] == "aspirin"
        read = [cut.windows[window][token] for _, window, token, _ in cut.spans]
        assert encoder.tokenizer.tokenizer.decode(read) == text
        texts.add(text)
    assert (len(texts) > 1) == (place == 70)  # at the edge of a text there is but one


def test_where_every_slot_has_a_class_no_window_is_left_out(encoder):
    ner = TASKS.get("ner")()
    examples = ner.examples([{"tokens": ["court"] * 150, "ner_tags": ["O"] * 149 + ["B-X"]}])
    batch = ner.collate(examples, ("X",), encoder.tokenizer, with_targets=True)
    assert len(batch.windows) > 2
    assert batch.crop_to_targets().windows == batch.windows


# Decoding


def brute_force(scores, width):
    spans = {
        (i, j): scores[i, 0] + scores[j, 1]
        for i in range(1, len(scores))
        for j in range(i, min(i + width, len(scores)))
    }
    values = np.array([*spans.values(), scores[0].sum()])
    total = np.exp(values).sum()
    ranked = sorted(spans, key=lambda s: -spans[s])
    return [(*s, np.exp(spans[s]) / total) for s in ranked], np.exp(scores[0].sum()) / total


@pytest.mark.parametrize(("n", "width"), [(1, 5), (4, 2), (9, 3), (12, 30)])
def test_spans_equal_brute_force(n, width):
    scores = np.random.default_rng(n).normal(size=(n + 1, 2)) * 2
    expected, expected_null = brute_force(scores, width)
    got, null = answer_spans(scores, width, 4)
    assert null == pytest.approx(expected_null)
    assert [s[:2] for s in got] == [s[:2] for s in expected[:4]]
    assert [s[2] for s in got] == pytest.approx([s[2] for s in expected[:4]])
    everything, _ = answer_spans(scores, width, 10**6)
    assert sum(s[2] for s in everything) + null == pytest.approx(1.0)
    assert all(i <= j < i + width for i, j, _ in everything)


def test_a_context_without_tokens_has_no_answer():
    assert answer_spans(np.zeros((1, 2)), 30, 3) == ([], 1.0)


def test_scores_of_any_size_stay_finite():
    got, null = answer_spans(np.array([[900.0, 900.0], [-900.0, 0.0], [1000.0, 1000.0]]), 30, 9)
    assert got[0][:2] == (2, 2)
    assert math.isfinite(sum(p for *_, p in got))
    assert null < 1e-50


def test_threshold_moves_between_answering_and_not(encoder):
    batch = collate(encoder, [row()])
    scores = gold_scores(batch, 4.0)
    scores[0] = 5.0
    answered = {
        t: bool(TASK.decode(scores, batch, {"null_threshold": torch.tensor(t)})[0]["target"]["text"])
        for t in (1.0, 3.0)
    }
    assert answered == {1.0: False, 3.0: True}
    assert TASK.decode(scores, batch)[0]["answer"] == "20 mg"
    fixed = TASKS.get("question_answering")(null_threshold=1.0)
    assert fixed.decode(scores, batch)[0]["target"]["text"] == []
    [nothing] = fixed.decode(scores, batch)
    assert (nothing["answer"], nothing["start"], nothing["end"]) == ("", 0, 0)
    assert nothing["score"] == nothing["no_answer_score"]


def test_chosen_threshold_is_the_best_one():
    margins, gains = np.array([-3.0, -1.0, 0.5, 2.0]).repeat(2), np.array([1.0, 0.8, -1.0, -1.0]).repeat(2)
    threshold = choose_threshold(margins, gains)
    assert -1.0 < threshold < 0.5
    rng = np.random.default_rng(0)
    for ties in [False, True] * 20:
        margins, gains = rng.normal(size=8), rng.choice([1.0, 0.3, -1.0], size=8)
        margins = np.round(margins) if ties else margins
        best = max(gains[margins <= t].sum() for t in [-99, *margins])
        threshold = choose_threshold(margins, gains)
        if np.isfinite(threshold):
            assert gains[margins <= threshold].sum() == pytest.approx(best)


@pytest.mark.parametrize(
    ("n", "unanswerable", "refuses"),
    [(10, 1, False), (20, 2, False), (4, 2, False), (6, 3, True), (20, 6, True)],
)
def test_some_unanswerable_questions_may_be_chance(n, unanswerable, refuses):
    """Refusing gains k / n a question; its standard error is sqrt(k (n - k) / (n - 1)) / n."""
    gains = np.where(np.arange(n) < n - unanswerable, 1.0, -1.0)
    error = (unanswerable * (n - unanswerable) / (n - 1)) ** 0.5 / n
    assert refuses == (unanswerable / n > 2 * error)
    assert np.isfinite(choose_threshold(np.arange(n) / n, gains)) == refuses


def test_threshold_is_learned_from_unanswerable_support_only(encoder):
    rows = [row(), row(question="how long", text=[], start=[])] * 3
    batch = collate(encoder, rows)
    scores = gold_scores(batch, 2.0)
    for item, null in enumerate([3.0, 8.0] * 3):  # high for answerable questions, higher for the others
        scores[(batch.groups == item).nonzero()[0, 0]] = null
    decoding_parameters = TASK.calibrate(batch, scores)
    answers = [p["answer"] for p in TASK.decode(scores, batch, decoding_parameters)]
    assert answers == ["20 mg", ""] * 3
    answerable = collate(encoder, rows[:1])
    assert not TASK.calibrates_on_scores(answerable)
    assert "null_threshold" not in TASK.calibrate(answerable, None)


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_a_support_set_without_an_answer_teaches_to_give_none(encoder, n_rows):
    batch = collate(
        encoder, [row(text=(), start=(), question=q) for q in ("who", "when", "why", "a", "b")[:n_rows]]
    )
    scores = torch.randn(batch.n_slots, 2, generator=torch.Generator().manual_seed(n_rows))
    learned = TASK.calibrate(batch, scores)
    sure = gold_scores(collate(encoder, [row()]))
    query = collate(encoder, [row()], with_targets=False)
    assert TASK.decode(sure, query, learned)[0]["answer"] == ""
    assert TASK.decode(sure, query)[0]["answer"] == "20 mg"


def test_answers_that_differ_by_white_space_alone_are_one(encoder):
    batch = collate(encoder, [row()], with_targets=False)
    for seed in range(5):
        scores = torch.randn(batch.n_slots, 2, generator=torch.Generator().manual_seed(seed))
        shown = TASK.decode(scores, batch)[0]["n_best"]
        assert len({(a["start"], a["end"]) for a in shown}) == len(shown) == TASK.n_best
        assert all(a["answer"].strip() for a in shown)
        assert [a["score"] for a in shown] == sorted((a["score"] for a in shown), reverse=True)


@pytest.mark.parametrize("context", ["\u200b", "\u200b\u200b", "\x01"])
def test_a_context_that_the_tokenizer_reads_nothing_of_is_refused(encoder, context):
    with pytest.raises(FewShotError, match="the tokenizer reads nothing of the context"):
        collate(encoder, [row(), row(context=context, text=(), start=())])


def test_longer_answers_in_the_support_set_make_longer_answers_legal(encoder):
    text = " ".join(["court"] * 40)
    long, two_places = row(text, [text], [0]), row(text, ["court", "court"], [0, len(text) - 5])
    batch = collate(encoder, [long])
    assert TASK.decode(gold_scores(batch), batch)[0]["answer"] != text
    decoding_parameters = TASK.calibrate(batch)
    assert int(decoding_parameters["max_answer_tokens"]) == 40
    assert TASK.decode(gold_scores(batch), batch, decoding_parameters)[0]["answer"] == text
    for rows in ([row()], [two_places]):
        assert int(TASK.calibrate(collate(encoder, rows))["max_answer_tokens"]) == 30


def test_answers_are_cut_from_the_context_without_white_space(encoder):
    context = "the   court \n\n was  in   my bank"
    batch = collate(encoder, [row(context, ["court \n\n was"], [6])])
    [prediction] = TASK.decode(gold_scores(batch), batch)
    assert prediction["answer"] == "court \n\n was"
    for found in prediction["n_best"]:
        assert context[found["start"] : found["end"]] == found["answer"] == found["answer"].strip()


def test_marked_context():
    assert mark_answer(CONTEXT, 5, 10, "<", ">") == "Give <20 mg> of aspirin at 8 am."
    assert mark_answer(CONTEXT, 0, 0, "<", ">", around=4) == "Give…"
    assert mark_answer(CONTEXT, 14, 21, "*", "*", around=3) == "…of *aspirin* at…"


# Metrics


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Panthers", "panthers"),
        ("an  apple a day", "apple day"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("semi-final", "semifinal"),
        ("“quoted”", "“quoted”"),
        ("a", ""),
        ("A–B", "–b"),
    ],
)
def test_official_normalisation(text, normalised):
    assert squad_normalised(text) == normalised


@pytest.mark.parametrize(
    ("text", "normalised"),
    [("Die Straße,", "die strasse"), ("„Zitat“", "zitat"), ("ﬁne ①", "fine 1"), ("the end", "the end")],
)
def test_unicode_normalisation(text, normalised):
    assert unicode_normalised(text) == normalised


def answer(*texts):
    return {"text": list(texts), "answer_start": [0] * len(texts)}


@pytest.mark.parametrize(
    ("gold", "predicted", "em", "f1"),
    [
        (["Denver Broncos"], "the Denver Broncos!", 1.0, 1.0),
        (["Denver Broncos"], "Broncos", 0.0, 2 / 3),
        (["Santa Clara, California", "Levi's Stadium"], "Levis stadium", 1.0, 1.0),
        (["one two three"], "three two two", 0.0, 2 / 3),
        (["x"], "y", 0.0, 0.0),
        (["x"], "", 0.0, 0.0),
        ([], "", 1.0, 1.0),
        ([], "x", 0.0, 0.0),
        (["The"], "", 1.0, 1.0),
        (["a", "b"], "", 0.0, 0.0),
    ],
)
def test_exact_match_and_f1_by_the_official_definition(gold, predicted, em, f1):
    got = span_scores([answer(*gold)], [answer(*[predicted] * bool(predicted))])
    assert got["squad_exact_match"] == pytest.approx(em)
    assert got["squad_f1"] == pytest.approx(f1)


def test_f1_counts_repeated_tokens_as_often_as_both_have_them():
    # 2 shared tokens ("b" once, "c" once) of 3 and 4: precision 2/4, recall 2/3.
    assert token_f1("b b c", "b c d d") == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))


def test_no_answer_metrics_appear_with_unanswerable_questions():
    gold, predicted = [answer("x"), answer(), answer()], [answer("x y"), answer(), answer("z")]
    got = span_scores(gold, predicted)
    assert got["squad_v2_f1_has_answer"] == pytest.approx(2 / 3)
    assert got["squad_v2_f1_no_answer"] == 0.5
    assert got["squad_f1"] == pytest.approx((2 / 3 + 1) / 3)
    assert not [name for name in span_scores(gold[:1], predicted[:1]) if "v2" in name]


def test_articles_count_in_the_metric_for_other_languages():
    got = span_scores([answer("die Bank")], [answer("the die Bank")])
    assert got["squad_exact_match"] == 1.0
    assert got["unicode_exact_match"] == 0.0
    assert got["unicode_f1"] == pytest.approx(0.8)


# The meta-learned head


@pytest.mark.parametrize(
    ("learner", "config"), [("fine_tune", {"start": "meta"}), ("maml", {"head": "meta"})]
)
def test_a_meta_learned_head_predicts_before_any_example(pipeline, learner, config, tmp_path):
    made = pipeline(learner, **config)
    with torch.no_grad():
        for parameter in made.learner.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    queries = [TASK.query(row())]
    expected = made.unadapted().predict(queries)
    assert made.adapt([], ()).predict(queries) == expected
    save(tmp_path / "model", made, half=True)
    saved = load(tmp_path / "model")
    assert saved.model is None
    assert saved.pipeline.unadapted().predict(queries)[0]["answer"] == expected[0]["answer"]
    for name, parameter in made.learner.named_parameters():
        there = dict(saved.pipeline.learner.named_parameters())[name]
        assert there.dtype == torch.float32
        assert torch.equal(there, parameter.detach().half().float())


@pytest.mark.parametrize(
    ("learner", "config"), [("fine_tune", {"start": "meta"}), ("maml", {"head": "meta"})]
)
def test_meta_training_moves_the_learned_head(pipeline, learner, config):
    made = pipeline(learner, **config)
    support, query = (
        made.support(TASK.examples(rows), ()) for rows in ([row()], [row("aspirin", ["aspirin"], [0])])
    )
    made.learner.meta_loss(support, query).backward()
    grads = {name: p.grad for name, p in made.learner.named_parameters()}
    assert grads["head.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("learner", "config"), [("fine_tune", {"start": "meta"}), ("maml", {"head": "meta"})]
)
def test_a_meta_trained_model_answers_before_any_example(learner, config, tmp_path):
    encoder = make_tiny_encoder(tmp_path / "tiny", window=256)
    short = {"inner_steps": 1} if learner == "maml" else {"steps": 1}
    result = meta_train(
        MetaTrainConfig(
            task="question_answering",
            learner=learner,
            learner_config={**config, **short},
            encoder=EncoderSettings(name=str(encoder)),
            adapter={"peft_type": "LORA", "r": 2, "target_modules": ["query", "value"]},
            data=Data(
                sources=(Source(name="medical_question_answering"),),
                sampler=SamplerSettings(k_shot=2, n_query=2),
            ),
            validation=Validation(sources=(Source(name="legal_question_answering"),), n_episodes=2, every=2),
            outer=OuterLoop(lr=1e-2, warmup=0, meta_batch=1, steps=2),
            run=Run(output_dir=str(tmp_path / "run")),
        )
    )
    validations = [record for record in result.history if "val_loss" in record]
    assert [record["step"] for record in validations] == [0, 2]
    assert all("squad_f1" in record for record in validations)
    model = FewShotQA.from_pretrained(tmp_path / "run" / "final")
    assert not model.is_adapted
    assert model.pipeline.learner.head.weight.abs().sum() > 0
    [found] = model.predict([row()])
    assert found["answer"]
    assert model.adapt([]).predict([row()]) == [found]


def test_learners_without_a_head_of_their_own_need_examples(pipeline):
    assert pipeline("prototypical").unadapted() is None
    model = FewShotQA.of(pipeline("prototypical"))
    with pytest.raises(FewShotError, match="not adapted yet"):
        model.predict([row()])
    with pytest.raises(FewShotError, match="support set is empty"):
        model.adapt([])


def test_a_learned_head_refuses_another_number_of_classes(tiny_encoder_folder):
    made = new_pipeline(
        "classification", {}, Encoder.from_pretrained(tiny_encoder_folder), "fine_tune", {"start": "meta"}
    )
    examples = made.task.examples([{"text": t, "label": t} for t in ("bank", "court", "drug")])
    with pytest.raises(FewShotError, match=r"has 2 classes, but the support set has 3; set n_classes=3"):
        made.adapt(examples, ("bank", "court", "drug"))


def fitted(pipeline, rows, **config):
    made = pipeline("fine_tune", start="meta", steps=20, lr=0.01, head_lr=0.05, **config)
    support = made.support(TASK.examples(rows), ())
    return made.learner.fit(support), made.learner.initial_state()


def moved(state, start):
    return max(float((value - start[name]).abs().max().detach()) for name, value in state.items())


def test_weights_go_all_the_way_part_of_it_or_none(pipeline):
    whole, start = fitted(pipeline, toy(16))
    part, _ = fitted(pipeline, toy(16), folds=2)
    assert 0 < moved(part, start) <= moved(whole, start) + 1e-6
    assert all(torch.equal(part[n], fitted(pipeline, toy(16), folds=2)[0][n]) for n in part)
    # Every question and context is the same and every answer elsewhere: one row tells nothing of another.
    useless = [row("the " * 15 + "the", ["the"], [4 * place], "where") for place in (9, 2, 14, 5, 11, 7)]
    none, start = fitted(pipeline, useless, folds=3)
    assert moved(none, start) == 0
    one, start = fitted(pipeline, toy(1), folds=2)  # one example cannot be held out
    assert moved(one, start) == 0


def test_adapter_and_head_move_at_one_rate_too(pipeline):
    made = pipeline("fine_tune", start="meta", steps=4, lr=0.01, head_lr=0.01)
    state, start = made.learner.fit(made.support(TASK.examples(toy(4)), ())), made.learner.initial_state()
    still = [name for name in state if torch.equal(state[name], start[name])]
    assert still == []


def test_few_examples_are_not_passed_over_more_often_than_allowed(pipeline):
    once, _ = fitted(pipeline, toy(4), epochs=1)  # one batch: one step of the twenty
    config = {"start": "meta", "steps": 1, "lr": 0.01, "head_lr": 0.05}
    made = pipeline("fine_tune", **config)
    expected = made.learner.fit(made.support(TASK.examples(toy(4)), ()))
    assert all(torch.equal(once[name], expected[name]) for name in once)


def test_training_in_bfloat16_is_close_to_float32(pipeline):
    exact, _ = fitted(pipeline, toy(6))
    rough, start = fitted(pipeline, toy(6), bfloat16=True)
    assert all(value.dtype == torch.float32 for value in rough.values())
    apart = sum(float((rough[n] - exact[n]).square().sum().detach()) for n in exact) ** 0.5
    way = sum(float((exact[n] - start[n]).square().sum().detach()) for n in exact) ** 0.5
    assert 0 < apart < 0.3 * way


# The facade


def toy(n):
    return [
        row(f"{filler} {cue} of my {other}", [cue], [len(filler) + 1], "what was it")
        for filler, (cue, other) in zip(
            itertools.cycle(["the", "a", "in", "my"]),
            itertools.islice(itertools.cycle([("aspirin", "bank"), ("drug", "card"), ("dose", "court")]), n),
            strict=False,
        )
    ]


def test_facade_adapts_predicts_evaluates_and_saves(tiny_encoder_folder, tmp_path):
    qa = FewShotQA.from_pretrained(tiny_encoder_folder, learner="linear_probe")
    rows = toy(12)
    assert qa.adapt(rows) is qa
    assert qa.labels == []
    found = qa.predict([{"question": "what was it", "context": "the aspirin of my bank"}])
    assert found[0].keys() == {"answer", "score", "start", "end"}
    assert found[0]["answer"] == "aspirin"
    assert 0 < found[0]["score"] <= 1
    best = qa.predict([("what was it", "the aspirin of my bank")], top_n=2)[0]
    assert best["n_best"][0]["answer"] == "aspirin"
    assert best["n_best"][0]["score"] >= best["n_best"][1]["score"]
    assert 0 <= best["no_answer_score"] < 1
    assert qa.show([("what was it", "the aspirin of my bank")]) == ["the [aspirin] of my bank"]
    assert qa.evaluate(rows)["squad_f1"] > 0.9
    loaded = FewShotQA.from_pretrained(qa.save_pretrained(tmp_path / "qa"))
    assert loaded.predict(rows) == qa.predict(rows)
    with pytest.raises(FewShotError, match=r"top_n is 4, but must be from 1 to 3"):
        qa.predict(rows, top_n=4)


def test_no_document_stands_on_both_sides(encoder):
    rows = [{**long_row(12, i % 12, f"question {i}"), "document": f"doc {i // 4}"} for i in range(24)]
    data = TASK.dataset(rows, group_column="document")
    for index in range(5):
        episode = KShot(data, k_shot=5, n_query=5).episode(index)
        document = {r["question"]: r["document"] for r in rows}
        sides = [{document[e.inputs["question"]] for e in part} for part in (episode.support, episode.query)]
        assert not sides[0] & sides[1]


# Bad input


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            row(start=[6]),
            r"Row 1: the answer is '20 mg', but at answer_start 6 the context has '0 mg '; it is at 5",
        ),
        (row(text=["30 mg"]), r"the context has '20 mg'; the context does not hold it"),
        (row(start=[-1]), r"at answer_start -1"),
        (row(start=[5000]), r"at answer_start 5000 the context has ''"),
        (row(context="  "), r"Row 1: 'context' is empty"),
        (row(question=""), r"Row 1: 'question' is empty"),
        (row(text=["20 mg", "8 am"]), r"2 answer texts but 1 answer starts"),
        (row(text=[""], start=[0]), r"an answer is '' of type str, but must be a text"),
        (row(start=["5"]), r"an answer_start is '5' of type str, but must be a whole number"),
        (
            {**row(), "answers": {"text": "20 mg", "answer_start": 5}},
            r"must have the lists 'text' and 'answer_start'",
        ),
        ({**row(), "answers": {"answer_start": [5]}}, r"must have the lists 'text' and 'answer_start'"),
        ({**row(), "answers": {"text": ["20 mg"]}}, r"must have the lists 'text' and 'answer_start'"),
        ({**row(), "answers": ["20 mg"]}, r"the column 'answers' holds \['20 mg'\] of type list"),
        ({"context": CONTEXT}, r"there is no column 'question', only: context"),
    ],
)
def test_bad_rows_are_refused_in_one_line(bad, message):
    with pytest.raises(FewShotError, match=message) as error:
        TASK.examples([bad])
    assert "\n" not in str(error.value)


def test_an_answer_without_any_token_is_refused(encoder):
    with pytest.raises(
        FewShotError, match=r"an answer to 'how much' is .*\\u200b.*, of which the tokenizer reads"
    ):
        collate(encoder, [row("a\u200b", ["\u200b"], [1])])


def test_a_text_alone_is_no_query():
    with pytest.raises(FewShotError, match="must be a row with 'question' and 'context'"):
        TASK.query("how much")


def test_a_question_longer_than_half_the_window_is_refused(encoder):
    with pytest.raises(
        FewShotError, match=r"Row 1: the first text of the pair has 42 tokens, but it must fit half"
    ):
        collate(encoder, [row(question=" ".join(["what"] * 40))])


@pytest.mark.parametrize("options", [{"n_best": 0}, {"max_answer_tokens": 2.5}, {"null_threshold": "low"}])
def test_bad_options_are_refused(options):
    with pytest.raises(FewShotError, match=next(iter(options))):
        TASKS.get("question_answering")(**options)


# The start that ships


@pytest.fixture(scope="module")
def shipped():
    return FewShotQA.from_pretrained()


def test_the_shipped_start_answers_before_any_example(shipped):
    context = (
        "The clinic on Harbour Street opens at nine. Mrs Lindgren was given 40 mg of furosemide for her swollen legs, "
        "and her daughter Elsa drove her home."
    )
    asked = {
        "Who drove Mrs Lindgren home?": "Elsa",
        "When does the clinic open?": "nine",
        "Which drug?": "furosemide",
    }
    assert not shipped.is_adapted
    for question, wanted in asked.items():
        [found] = shipped.predict([{"question": question, "context": context}])
        assert wanted in found["answer"]
        assert len(found["answer"].split()) <= 5
        assert context[found["start"] : found["end"]] == found["answer"]


def test_an_answer_far_behind_the_first_window_is_found(shipped):
    filler = "The harbour was quiet and the boats lay at anchor under a grey sky. " * 60
    context = f"{filler}The ferry to Skagen leaves at a quarter past six. {filler}"
    assert len(shipped.pipeline.queries([TASK.query(("q", context))], ()).windows) > 8
    [found] = shipped.predict([("When does the ferry to Skagen leave?", context)])
    assert "quarter past six" in found["answer"]


def test_the_shipped_folder_is_small_and_tells_where_it_comes_from():
    files = {path.name: path.stat().st_size for path in shipped_folder("question_answering").iterdir()}
    assert files.keys() == {"README.md", "fewshot_nlp.json", "model.safetensors"}
    assert sum(files.values()) < 12 * 2**20
    card = (shipped_folder("question_answering") / "README.md").read_text(encoding="utf-8")
    for told in (
        "license: cc-by-sa-4.0",
        "squadshifts",
        "CC BY-SA 4.0",
        "squad_f1",
        "train_question_answering.py",
    ):
        assert told in card


def test_other_learners_and_settings_work_on_the_shipped_adapter():
    other = FewShotQA.from_pretrained(learner="prototypical", task_config={"n_best": 5})
    assert other.pipeline.learner.name == "prototypical"
    assert other.pipeline.learner.encoder.adapter
    assert other.pipeline.task.n_best == 5
    changed = FewShotQA.from_pretrained(learner_config={"steps": 7})
    assert changed.pipeline.learner.config.steps == 7
    assert changed.pipeline.learner.config.start == "meta"
    with pytest.raises(FewShotError, match="leave layers out"):
        FewShotQA.from_pretrained(layers=(0.5,))


def test_the_shipped_start_adapts_and_goes_back(tmp_path):
    qa = FewShotQA.from_pretrained(learner_config={"steps": 1, "folds": 0})
    rows = toy(4)
    before = qa.predict(rows)
    after = qa.adapt(rows).predict(rows)
    assert [a["score"] for a in after] != [b["score"] for b in before]
    loaded = FewShotQA.from_pretrained(qa.save_pretrained(tmp_path / "qa"))
    assert loaded.predict(rows) == after
    assert qa.adapt([]).predict(rows) == before
