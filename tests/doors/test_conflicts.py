"""Rows with the same input and different labels: refused, or settled as asked, with a count in the log."""

import json
import logging
from pathlib import Path

import pytest

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER
from fewshot_nlp.cli import main

ROWS = [
    {"text": "I lost my card", "label": "card"},
    {"text": "send money", "label": "transfer"},
    {"text": "I lost my card", "label": "law"},
    {"text": "my card is gone", "label": "card"},
    {"text": "I lost my card", "label": "card"},
    {"text": "in court", "label": "law"},
]


@pytest.fixture
def model(tiny_encoder_folder: Path) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe")


def test_refused_with_numbers_and_both_ways_out(model: FewShotClassifier) -> None:
    with pytest.raises(FewShotError, match="Rows 1 and 3 have the same input") as caught:
        model.adapt(ROWS)
    assert "conflicts='first' or conflicts='drop' for all 1 such" in str(caught.value)
    with pytest.raises(FewShotError, match="conflicts is 'last', but must be one of: refuse, first, drop"):
        model.adapt(ROWS, conflicts="last")  # type: ignore[arg-type]


@pytest.mark.parametrize(("conflicts", "kept"), [("first", [0, 1, 3, 4, 5]), ("drop", [1, 3, 5])])
def test_settled(
    conflicts: str, kept: list[int], model: FewShotClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fewshot_nlp"):
        model.fit([r["text"] for r in ROWS], [r["label"] for r in ROWS], conflicts=conflicts)  # type: ignore[arg-type]
    assert [e.inputs["text"] for e in model._examples] == [ROWS[i]["text"] for i in kept]
    assert [e.target for e in model._examples] == [ROWS[i]["label"] for i in kept]
    assert f"{6 - len(kept)} of 6 rows left out ({conflicts}): 1 inputs have different targets" in caplog.text


def test_entities(tiny_encoder_folder: Path) -> None:
    rows = [
        {"text": "give aspirin", "spans": [{"start": 5, "end": 12, "label": "DRUG"}]},
        {"text": "give aspirin", "spans": []},
    ]
    ner = FewShotNER.from_pretrained(tiny_encoder_folder)
    assert ner.adapt(rows, conflicts="first").labels == ["DRUG"]
    with pytest.raises(FewShotError, match="The support set is empty"):
        ner.adapt(rows, conflicts="drop")


def test_the_command_line(
    tiny_encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    given = ["adapt", "--task", "classification", "--data", str(data), "--out", str(tmp_path / "model")]
    given += ["--encoder", str(tiny_encoder_folder), "--learner", "linear_probe"]
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert (ended.value.code, "--conflicts first or --conflicts drop" in capsys.readouterr().err) == (2, True)
    with pytest.raises(SystemExit) as ended:
        main([*given, "--conflicts", "drop"])
    assert (ended.value.code, "3 labels: card, law, transfer" in capsys.readouterr().out) == (0, True)
