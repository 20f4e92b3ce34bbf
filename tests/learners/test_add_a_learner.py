"""The page on adding a learner: its code and settings are taken from it and run."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fewshot_nlp import FewShotClassifier, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.training import meta_train
from fewshot_nlp.training.config import parse_config

PAGE = Path(__file__).parents[2] / "docs" / "add_a_learner.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
CODE, TOML, YAML = (text for _, text in BLOCKS)
TEXTS = [
    {"text": "judge and court", "label": "law"},
    {"text": "blood and pain", "label": "drug"},
    {"text": "bank card", "label": "money"},
]
WORDS = [
    {"tokens": ["the", "judge", "was", "late"], "ner_tags": ["O", "B-law", "O", "O"]},
    {"tokens": ["an", "aspirin", "a", "day"], "ner_tags": ["O", "B-drug", "O", "O"]},
]
ANSWERS = [
    {
        "question": "what was it",
        "context": "it was aspirin",
        "answers": {"text": ["aspirin"], "answer_start": [7]},
    },
    {
        "question": "what was it",
        "context": "the judge was late",
        "answers": {"text": ["judge"], "answer_start": [4]},
    },
]


@pytest.fixture
def learner(tmp_path):
    """The page's learner, registered while a test runs."""
    path = tmp_path / "shrunken.py"
    path.write_text(CODE, encoding="utf-8")
    LEARNERS.names()  # the others first
    spec = importlib.util.spec_from_file_location("page_shrunken", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["page_shrunken"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        LEARNERS._items.pop("shrunken", None)
        del sys.modules["page_shrunken"]


def test_the_page_has_a_file_an_entry_point_and_a_yaml():
    assert [kind for kind, _ in BLOCKS] == ["python", "toml", "yaml"]
    assert "shrunken" not in LEARNERS.names()


def test_an_installed_package_adds_the_learner_by_its_entry_point(tmp_path):
    package, info = tmp_path / "my_package", tmp_path / "my_package-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "shrunken.py").write_text(CODE, encoding="utf-8")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", encoding="utf-8"
    )
    ((group, points),) = tomllib.loads(TOML)["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    program = "from fewshot_nlp import LEARNERS; print(LEARNERS.get('shrunken').config_class.__name__)"

    def run() -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    assert run().stdout.strip() == "ShrunkenConfig"
    (package / "shrunken.py").write_text("import nowhere", encoding="utf-8")
    assert (
        "my-package offers the learner 'shrunken', but it cannot be imported: No module named 'nowhere'"
        in (run().stderr)
    )


@pytest.mark.parametrize(
    ("model_class", "rows", "inputs"),
    [
        (FewShotClassifier, TEXTS, ["the court", "a card"]),
        (FewShotNER, WORDS, [["the", "judge"], ["aspirin"]]),
        (FewShotQA, ANSWERS, [{"question": "what was it", "context": "it was late"}]),
    ],
)
def test_adapts_predicts_saves_and_loads(learner, tmp_path, tiny_encoder_folder, model_class, rows, inputs):
    models = [model_class.from_pretrained(tiny_encoder_folder, learner="shrunken").adapt(rows) for _ in "12"]
    states = [model._model.adapted.state for model in models]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())

    def targets(model):
        queries = [model.pipeline.task.query(value) for value in inputs]
        return [p["target"] for p in model._model.predict(queries)]

    models[0].save_pretrained(tmp_path / "model")
    assert targets(model_class.from_pretrained(tmp_path / "model")) == targets(models[0])
    if model_class is FewShotClassifier:
        assert models[0].evaluate(TEXTS)["accuracy"] == 1.0


def test_refuses_translation_in_one_line(learner, tiny_translator_folder):
    model = FewShotTranslator.from_pretrained(tiny_translator_folder, learner="shrunken")
    with pytest.raises(
        FewShotError, match="shrunken gives scores to the classes of its support set only"
    ) as caught:
        model.adapt([{"translation": {"xx": "doolb", "en": "blood"}}])
    assert "\n" not in str(caught.value)


def test_two_outer_steps_from_the_yaml_move_the_learners_parameter(learner, tmp_path, tiny_encoder_folder):
    path = tmp_path / "ner_shrunken.yaml"
    path.write_text(YAML, encoding="utf-8")
    small = ["--outer.steps=2", "--validation.every=2", f"--run.output_dir={tmp_path / 'run'}"]
    config = parse_config([f"--config={path}", f"--encoder.name={tiny_encoder_folder}", *small])
    result = meta_train(config)
    assert [r["val_loss"] for r in result.history if "val_loss" in r]
    trained = FewShotNER.from_pretrained(tmp_path / "run" / "final")
    share = float(trained.pipeline.learner.share.detach())
    assert share != pytest.approx(float(torch.tensor(0.3).logit()), abs=1e-6)
    assert trained.adapt(WORDS).predict([["the", "judge"]])


def test_bad_settings_are_refused_in_one_line(learner):
    with pytest.raises(FewShotError, match=r"shrinkage is 2\.0, but must be a number from 0\.001 to 0\.999"):
        learner.ShrunkenConfig(shrinkage=2.0)
