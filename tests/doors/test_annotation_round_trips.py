"""Predictions go to annotation tools, are corrected there, and come back as rows that `adapt` takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA
from fewshot_nlp.cli import main
from fewshot_nlp.sources import TOOLS, read_rows

ENTITIES = [
    {"text": "give aspirin now", "spans": [{"start": 5, "end": 12, "label": "DRUG"}]},
    {"text": "take a dose of aspirin", "spans": [{"start": 15, "end": 22, "label": "DRUG"}]},
]
TEXTS = ["she was told to take aspirin", "", "the law", "give aspirin"]
ROWS = [("I lost my card", "card"), ("my card", "card"), ("send money", "transfer"), ("pay her", "transfer")]


@pytest.fixture(scope="module")
def ner(tiny_encoder_folder: Path) -> FewShotNER:
    return FewShotNER.from_pretrained(tiny_encoder_folder).adapt(ENTITIES)


@pytest.fixture(scope="module")
def classifier(tiny_encoder_folder: Path) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe").adapt(ROWS)


def spans_of(model: FewShotNER, rows: list[Any]) -> list[Any]:
    """The entities of rows as the task reads them, in characters."""
    return [model.pipeline.task.highlights(example)[:2] for example in model.pipeline.task.examples(rows)]


@pytest.mark.parametrize("tool", list(TOOLS))
def test_entities(tool: str, ner: FewShotNER, tmp_path: Path) -> None:
    path = ner.annotate(TEXTS, tmp_path / f"found{TOOLS[tool][1]}", tool)
    predicted = [
        [(e["start"], e["end"], e["entity_group"]) for e in found]
        for text, found in zip(TEXTS, ner.predict(TEXTS), strict=True)
        if text
    ]
    assert any(predicted)
    again = spans_of(ner, read_rows(path, "ner"))
    assert again == list(zip(filter(None, TEXTS), predicted, strict=True))
    if any(predicted):
        FewShotNER.of(ner.pipeline).adapt(path)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "conll"])
def test_labels(tool: str, classifier: FewShotClassifier, tmp_path: Path) -> None:
    path = classifier.annotate(TEXTS, tmp_path / f"found{TOOLS[tool][1]}", tool)
    rows = read_rows(path, "classification")
    expected = [(t, label) for t, label in zip(TEXTS, classifier.predict(TEXTS), strict=True) if t]
    assert [(e.inputs["text"], e.target) for e in classifier.pipeline.task.examples(rows)] == expected


def test_a_docbin(ner: FewShotNER, tmp_path: Path) -> None:
    pytest.importorskip("spacy")
    path = ner.annotate(TEXTS, tmp_path / "found.spacy", "spacy")
    plain = ner.annotate(TEXTS, tmp_path / "found.json", "spacy")
    assert spans_of(ner, read_rows(path, "ner")) == spans_of(ner, read_rows(plain, "ner"))


@pytest.mark.parametrize("key", ["entity_group", "type", "label"])
def test_predictions_are_rows(key: str, ner: FewShotNER) -> None:
    found = ner.predict(["give aspirin", "the law"])
    found[1] = []
    renamed: list[Any] = [[{key: e["entity_group"], **e} for e in entities] for entities in found]
    if key != "entity_group":
        renamed = [[{k: v for k, v in e.items() if k != "entity_group"} for e in es] for es in renamed]
    rows = [{"text": t, "entities": es} for t, es in zip(["give aspirin", "the law"], renamed, strict=True)]
    spans = [[(e["start"], e["end"], e["entity_group"]) for e in entities] for entities in found]
    assert [pair[1] for pair in spans_of(ner, read_rows(rows, "ner"))] == spans
    assert [pair[1] for pair in spans_of(ner, read_rows(rows[::-1], "ner"))] == spans[::-1]


def test_files_of_predictions_are_rows(
    ner: FewShotNER, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's own JSON lines, of texts and of words; and a tool's format on standard output."""
    folder = ner.save_pretrained(tmp_path / "model")
    (tmp_path / "in.jsonl").write_text('{"tokens": ["give", "aspirin"]}\n{"tokens": ["the", "law"]}\n')
    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    for name in ("in.jsonl", "in.txt"):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "predict",
                    "--model",
                    str(folder),
                    "--input",
                    str(tmp_path / name),
                    "--out",
                    str(tmp_path / "out.jsonl"),
                ]
            )
        assert ended.value.code == 0
        rows = [row for row in read_rows(tmp_path / "out.jsonl", "ner") if row.get("text", "-")]
        assert len(ner.pipeline.task.examples(rows)) == len(rows) > 1
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(
            [
                "predict",
                "--model",
                str(folder),
                "--input",
                str(tmp_path / "in.txt"),
                "--format",
                "label-studio",
            ]
        )
    told = json.loads(capsys.readouterr().out)
    assert [task["data"]["text"] for task in told] == list(filter(None, TEXTS))


def test_refusals(
    ner: FewShotNER, classifier: FewShotClassifier, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        FewShotError, match=r"format is 'doccanno', but must be one of: label-studio.*'doccano'"
    ):
        ner.annotate(TEXTS, tmp_path / "a.jsonl", "doccanno")
    with pytest.raises(FewShotError, match=r"ends in '.txt', but a file of doccano in '.jsonl'"):
        ner.annotate(TEXTS, tmp_path / "a.txt", "doccano")
    with pytest.raises(FewShotError, match="CoNLL holds words and tags"):
        classifier.annotate(TEXTS, tmp_path / "a.conll", "conll")
    qa = FewShotQA.from_pretrained(tiny_encoder_folder, learner="linear_probe")
    row = {
        "question": "who pays",
        "context": "the bank",
        "answers": {"text": ["the bank"], "answer_start": [0]},
    }
    with pytest.raises(FewShotError, match="which question_answering does not give"):
        qa.adapt([row]).annotate([row], tmp_path / "a.json", "label-studio")
