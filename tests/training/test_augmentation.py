"""Changed support sets: labels stay right, queries stay, and nothing depends on anything but the seed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fewshot_nlp.episode import Episode, Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.tasks import TASKS, Task
from fewshot_nlp.tasks.tags import tag_spans
from fewshot_nlp.training.augmentation import Augmentation, augment

ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [
        {"text": f"please tell me number {word} of all my {label} orders today", "label": label}
        for word in ("one", "two", "three")
        for label in ("card", "cash", "loan")
    ],
    "ner": [
        {"tokens": f"{who} of the old team went to {where} for work".split(), "ner_tags": tags}
        for who, where, tags in (
            ("Ann", "Rome", ["B-PER", *["O"] * 6, "B-LOC", "O", "O"]),
            ("Bob Lee", "Oslo", ["B-PER", "I-PER", *["O"] * 6, "B-LOC", "O", "O"]),
            ("Cy", "New York", ["B-PER", *["O"] * 6, "B-LOC", "I-LOC", "O", "O"]),
            ("Di", "Bonn", ["B-PER", *["O"] * 6, "B-LOC", "O", "O"]),
        )
    ],
    "question_answering": [
        {
            "question": f"how much of {drug} is it",
            "context": f"On day one give 20 mg  of {drug}, then 5 mg (not 20 mg) for a week.",
            "answers": {"text": ["20 mg", "20 mg"], "answer_start": [16, 43 + len(drug)]},
        }
        for drug in ("aspirin", "codeine", "zinc", "iron")
    ],
    "translation": [
        {"translation": {"de": f"Guten Tag {n}", "en": f"Good day {n}"}} for n in ("Ann", "Bob", "Cy", "Di")
    ],
}


def task_of(name: str) -> Task:
    return TASKS.get(name)(source="de", target="en") if name == "translation" else TASKS.get(name)()


def episode_of(name: str) -> Episode:
    task = task_of(name)
    examples = task.examples(ROWS[name])
    return Episode(
        task=name, support=tuple(examples[:-1]), query=tuple(examples[-1:]), label_names=task.labels(examples),
        task_id="t", episode_id="e",
    )  # fmt: skip


def changed(name: str, seed: int = 0, **settings: Any) -> tuple[Episode, Episode]:
    """An episode before and after; the query must stay."""
    before = episode_of(name)
    after = augment(before, Augmentation(**settings), task_of(name), seed)
    if "merge_labels" not in settings:
        assert after.query == before.query
        assert after.label_names == before.label_names
    assert len(after.support) == len(before.support)
    assert after != before
    return before, after


def subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


def shout(texts: Sequence[str], seed: int) -> list[str]:
    return [f"{text.upper()} {seed}" for text in texts]


def test_word_dropout_leaves_words_out_and_labels_alone() -> None:
    before, after = changed("classification", word_dropout=0.4)
    for old, new in zip(before.support, after.support, strict=True):
        assert new.target == old.target
        assert subsequence(new.inputs["text"].split(), old.inputs["text"].split())
    _, hardly = changed("classification", word_dropout=1.0)
    assert all(len(e.inputs["text"].split()) == 1 for e in hardly.support), "one word stays"


def test_word_dropout_spares_mentions() -> None:
    before, after = changed("ner", word_dropout=1.0)
    for old, new in zip(before.support, after.support, strict=True):
        kept = [(w, t) for w, t in zip(old.inputs["tokens"], old.target, strict=True) if t != "O"]
        assert list(zip(new.inputs["tokens"], new.target, strict=True)) == kept


def test_word_dropout_moves_answers() -> None:
    before, after = changed("question_answering", word_dropout=0.5)
    task = task_of("question_answering")
    for old, new in zip(before.support, after.support, strict=True):
        assert new.target["text"] == old.target["text"]
        assert task.example({**new.inputs, "answers": new.target}) == new, "answers stand where they say"
        assert new.inputs["question"] == old.inputs["question"]
        assert len(new.inputs["context"]) < len(old.inputs["context"])
    _, hardly = changed("question_answering", word_dropout=1.0)
    assert hardly.support[0].inputs["context"] == "20 mg  20 mg) "


def test_mentions_are_replaced_by_others_of_their_type() -> None:
    before, after = changed("ner", mention_replacement=1.0)
    pool = {"PER": {"Ann", "Bob Lee", "Cy"}, "LOC": {"Rome", "Oslo", "New York"}}
    for old, new in zip(before.support, after.support, strict=True):
        found = [(lab, " ".join(new.inputs["tokens"][a:b])) for lab, a, b in tag_spans(new.target)]
        was = [(lab, " ".join(old.inputs["tokens"][a:b])) for lab, a, b in tag_spans(old.target)]
        assert [label for label, _ in found] == ["PER", "LOC"]
        assert all(mention in pool[label] for label, mention in found)
        assert all(a != b for a, b in zip(found, was, strict=True))
        others = [w for w, t in zip(new.inputs["tokens"], new.target, strict=True) if t == "O"]
        assert others == ["of", "the", "old", "team", "went", "to", "for", "work"]


def test_words_are_replaced_by_others_with_their_tag() -> None:
    before, after = changed("ner", token_replacement=0.7)
    pool: dict[str, set[str]] = {}
    for example in before.support:
        for word, tag in zip(example.inputs["tokens"], example.target, strict=True):
            pool.setdefault(tag, set()).add(word)
    for old, new in zip(before.support, after.support, strict=True):
        assert new.target == old.target
        assert all(w in pool[t] for w, t in zip(new.inputs["tokens"], new.target, strict=True))


@pytest.mark.parametrize(
    ("task", "column"),
    [("classification", "text"), ("question_answering", "question"), ("translation", "text")],
)
@pytest.mark.parametrize("hook", [shout, f"{__name__}:shout"])
def test_paraphrases_come_from_the_hook(task: str, column: str, hook: Any) -> None:
    before, after = changed(task, seed=7, paraphrase=hook, paraphrase_rate=1.0)
    for old, new in zip(before.support, after.support, strict=True):
        assert new.inputs == {**old.inputs, column: f"{old.inputs[column].upper()} 7"}
        assert new.target == old.target
    _, some = changed("classification", paraphrase=hook, paraphrase_rate=0.5)
    assert 0 < sum(e.inputs["text"].isupper() for e in some.support) < len(some.support)


@pytest.mark.parametrize("bad", [lambda texts, seed: texts[1:], lambda texts, seed: [" "] * len(texts)])
def test_hook_that_gives_no_text_for_each_is_refused(bad: Any) -> None:
    with pytest.raises(FewShotError, match="was given 8 texts and must give as many, none of them empty"):
        changed("classification", paraphrase=bad, paraphrase_rate=1.0)


@pytest.mark.parametrize("task", ["classification", "ner"])
def test_two_labels_become_one(task: str) -> None:
    before = episode_of(task)
    if task == "ner":
        assert augment(before, Augmentation(merge_labels=1.0), task_of(task), 0) == before, (
            "two labels stay two"
        )
        return
    before, after = changed(task, merge_labels=1.0)
    joined = next(name for name in after.label_names if " or " in name)
    assert len(after.label_names) == 2
    names = {name: joined if name in joined.split(" or ") else name for name in before.label_names}
    assert len(set(names.values())) == 2
    for part in ("support", "query"):
        for old, new in zip(getattr(before, part), getattr(after, part), strict=True):
            assert new.inputs == old.inputs
            assert new.target == names[old.target]


def test_a_change_depends_on_the_seed_and_on_no_other_change() -> None:
    task, before = task_of("ner"), episode_of("ner")
    first = augment(before, Augmentation(word_dropout=0.3), task, 1)
    assert first == augment(before, Augmentation(word_dropout=0.3), task, 1)
    assert first != augment(before, Augmentation(word_dropout=0.3), task, 2)
    both = augment(before, Augmentation(word_dropout=0.3, mention_replacement=1e-9), task, 1)
    assert [e.target for e in both.support] == [e.target for e in first.support]
    assert augment(before, Augmentation(), task, 1) is before


def test_support_text_that_would_be_a_query_stays() -> None:
    before = episode_of("classification")
    before = replace(before, query=(replace_text(before.query[0], "please"),))

    def to_query(texts: Sequence[str], seed: int) -> list[str]:
        return ["please"] * len(texts)

    settings = Augmentation(paraphrase=to_query, paraphrase_rate=1.0)
    assert augment(before, settings, task_of("classification"), 0) == before


def replace_text(example: Any, text: str) -> Any:
    return type(example)({"text": text}, example.target)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("translation", {"word_dropout": 0.1}),
        ("classification", {"mention_replacement": 0.1}),
        ("question_answering", {"token_replacement": 0.1}),
        ("question_answering", {"merge_labels": 0.1}),
        ("ner", {"paraphrase": shout, "paraphrase_rate": 0.1}),
    ],
)
def test_what_would_make_targets_wrong_is_refused(task: str, settings: dict[str, Json]) -> None:
    name = list(settings)[-1]
    with pytest.raises(FewShotError, match=rf"^augmentation\.{name} does not fit {task}: .*set it to 0\.$"):
        Augmentation(**settings).check_fits(TASKS.get(task))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"word_dropout": 1.5}, "word_dropout is 1.5"),
        ({"token_replacement": -0.1}, "token_replacement is -0.1"),
        ({"merge_labels": float("nan")}, "merge_labels is nan"),
        ({"paraphrase_rate": 0.5}, "give both"),
        ({"paraphrase": "a:b"}, "give both"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Json], told: str) -> None:
    with pytest.raises(FewShotError, match=told):
        Augmentation(**settings)


@pytest.mark.parametrize("name", ["no_such_module:f", "json:no_such", "nonsense", ":f"])
def test_hook_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(FewShotError, match=r"cannot be imported.*'module:function'"):
        Augmentation(paraphrase=name, paraphrase_rate=0.1).check_fits(TASKS.get("classification"))
