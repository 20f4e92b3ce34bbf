"""The cards of the models that ship: what they name exists, and is what the files hold."""

import json
import re
from inspect import signature
from pathlib import Path

import pytest

from fewshot_nlp.backbone.bundled import PRETRAINED
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.settings import hints_of
from fewshot_nlp.tasks import TASKS

RECIPES = Path(__file__).parents[2] / "recipes"
FOLDERS = sorted(path.parent.name for path in PRETRAINED.glob("*/README.md"))
LAUNCHER = {"cpu", "num_processes", "mixed_precision"}


def card_of(name: str) -> str:
    return (PRETRAINED / name / "README.md").read_text(encoding="utf-8")


def named(card: str, row: str) -> dict[str, object]:
    """The settings in a row of the card's table."""
    [line] = re.findall(rf"^\| {row} \|.*$", card, re.MULTILINE)
    return {name: json.loads(value) for name, value in re.findall(r"`(\w+)=([^`]*)`", line)}


def test_every_shipped_model_has_a_card():
    assert sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()) == FOLDERS


@pytest.mark.parametrize("name", [n for n in FOLDERS if (PRETRAINED / n / "fewshot_nlp.json").exists()])
def test_settings_exist_and_are_those_of_the_file(name):
    held = json.loads((PRETRAINED / name / "fewshot_nlp.json").read_text(encoding="utf-8"))
    settings, options = named(card_of(name), "Settings"), named(card_of(name), "Task")
    assert set(settings) == set(hints_of(LEARNERS.get(held["learner"]).config_class))
    assert settings == held["learner_config"]
    assert set(options) == set(signature(TASKS.get(name)).parameters)
    assert options.items() >= held["task_options"].items()


@pytest.mark.parametrize("name", FOLDERS)
def test_flags_of_commands_exist(name):
    blocks = re.findall(r"```bash\n(.*?)```", card_of(name), re.DOTALL)
    known = LAUNCHER | {
        word for path in RECIPES.glob("*.py") for word in re.findall(r"\w+", path.read_text("utf-8"))
    }
    flags = {flag for block in blocks for flag in re.findall(r" --(\w+)", block)}
    assert flags
    assert flags <= known


@pytest.mark.parametrize("name", FOLDERS)
def test_scores_are_there(name):
    """No card says of itself that it was not measured while it shows figures."""
    card = card_of(name)
    scores = card.partition("## Scores")[2].partition("\n## ")[0]
    assert re.search(r"\d\.\d", scores)
    assert "| not measured |" not in scores
    assert "Not measured." not in scores
    assert "Its quality: not measured" not in card
