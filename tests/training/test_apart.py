"""What is measured on is kept out of training, and what belongs together is kept on one side of an episode."""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from training_runs import config_of

from fewshot_nlp import FewShotError
from fewshot_nlp.episode import Episode
from fewshot_nlp.sources import DATA_VARIABLE, load_rows, read_rows, write_rows
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training.config import SamplerSettings, Source
from fewshot_nlp.training.episodes import Streams, make_streams
from fewshot_nlp.training.selection import Selection


def streams(
    folder: Path, task: Any, sources: Iterable[Source], sampler: SamplerSettings, **more: Any
) -> Streams:
    config = config_of(
        folder,
        folder,
        task=task.name,
        learner="fine_tune",
        data__sources=tuple(sources),
        data__sampler=sampler,
        validation__sources=(),
        **more,
    )
    return make_streams(config, task)


def drawn(found: Streams, n: int = 60) -> list[Episode]:
    return [found.train.episode(i) for i in range(n)]


def seen(episodes: Iterable[Episode], column: str = "text") -> set[str]:
    """The inputs of episodes, in small letters and without blanks: written apart from the package's own rule."""
    texts = (
        e.inputs.get(column) or "".join(e.inputs["tokens"]) for x in episodes for e in (*x.support, *x.query)
    )
    return {plain(text) for text in texts}


def plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFC", text).lower() if not c.isspace())


def disguised(text: str) -> str:
    """The same input to a reader: other blanks, capitals and composition."""
    return unicodedata.normalize("NFD", f" {text.upper().replace(' ', chr(160) + ' ')}\n")


def test_rows_of_a_card_in_a_users_file_are_not_trained_on(tmp_path, caplog):
    target = load_rows("finance_classification")
    labels = sorted({row["label"] for row in target})[:2]
    own = [{"text": f"{label} number {i} on the list", "label": label} for label in labels for i in range(12)]
    leaks = [{**row, "text": disguised(row["text"])} for row in target if row["label"] in labels]
    write_rows(tmp_path / "mine.jsonl", [*own, *leaks])
    sampler = SamplerSettings(n_way=2, k_shot=2, n_query=3)
    task, sources = TASKS.get("classification")(), [Source(name=str(tmp_path / "mine.jsonl"))]
    measured = {plain(row["text"]) for row in target}
    assert seen(drawn(streams(tmp_path, task, sources, sampler))) & measured
    caplog.clear()
    found = drawn(streams(tmp_path, task, sources, sampler, data__targets=("finance_classification",)))
    assert seen(found) <= {plain(row["text"]) for row in own}
    told = [r.message for r in caplog.records if "targets" in r.message]
    assert told == [
        f"{len(leaks)} of {len(own) + len(leaks)} rows are left out, because targets (finance_classification) have "
        f"their inputs: {tmp_path / 'mine.jsonl'} {len(leaks)}."
    ]


def test_words_of_a_targets_texts_are_not_trained_on(tmp_path, caplog):
    task = TASKS.get("ner")()
    examples = task.examples(load_rows("medical_ner"))
    leaks = [{"tokens": e.inputs["tokens"], "ner_tags": e.target} for e in examples[:40]]
    own = [
        {"tokens": ["Ann", "took", str(i), "pills"], "ner_tags": ["B-PER", "O", "O", "O"]} for i in range(20)
    ]
    write_rows(tmp_path / "mine.conll", [*leaks, *own])
    sampler = SamplerSettings(n_way=1, k_shot=1, n_query=3, options={"query": "rows"})
    sources = [Source(name=str(tmp_path / "mine.conll")), Source(name="legal_ner")]
    found = drawn(streams(tmp_path, task, sources, sampler, data__targets=("medical_ner",)))
    assert not seen(found) & {plain(row["text"]) for row in load_rows("medical_ner")}
    assert "40 of " in caplog.text
    assert "mine.conll 40." in caplog.text


def test_rows_of_a_users_target_are_not_trained_on(tmp_path, caplog):
    rows = load_rows("legal_translation")
    target = [
        {"translation": {"de": disguised(r["translation"]["de"]), "en": "other words"}} for r in rows[:30]
    ]
    write_rows(tmp_path / "target.jsonl", target)
    task, sources = TASKS.get("translation")(source="de", target="en"), [Source(name="legal_translation")]
    more = {"data__targets": (str(tmp_path / "target.jsonl"),)}
    found = drawn(streams(tmp_path, task, sources, SamplerSettings(k_shot=4, n_query=4), **more))
    assert not seen(found) & {plain(row["translation"]["de"]) for row in target}
    assert f"30 of {len(rows)} rows are left out" in caplog.text
    sources = [Source(name=str(tmp_path / "same.jsonl"))]
    write_rows(tmp_path / "same.jsonl", rows[:30])
    with pytest.raises(FewShotError, match=r"All 30 rows of '.*same.jsonl' are rows of the targets"):
        streams(tmp_path, task, sources, SamplerSettings(k_shot=4, n_query=4), **more)


def test_a_target_that_is_not_here_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    caplog.set_level("INFO")
    task, sampler = TASKS.get("ner")(), SamplerSettings(n_way=2, k_shot=1, n_query=2)
    targets = ("crossner_ai", "medical_ner")  # the first has no copy on the Hub
    streams(tmp_path, task, [Source(name="legal_ner")], sampler, data__targets=targets)
    assert "only the name of crossner_ai is kept out. The data set 'crossner_ai' is not here" in caplog.text
    assert "because targets (medical_ner) have" in caplog.text


def test_nothing_left_out_changes_nothing_and_an_unknown_target_is_told(tmp_path):
    task, sources = TASKS.get("classification")(), [Source(name="legal_classification")]
    sampler = SamplerSettings(n_way=2, k_shot=1, n_query=2)
    alone = drawn(streams(tmp_path, task, sources, sampler), 5)
    assert (
        drawn(streams(tmp_path, task, sources, sampler, data__targets=("medical_classification",)), 5)
        == alone
    )
    with pytest.raises(FewShotError, match=r"data.targets: The source 'medical_clasification' is neither"):
        streams(tmp_path, task, sources, sampler, data__targets=("medical_clasification",))


@pytest.mark.parametrize("curriculum", ["none", "sources"])
def test_a_moved_file_draws_the_same_episodes(tmp_path, curriculum):
    """Places are named so that their order turns around."""
    rows = load_rows("legal_classification"), load_rows("medical_classification")
    places = [("a/x.jsonl", "b/y.jsonl"), ("d/z.jsonl", "c/w.jsonl")]
    found = []
    for names in places:
        for name, part in zip(names, rows, strict=True):
            write_rows(tmp_path / name, part)
        sources = [Source(name=str(tmp_path / name)) for name in names]
        sampler = SamplerSettings(n_way=2, k_shot=(1, 2), n_query=2)
        weights = {source.name: share for source, share in zip(sources, (1.0, 3.0), strict=True)}
        more = {"data__selection": Selection(curriculum=curriculum), "data__mixture": weights}
        episodes = drawn(streams(tmp_path, TASKS.get("classification")(), sources, sampler, **more), 30)
        found.append([(episode.support, episode.query) for episode in episodes])
    assert found[0] == found[1]


def test_two_files_with_the_same_rows_are_two_sources(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write_rows(tmp_path / name, load_rows("legal_classification"))
    sources = [Source(name=str(tmp_path / name)) for name in ("a.jsonl", "b.jsonl")]
    found = streams(
        tmp_path, TASKS.get("classification")(), sources, SamplerSettings(n_way=2, k_shot=1, n_query=2)
    )
    assert {found.train.source(i) for i in range(30)} == {source.name for source in sources}


def sides(episodes: Iterable[Episode], group: Any) -> list[tuple[set[str], set[str]]]:
    return [({group(e) for e in x.support}, {group(e) for e in x.query}) for x in episodes]


CONTEXTS = [f"Order {n} was paid on day {n + 3} by the bank." for n in range(5)]


@pytest.mark.parametrize("column", [None, "document", "folder"])
def test_rows_of_one_document_stand_on_one_side(tmp_path, column):
    rows = [
        {
            "question": f"What was paid on day {i}?",
            "context": CONTEXTS[i % 5] if column is None else f"{CONTEXTS[i % 5]} Line {i}.",
            "answers": {"text": ["Order"], "answer_start": [0]},
            **({} if column is None else {column: i % 5}),
        }
        for i in range(40)
    ]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(name=str(tmp_path / "qa.jsonl"), group_column="folder" if column == "folder" else None)
    task = TASKS.get("question_answering")()
    found = drawn(streams(tmp_path, task, [source], SamplerSettings(k_shot=4, n_query=6)))
    for support, query in sides(found, lambda e: e.inputs["context"].split()[1]):
        assert not support & query
    with pytest.raises(FewShotError, match=r"row 1 has no column 'page' \(group_column\)"):
        streams(tmp_path, task, [Source(name=source.name, group_column="page")], SamplerSettings(k_shot=4))


def test_documents_of_a_conll_file_stand_on_one_side(tmp_path):
    lines = ["-DOCSTART- -X- O", ""]
    for document in "abcdef":
        for i in range(8):
            lines += [f"{document} O", f"Ann{i} B-PER", f"Rome{i} B-LOC", ""]
        lines += ["-DOCSTART- -X- O", ""]
    (tmp_path / "a.conll").write_text("\n".join(lines))
    rows = read_rows(tmp_path / "a.conll", "ner")
    assert [row["document"] for row in rows] == [n for n in range(1, 7) for _ in range(8)]
    write_rows(tmp_path / "b.conll", rows)
    assert read_rows(tmp_path / "b.conll", "ner") == rows
    sampler = SamplerSettings(n_way=2, k_shot=2, n_query=5, options={"query": "rows"})
    found = drawn(streams(tmp_path, TASKS.get("ner")(), [Source(name=str(tmp_path / "a.conll"))], sampler))
    for support, query in sides(found, lambda e: e.inputs["tokens"][0]):
        assert not support & query
