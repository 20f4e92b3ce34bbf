"""The recipe of the start of entities: what a step reads, that it can be broken off, and what it writes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from fewshot_nlp import FewShotNER

ROOT = Path(__file__).parents[2]
import train_label_names as recipe  # noqa: E402

SOURCES = {"medical_ner": ["train"], "legal_ner": ["train"], "finance_ner": ["train"]}
SETTINGS = recipe.Settings(
    sources=SOURCES, names={"DRUG": ["drug", "a medicine"]}, meta_batch=4, groups=2, steps=3
)


@pytest.fixture(scope="module")
def sources():
    return [recipe.Source(name, splits, 60) for name, splits in sorted(SOURCES.items())]


def test_the_rows_of_a_step_are_a_function_of_its_number(sources):
    one, two, other = (recipe.batch_of(sources, step, SETTINGS) for step in (5, 5, 6))
    assert one == two
    assert one != other
    assert len({number for number, *_ in one}) == 2
    assert [len(rows) for _, rows, _, _ in one] == [2, 2]


def test_types_that_are_not_asked_for_are_the_rest(sources):
    asked, all_asked, words = set(), 0, set()
    for step in range(60):
        for number, rows, types, names in recipe.batch_of(sources, step, SETTINGS):
            found = {tag[2:] for e in rows for tag in e.target if tag != "O"}
            assert found <= set(types) <= set(sources[number].types)
            all_asked += types == sources[number].types
            asked |= set(types)
            words |= {w for t, w in zip(types, names, strict=True) if t == "DRUG"}
    assert asked == {t for source in sources for t in source.types}
    assert 30 < all_asked < 95  # about half of 120 times
    assert words == {"drug", "a medicine"}


def test_rare_types_are_drawn_as_often_as_others(sources):
    random = np.random.default_rng(0)
    settings = recipe.Settings(sources=SOURCES, by_type=1.0, subset=0.0)
    source = sources[0]
    rows, types = source.draw(random, 3000, settings)
    has = [sum(any(tag.endswith(f"-{t}") for tag in e.target) for e in rows) for t in types]
    assert min(has) > 3000 / len(types) * 0.8


def test_a_run_that_was_broken_off_goes_on_and_its_model_loads(tmp_path, monkeypatch):
    def run(folder, config, *arguments):
        options = ["--config", str(config), "--output_dir", str(folder), *arguments]
        monkeypatch.setattr(sys, "argv", ["train_label_names.py", *options])
        assert recipe.main() == 0
        return load_file(folder / "model" / "model.safetensors")

    config = tmp_path / "config.yaml"
    values = {"sources": SOURCES, "meta_batch": 4, "groups": 2, "steps": 3, "rank": 2, "interpolation": 0.5}
    config.write_text(yaml.safe_dump(values))
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "broken", config, "--stop_after", "1")
    broken = run(tmp_path / "broken", config)
    assert whole.keys() == broken.keys()
    assert all((whole[name] == broken[name]).all() for name in whole)
    model = FewShotNER.from_pretrained(tmp_path / "whole" / "model")
    assert model.pipeline.learner.encoder.layers == (3, 5)
    assert model.adapt([], labels=["drug"]).predict(["Give aspirin."]) is not None
