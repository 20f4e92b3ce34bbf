"""Every YAML in recipes/configs: its command runs, its sources may be used, its knobs are explained."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import meta_train
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from fewshot_nlp import FewShotClassifier, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.episode import TaskDataset
from fewshot_nlp.sources import DATA_VARIABLE, load_card
from fewshot_nlp.tasks import Task
from fewshot_nlp.training import MetaTrainConfig, episodes, parse_config
from fewshot_nlp.training.config import Source

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]
EXPECTED = {
    "classification_amortized",
    "classification_bayesian",
    "classification_maml",
    "classification_matching",
    "classification_prototypical",
    "classification_reptile",
    "classification_ridge",
    "ner_fine_tune",
    "ner_initializer",
    "ner_maml",
    "ner_memory_augmented",
    "ner_meta_sgd",
    "ner_prototypical",
    "question_answering_maml",
    "question_answering_prototypical",
    "translation_maml",
}
MACHINES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
EXPECTED_MACHINES = {  # processes, machines
    "one_gpu": (1, 1),
    "two_cpu_processes": (2, 1),
    "eight_gpus": (8, 1),
    "two_machines_of_eight": (16, 2),
}
MODELS = {
    "ner": FewShotNER,
    "classification": FewShotClassifier,
    "question_answering": FewShotQA,
    "translation": FewShotTranslator,
}
KEPT_FOR_TARGETS = {"medical", "legal", "finance"}


def first_command(path: Path) -> str:
    """The command that a YAML opens with."""
    return path.read_text().splitlines()[0].removeprefix("# ")


README_COMMANDS = re.findall(
    r"^.*accelerate launch .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE
)
OTHER_COMMANDS = [command for command in map(first_command, CONFIGS) if command not in README_COMMANDS]


def test_no_recipe_is_missed() -> None:
    assert set(NAMES) >= EXPECTED
    assert {path.stem for path in MACHINES} == set(EXPECTED_MACHINES)
    assert all(first_command(path).endswith(f"--config recipes/configs/{path.name}") for path in CONFIGS)
    assert first_command(ROOT / "recipes" / "accelerate" / "two_cpu_processes.yaml") in README_COMMANDS


def config_of(command: str) -> MetaTrainConfig:
    return parse_config(shlex.split(command.partition("recipes/meta_train.py")[2]))


def two_steps(command: str, folder: Path, processes: int = 1, *, own_corpora: bool = False) -> list[str]:
    """What is added to a command, so that it runs two outer steps of an episode a process into a folder.

    Args:
        command: a launch command.
        folder: the run's.
        processes: that are launched.
        own_corpora: on the small corpora of the package; so where there are no others.
    """
    task = config_of(command).task
    overrides = {
        "outer.steps": "2", "outer.warmup": "0", "outer.meta_batch": str(processes),
        "validation.n_episodes": "2", "validation.every": "2", "run.output_dir": str(folder),
        "data.sampler.n_query": "1",
    }  # fmt: skip
    if own_corpora or not os.environ.get(DATA_VARIABLE):
        own = [{"name": f"{domain}_{task}"} for domain in ("medical", "legal")]
        overrides |= {"data.sources": json.dumps(own[:1]), "validation.sources": json.dumps(own[1:])}
        overrides["data.targets"] = json.dumps([f"finance_{task}"])
    return [f"--{key}={value}" for key, value in overrides.items()]


def assert_it_ran(command: str, folder: Path, stdout: str, processes: int) -> None:
    """The log has two steps and two validations, the models load, and stdout ends with the best one's folder."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if "train_loss" in r] == [1, 2]
    assert [r["step"] for r in log if "val_loss" in r] == [0, 2]
    assert [r["processes"] for r in log if "train_loss" in r] == [processes] * 2
    assert stdout.split()[-1] == str(folder / "best")
    config = config_of(command)
    for name in ("best", "final"):
        model = MODELS[config.task].from_pretrained(folder / name)
        assert model.pipeline.learner.name == config.learner
        assert model.extra["meta_training"]["config"]["learner"] == config.learner


@pytest.mark.parametrize("command", README_COMMANDS, ids=lambda command: Path(command.split()[-1]).stem)
def test_launch_command_runs_two_outer_steps(command: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    processes = 2 if "two_cpu_processes" in command else 1
    added = two_steps(command, tmp_path / "run", processes, own_corpora=True)
    done = subprocess.run(
        ["bash", "-c", f"{command} {shlex.join(added)}"], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert_it_ran(command, tmp_path / "run", done.stdout, processes)


@pytest.fixture(scope="module")
def sources() -> dict[str, TaskDataset]:
    """Sources that were read; most recipes of a task have the same."""
    return {}


@pytest.fixture
def each_source_once(sources: dict[str, TaskDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thousand rows of each source; a run does not change a data set, so none is read anew for the next recipe."""
    read, load = episodes.read_source, episodes.load_rows

    def some_rows(name: str, split: str) -> list[dict[str, Any]]:
        rows = load(name, split)
        return rows[:: max(1, len(rows) // 5000)]

    monkeypatch.setattr(episodes, "load_rows", some_rows)

    def read_or_known(source: Source, task: Task) -> TaskDataset:
        key = repr((source, task.name, task.to_dict()))
        if key not in sources:
            sources[key] = read(source, task)
        return sources[key]

    monkeypatch.setattr(episodes, "read_source", read_or_known)


@pytest.mark.usefixtures("each_source_once")
@pytest.mark.parametrize("command", OTHER_COMMANDS, ids=lambda command: Path(command.split()[-1]).stem)
def test_script_of_a_launch_command_runs_two_outer_steps(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the launcher would start it, but in this process: the launcher itself is tested with README's commands."""
    *variables, accelerate, launch = command.partition(" --cpu")[0].split()
    assert (variables, accelerate, launch) == (["OMP_NUM_THREADS=1"], "accelerate", "launch")
    given = launch_command_parser().parse_args(shlex.split(command)[3:])
    assert (given.cpu, given.num_processes) == (True, 1)
    assert given.training_script == "recipes/meta_train.py"
    added = two_steps(command, tmp_path / "run")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [given.training_script, *given.training_script_args, *added])
    assert meta_train.main() == 0
    assert_it_ran(command, tmp_path / "run", capsys.readouterr().out, processes=1)


@pytest.mark.parametrize("path", MACHINES, ids=[path.stem for path in MACHINES])
def test_machines_are_described_as_accelerate_reads_them(path: Path) -> None:
    """Those with more than one GPU cannot be started here; accelerate's own reader refuses unknown keys."""
    told = load_config_from_file(str(path))
    processes, machines = EXPECTED_MACHINES[path.stem]
    assert (told.num_processes, told.num_machines) == (processes, machines)
    command = shlex.split(first_command(path))
    given = launch_command_parser().parse_args(command[command.index("launch") + 1 :])
    assert given.config_file == str(path.relative_to(ROOT))
    assert given.training_script == "recipes/meta_train.py"
    assert parse_config(given.training_script_args).outer.meta_batch % processes == 0


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_sources_are_permitted_and_apart_from_the_targets(path: Path) -> None:
    config = parse_config(["--config", str(path)])
    assert config.data.ship
    assert config.data.targets
    assert config.validation.sources
    for source in (*config.data.sources, *config.validation.sources):
        card = load_card(source.name)
        assert card.task == config.task
        assert card.domain not in KEPT_FOR_TARGETS, source.name
        assert set(source.split.split("+")) <= set(card.splits)
    assert all(load_card(source.name).may_train_weights for source in config.data.sources)
    assert all(load_card(name).domain in KEPT_FOR_TARGETS for name in config.data.targets)


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
