"""Models that remember, forget, and tell which examples a prediction rests on: the same for every task."""

import pytest
import torch
from toys import ROWS

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.memory.store import MemoryStore
from fewshot_nlp.persistence.model_files import seal

MODELS = {m.task_name: m for m in (FewShotClassifier, FewShotNER, FewShotQA, FewShotTranslator)}
every_task = pytest.mark.parametrize("task", MODELS)


@pytest.fixture
def make(tiny_folders):
    def make(task, **config):
        folder = tiny_folders["seq2seq" if task == "translation" else "encoder"]
        return MODELS[task].from_pretrained(folder, learner="nearest_neighbour", learner_config=config)

    return make


def rows_of(task, n=3, seed=0):
    return ROWS[task](n, seed=seed)


def same(one, two):
    """Whether two models have equal states and decode alike."""
    a, b = one._model, two._model
    assert a.labels == b.labels
    assert a.adapted.state.keys() == b.adapted.state.keys()
    assert all(torch.equal(v, b.adapted.state[k]) for k, v in a.adapted.state.items())
    assert all(torch.equal(v, b.decoding_parameters[k]) for k, v in a.decoding_parameters.items())


def queries_of(model, task):
    return [
        dict(e.inputs) if task != "translation" else e.inputs["text"]
        for e in model._read(rows_of(task, 1, 9), None)
    ]


@every_task
def test_remembering_is_adapting_to_the_union(task, make):
    rows = rows_of(task)
    model = make(task).adapt(rows[:5])
    assert len(model.memory.add(rows[5:])) == len(rows) - 5
    other = make(task).adapt(rows)
    same(model, other)
    queries = queries_of(model, task)
    assert str(model.predict(queries)) == str(other.predict(queries))
    fresh = make(task)
    fresh.memory.add(rows)
    same(fresh, other)


@every_task
def test_forgetting_is_adapting_without(task, make):
    rows = rows_of(task)
    model = make(task).adapt(rows[:-2])
    ids = model.memory.add(rows[-2:])
    assert model.memory.forget(ids=ids) == 2
    without = make(task).adapt(rows[:-2])
    same(model, without)
    text = list(model._examples[0].inputs.values())[-1]
    text = " ".join(text) if isinstance(text, list) else text
    n = model.memory.forget(texts=[text])
    assert n >= 1
    assert len(model._examples) == len(rows) - 2 - n


@every_task
def test_a_saved_model_remembers_forgets_and_explains(task, make, tmp_path):
    rows = rows_of(task)
    model = make(task).adapt(rows[:6])
    loaded = MODELS[task].from_pretrained(model.save_pretrained(tmp_path / "model"))
    queries = queries_of(model, task)
    assert str(loaded.memory.neighbours(queries)) == str(model.memory.neighbours(queries))
    ids = loaded.memory.add(rows[6:])
    same(loaded, make(task).adapt(rows))
    loaded.memory.forget(ids=ids)
    same(loaded, make(task).adapt(rows[:6]))


@every_task
def test_neighbours_of_a_remembered_example_are_its_own_slots(task, make):
    rows = rows_of(task)
    model = make(task, k=1, half=False, metric="cosine").adapt(rows)
    ids = model.memory.add([])
    assert ids == []
    examples = model._examples
    inputs = [e.inputs["text"] if task == "translation" else dict(e.inputs) for e in examples]
    if task == "translation":  # the model, which knows nothing, must first say the remembered translation
        model.predictions = lambda values, *_: [{"target": e.target} for e in examples]
    told = model.memory.neighbours(inputs)
    assert len(told) == len(rows)
    known = {n["id"] for slots in told for slot in slots for n in slot["neighbours"]}
    assert known <= {*model.memory.store.examples, ""}
    for slots in told:
        assert slots
        for slot in slots:
            first = slot["neighbours"][0]
            assert first["distance"] == pytest.approx(0, abs=1e-5)
            assert first["text"] == slot["text"]
            if task in ("classification", "translation"):
                assert first["label"] == slot["predicted"]
    if task == "classification":
        assert [s[0]["predicted"] for s in told] == [e.target for e in examples]
        assert told[0][0]["neighbours"][0]["example"] == {
            "inputs": dict(examples[0].inputs),
            "target": examples[0].target,
        }


@every_task
def test_no_inputs_have_no_neighbours(task, make):
    model = make(task).adapt(rows_of(task, 1))
    assert model.memory.neighbours([]) == []
    assert model.pipeline.queries([], model.labels).n_slots == 0


def test_neighbours_decide_the_prediction(make):
    model = make("classification").adapt(rows_of("classification", 5))
    texts = [row["text"] for row in rows_of("classification", 5, seed=4)]
    told = model.memory.neighbours(texts)
    assert [slots[0]["neighbours"][0]["label"] for slots in told] == model.predict(texts)
    assert [slots[0]["text"] for slots in told] == texts
    more = model.memory.neighbours(texts[:1], k=4)[0][0]["neighbours"]
    assert len(more) == 4
    assert [n["distance"] for n in more] == sorted(n["distance"] for n in more)


def test_answers_tell_their_characters(make):
    rows = rows_of("question_answering", 4)
    model = make("question_answering").adapt(rows)
    row = next(r for r in rows if r["answers"]["text"])
    start = row["answers"]["answer_start"][0]
    for slot in model.memory.neighbours([row])[0]:
        found = slot["neighbours"][0]
        context = found["example"]["inputs"]["context"]
        if found["end"]:
            assert context[found["start"] : found["end"]].lower() == found["text"]
    entries = [e for e in model.memory.store.entries if e.label == "start+end" and e.example]
    assert any((e.start, e.end) == (start, start + len(row["answers"]["text"][0])) for e in entries)


def test_labels_that_were_given_stay_and_others_go_with_their_last_example(make):
    rows = rows_of("classification", 2)
    model = make("classification").adapt(rows, labels=["law", "medicine", "money", "sport"])
    model.memory.forget(texts=[r["text"] for r in rows if r["label"] == "law"])
    assert model.labels == ["law", "medicine", "money", "sport"]
    model = make("classification").adapt(rows)
    model.memory.forget(texts=[r["text"] for r in rows if r["label"] == "law"])
    assert model.labels == ["medicine", "money"]


def test_memories_of_several_models_join_in_one_file(make, tmp_path):
    path = tmp_path / "memory"
    first, second, later = make("classification"), make("ner"), make("classification")
    first.adapt(rows_of("classification")).memory.store.save(path)
    second.adapt(rows_of("ner")).memory.store.save(path, merge=True)
    later.memory.add(rows_of("classification", seed=5))
    later.memory.store.save(path, merge=True)
    joined = MemoryStore.load(path, fingerprint=first.memory.store.fingerprint)
    assert set(joined.examples) == {e for m in (first, second, later) for e in m.memory.store.examples}
    found = joined.search(second.memory.store.keys[:3], 5, task="ner")
    assert [near[0].entry.text for near in found] == [e.text for e in second.memory.store.entries[:3]]
    assert {n.entry.task for near in found for n in near} == {"ner"}
    other = make("translation").adapt(rows_of("translation"))
    with pytest.raises(FewShotError, match="only be merged if one encoder made both"):
        other.memory.store.save(path, merge=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.memory.forget(), "Say what to forget"),
        (
            lambda m: m.memory.forget(ids=["none"]),
            "No remembered example has the id 'none' .* Nothing was forgotten",
        ),
        (lambda m: m.memory.forget(texts=["none"]), "has the text 'none'"),
        (lambda m: m.memory.forget(texts=[r["text"] for r in rows_of("classification")]), "support set"),
        (lambda m: m.memory.neighbours("one text"), "put it in"),
        (lambda m: m.memory.add([{"text": "x"}]), "Row 1: there is no column 'label'"),
    ],
)
def test_mistakes_are_told_and_change_nothing(call, message, make):
    rows = rows_of("classification")
    model = make("classification").adapt(rows)
    with pytest.raises(FewShotError, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    same(model, make("classification").adapt(rows))


def test_other_learners_and_models_without_examples_say_so(make, tiny_encoder_folder, tmp_path):
    other = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")
    with pytest.raises(FewShotError, match=r"prototypical has no memory .* learner='nearest_neighbour'"):
        other.memory.add(rows_of("classification"))
    model = make("classification").adapt(rows_of("classification"))
    folder = model.save_pretrained(tmp_path / "model")
    assert (folder / "support.json").is_file()
    model.save_pretrained(folder, examples=False)
    assert not (folder / "support.json").exists()
    loaded = FewShotClassifier.from_pretrained(folder)
    with pytest.raises(FewShotError, match="saved without them"):
        loaded.memory.neighbours(["a letter"])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 2, "examples": [], "labels": []}']
)
def test_damaged_examples_are_told_in_one_line(content, make, tmp_path):
    folder = make("classification").adapt(rows_of("classification")).save_pretrained(tmp_path / "model")
    (folder / "support.json").write_text(content)
    for sealed in (False, True):
        if sealed:
            seal(folder)
        told = (
            r"support\.json (is damaged|has format 2)"
            if sealed
            else r"support\.json is damaged \(its SHA-256"
        )
        with pytest.raises(FewShotError, match=told) as caught:
            FewShotClassifier.from_pretrained(folder)
        assert "\n" not in str(caught.value)


def test_what_is_remembered_is_encoded_once(make, monkeypatch):
    model = make("classification").adapt(rows_of("classification"))
    encoder, encoded = model.pipeline.learner.encoder, []
    run = encoder._spans
    monkeypatch.setattr(
        encoder, "_spans", lambda batch, windows, *rest: encoded.extend(windows) or run(batch, windows, *rest)
    )
    new = {"text": "please cancel the order", "label": rows_of("classification")[0]["label"]}
    model.memory.add([new])
    assert len(encoded) == 1
    state = {name: value.clone() for name, value in model._model.adapted.state.items()}
    with torch.no_grad():
        next(encoder.model.parameters()).mul_(1.5)
    model.memory.add([])
    assert len(encoded) == 1 + len(model._examples) + len(model.labels), "other weights give other features"
    assert not torch.equal(model._model.adapted.state["keys"], state["keys"])
