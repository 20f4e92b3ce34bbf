"""The recipe of the question-answering start: crops keep answers in place, an interrupted run goes on, bits and all."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from fewshot_nlp import FewShotQA
from fewshot_nlp.sources import DATA_VARIABLE, load_card, load_rows

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "train_question_answering.py"
spec = importlib.util.spec_from_file_location("train_question_answering", SCRIPT)
recipe = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = recipe  # dataclasses look their module up
spec.loader.exec_module(recipe)
needs_data = pytest.mark.skipif(not os.environ.get(DATA_VARIABLE), reason=f"{DATA_VARIABLE} is not set")


@pytest.mark.parametrize("domain", ["medical", "legal", "finance"])
def test_stretches_hold_the_answer_where_it_says(domain):
    settings = recipe.Settings(negatives=0.0)
    generator = np.random.default_rng(0)
    places = []
    for row in load_rows(f"{domain}_question_answering"):
        for _ in range(3):
            cut = recipe.crop(row, generator, 40, settings)
            assert cut["context"] in row["context"]
            assert bool(cut["answers"]["text"]) == bool(row["answers"]["text"])
            for text, start in zip(cut["answers"]["text"], cut["answers"]["answer_start"], strict=True):
                assert cut["context"][start : start + len(text)] == text
                places.append(start / len(cut["context"]))
    assert min(places) < 0.1
    assert max(places) > 0.7
    assert 0.2 < np.mean(places) < 0.6


def test_some_stretches_stand_beside_the_answer():
    settings = recipe.Settings(negatives=1.0)
    rows = [r for r in load_rows("legal_question_answering") if r["answers"]["text"]]
    cuts = [recipe.crop(row, np.random.default_rng(i), 30, settings) for i, row in enumerate(rows)]
    assert sum(not cut["answers"]["text"] for cut in cuts) > len(cuts) / 2


def test_rows_of_a_step_are_a_function_of_its_number():
    rows = load_rows("legal_question_answering")
    settings = recipe.Settings(steps=30, meta_batch=8)
    assert recipe.batch_rows(rows, 7, settings) == recipe.batch_rows(rows, 7, settings)
    epoch = [r["question"] for step in range(10) for r in recipe.batch_rows(rows[:80], step, settings)]
    assert sorted(epoch) == sorted(r["question"] for r in rows[:80])


def test_sources_may_train_weights():
    assert all(load_card(name).may_train_weights for name in recipe.SOURCES)


@needs_data
def test_sources_hold_no_context_that_squad_is_evaluated_on():
    contexts = {row["context"] for row in recipe.sources(0)}
    for name in ("squad_v1", "squad_v2"):
        for split in ("validation", "test"):
            assert not contexts & {row["context"] for row in load_rows(name, split)}


@needs_data
def test_an_interrupted_run_goes_on_to_the_same_model(tmp_path, monkeypatch):
    def run(folder, *more):
        options = [
            "--output_dir",
            str(tmp_path / folder),
            "--limit=8",
            "--meta_batch=2",
            "--steps=2",
            "--rank=2",
        ]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options, *more])
        assert recipe.main() == 0
        return load_file(tmp_path / folder / "model" / "model.safetensors")

    whole = run("whole")
    run("halves", "--stop_after=1")
    halves = run("halves")
    assert whole.keys() == halves.keys()
    assert all((whole[name] == halves[name]).all() for name in whole)
    model = FewShotQA.from_pretrained(tmp_path / "whole" / "model")
    assert not model.is_adapted
    [found] = model.predict([{"question": "Who pays?", "context": "The buyer pays."}])
    assert found["answer"]
    assert "CC BY-SA" in (tmp_path / "whole" / "model" / "README.md").read_text()
