"""Every YAML in recipes/configs: its command runs, its sources may be used, its knobs are explained."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fewshot_nlp import FewShotClassifier, FewShotNER
from fewshot_nlp.sources import DATA_VARIABLE, load_card
from fewshot_nlp.training import parse_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]
EXPECTED = {
    "classification_maml",
    "classification_prototypical",
    "ner_fine_tune",
    "ner_maml",
    "ner_prototypical",
}
MODELS = {"ner": FewShotNER, "classification": FewShotClassifier}
KEPT_FOR_TARGETS = {"medical", "legal", "finance"}


def test_no_recipe_is_missed() -> None:
    assert set(NAMES) >= EXPECTED


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_launch_command_runs_two_outer_steps(path: Path, tmp_path: Path) -> None:
    header = path.read_text().splitlines()[0]
    words = shlex.split(header.removeprefix("#"))
    variables = dict(word.split("=") for word in words[: words.index("accelerate")])
    launch, *rest = words[words.index("accelerate") + 1 :]
    assert launch == "launch"
    assert rest[-2:] == ["--config", f"recipes/configs/{path.name}"]
    overrides = {
        "outer_steps": "2", "warmup": "0", "n_val_episodes": "2", "val_every": "2", "meta_batch": "2",
        "output_dir": str(tmp_path / "run"),
    }  # fmt: skip
    config = parse_config(["--config", str(path)])
    if not os.environ.get(DATA_VARIABLE):  # then on the package's own corpora
        own = [{"name": f"{domain}_{config.task}"} for domain in ("medical", "legal")]
        overrides |= {"sources": json.dumps(own[:1]), "val_sources": json.dumps(own[1:])}
    command = [sys.executable, "-m", "accelerate.commands.launch", *rest]
    done = subprocess.run(
        [*command, *(f"--{key}={value}" for key, value in overrides.items())],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if "train_loss" in r] == [1, 2]
    assert [r["step"] for r in log if "val_loss" in r] == [0, 2]
    assert done.stdout.split()[-1] == str(tmp_path / "run" / "best")
    for folder in ("best", "final"):
        model = MODELS[config.task].from_pretrained(tmp_path / "run" / folder)
        assert model.pipeline.learner.name == config.learner
        assert model.extra["meta_training"]["config"]["learner"] == config.learner


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_sources_are_permitted_and_apart_from_the_targets(path: Path) -> None:
    config = parse_config(["--config", str(path)])
    assert config.ship
    assert config.targets
    assert config.val_sources
    for source in (*config.sources, *config.val_sources):
        card = load_card(source.name)
        assert card.task == config.task
        assert card.domain not in KEPT_FOR_TARGETS, source.name
        assert set(source.split.split("+")) <= set(card.splits)
    assert all(load_card(source.name).may_train_weights for source in config.sources)
    assert all(load_card(name).domain in KEPT_FOR_TARGETS for name in config.targets)


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_header_states_figures_and_every_knob_is_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = [line for line in lines[1:] if line.startswith("#")]
    figures = re.findall(
        r"validation loss ([\d.]+) -> ([\d.]+)", " ".join(line[1:].strip() for line in header)
    )
    assert len(figures) == 1
    assert re.search(r"\d+ episodes", " ".join(header))
    for key in yaml.safe_load(path.read_text()):
        line = next(line for line in lines if line.startswith(f"{key}:"))
        explained = "#" in line or "#" in lines[lines.index(line) + 1]
        assert explained, f"{path.name}: {key}"
