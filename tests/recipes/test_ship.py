"""What ships: each YAML in recipes/ship opens with its command, names no target and only sources that may be trained
on."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from processes import run_program

from fewshot_nlp.backbone.bundled import PRETRAINED, shipped_folder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sources import load_card

ROOT = Path(__file__).parents[2]
SHIP = sorted((ROOT / "recipes" / "ship").glob("*.yaml"))
RECIPES = {
    "ner": "train_label_names.py",
    "question_answering": "train_question_answering.py",
    "translation": "pretrain_seq2seq.py",
}
TARGETS = {"medical", "legal", "finance"}


def test_every_shipped_model_has_its_recipe_and_checksum():
    folders = {path.parent.name for path in PRETRAINED.glob("*/model.safetensors")}
    assert folders == {path.stem for path in SHIP} == set(RECIPES)
    for name in folders:
        assert shipped_folder(name) == PRETRAINED / name
        assert (PRETRAINED / name / "README.md").is_file()
    assert sum(path.stat().st_size for path in PRETRAINED.rglob("*") if path.is_file()) < 40 * 2**20


@pytest.mark.parametrize("path", SHIP, ids=[path.stem for path in SHIP])
def test_a_recipe_opens_with_its_command_and_the_script_takes_it(path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    command = " ".join(
        line.lstrip("# ").rstrip("\\") for line in text.splitlines() if line.startswith("#   ")
    )
    assert f"recipes/{RECIPES[path.stem]}" in " ".join(command.split())
    assert f"--config recipes/ship/{path.name}" in " ".join(command.split())
    script = ROOT / "recipes" / RECIPES[path.stem]
    arguments = ["--corpus", "nowhere"] if path.stem == "translation" else []
    options = [*arguments, "--config", str(path), "--output_dir", "x", "--help"]
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0


def test_the_sources_of_entities_are_no_targets_and_may_be_trained_on():
    settings = yaml.safe_load((ROOT / "recipes" / "ship" / "ner.yaml").read_text(encoding="utf-8"))
    for name in settings["sources"]:
        card = load_card(name)
        assert card.domain not in TARGETS, name
        assert card.may_train_weights, name


def test_an_unknown_key_is_refused_in_one_line(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("stepz: 3\n")
    recipe = str(ROOT / "recipes" / "train_question_answering.py")
    done = run_program(recipe, ["--config", bad, "--output_dir", tmp_path / "out"], tmp_path)
    assert done.returncode == 2
    assert "unknown key stepz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_weight_is_refused(tmp_path, monkeypatch):
    import shutil

    import fewshot_nlp.backbone.bundled as bundled

    copy = shutil.copytree(PRETRAINED, tmp_path / "pretrained")
    weights = copy / "ner" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    monkeypatch.setattr(bundled, "PRETRAINED", copy)
    with pytest.raises(FewShotError, match="ships: the file was changed or cut short"):
        bundled.shipped_folder("ner")
    weights.unlink()
    with pytest.raises(FewShotError, match="is missing; reinstall"):
        bundled.shipped_folder("ner")
