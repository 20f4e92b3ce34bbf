"""The short form of the fuzz run: random rows, inputs and settings end in right predictions or in one short line."""

from collections import Counter

import fuzz

from fewshot_nlp.tasks import TASKS


def test_random_rows_inputs_and_settings():
    records = list(fuzz.run(seed=2, numbers=range(80)))
    assert [record for record in records if "error" in record] == []
    assert set(Counter(record["task"] for record in records)) == set(TASKS.names())
    assert sum(record["predicted"] for record in records) > 50
    assert sum(len(record["refused"]) for record in records) > 50


def test_what_goes_wrong_is_recorded(tiny_folders, monkeypatch):
    monkeypatch.setattr(fuzz, "LONGEST_MESSAGE", 5)
    found = [fuzz.run_case(2, number, tiny_folders) for number in range(4)]
    assert any("a message of" in record.get("error", "") for record in found)
