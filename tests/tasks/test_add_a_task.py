"""The page on adding a task: its file, entry point, card, settings and commands are taken from it and run."""

import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from contract import test_contract as contract
from matrix import make_pipeline

import fewshot_nlp
from fewshot_nlp.cli import main
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sources import cards, load_card, loading, read_rows
from fewshot_nlp.tasks import TASKS

ROOT = Path(fewshot_nlp.__file__).parents[1]
PAGE = (ROOT / "docs" / "add_a_task.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CODE, TOML, USE, COMMANDS, CARD, TRAIN = (text for _, text in BLOCKS)
NAME = "language_marking"
WORDS = {
    "de": ["Haus", "nicht", "morgen", "wir", "gut", "schnell"],
    "en": ["house", "not", "we", "tomorrow", "good"],
}
CHECKS = [check for name, check in vars(contract).items() if name.startswith("test_")]


@pytest.fixture
def task(tmp_path, monkeypatch):
    """The page's task, registered while a test runs."""
    path = tmp_path / f"{NAME}.py"
    path.write_text(CODE, encoding="utf-8")
    TASKS.names()  # the others first
    monkeypatch.setattr(TASKS, "_items", dict(TASKS._items))
    spec = importlib.util.spec_from_file_location(f"page_{NAME}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(task, tmp_path, monkeypatch):
    """A working folder with the page's files, whose data set is known by its card."""
    data = tmp_path / "data"
    for name, text in (("cards/mixed_de_en.yaml", CARD), ("corpora/mixed_de_en.jsonl", lines(24))):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text, encoding="utf-8")
    for module in (cards, loading):
        monkeypatch.setattr(module, "data_folder", lambda: data)
    for name, text in (
        ("rows.jsonl", lines(6, 1)),
        (f"{NAME}.yaml", TRAIN),
        ("texts.txt", "wir house\ngut !\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(number: int, shift: int = 0) -> str:
    """Rows of two words of each language and a full stop, as JSON lines."""
    rows = []
    for i in range(shift, number + shift):
        places = [(mark, i + j * (i // 6 + 1)) for j in (0, 1) for mark in ("de", "en")]
        marked = [(WORDS[mark][place % len(WORDS[mark])], mark) for mark, place in places]
        tokens, marks = zip(*marked, (".", "other"), strict=True)
        rows.append({"tokens": [f"{tokens[0]}{i}", *tokens[1:]], "languages": marks})
    return "".join(json.dumps(row) + "\n" for row in rows)


def toy_rows(n_per_label, seed):
    """The toy of entities, with a mark for each word."""
    rows = contract.ROWS["ner"](n_per_label, seed)
    marks = [[tag[2:] or "other" for tag in row["ner_tags"]] for row in rows]
    return [{"tokens": row["tokens"], "languages": m} for row, m in zip(rows, marks, strict=True)]


def renamed(rows, names):
    return [{**row, "languages": [names.get(mark, mark) for mark in row["languages"]]} for row in rows]


def test_the_page_adds_one_file(task):
    assert [kind for kind, _ in BLOCKS] == ["python", "toml", "python", "bash", "yaml", "yaml"]
    assert NAME in TASKS.names()
    told = [
        path
        for path in (ROOT / "fewshot_nlp").rglob("*")
        if path.is_file() and NAME.encode() in path.read_bytes()
    ]
    assert told == []


def test_no_list_of_tasks_stands_outside_their_folder():
    """Two names of tasks as texts in one statement are the begin of such a list."""
    names = "|".join(TASKS.names())
    listed = re.compile(rf'(["\'])({names})\1[^\n]*\n?[^\n]*(["\'])(?!\2)({names})\3')
    package = ROOT / "fewshot_nlp"
    others = [path for path in package.rglob("*.py") if "tasks" not in path.parts]
    assert [path for path in others if listed.search(path.read_text(encoding="utf-8"))] == []


def test_python_of_the_page_runs(folder):
    names: dict = {}
    exec(compile(USE, "add_a_task.md", "exec"), names)
    assert [len(marks) for marks in names["marks"]] == [6]
    assert set(names["marks"][0]) <= {"de", "en", "other"}
    card = (folder / "my-model" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: token-classification" in card
    assert "from fewshot_nlp import FewShotModel" in card
    loaded = names["FewShotModel"].from_pretrained(folder / "my-model")
    assert loaded.predict(["Das ist really nicht nice ."]) == names["marks"]
    assert loaded.pipeline.learner.config.C == 10.0
    assert loaded.pipeline.learner.encoder.layers == (3,)


def test_commands_of_the_page_run(folder, capsys):
    said = []
    for line in COMMANDS.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "fewshot-nlp"
        few = ["--outer.steps", "2", "--validation.every", "2"] if arguments[0] == "train" else []
        with pytest.raises(SystemExit) as end:
            main([*arguments, *few])
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        said.append(out)
    adapted, _, scored, drawn, trained = said
    assert "linear_probe adapted to 6 rows" in adapted
    assert "2 labels: de, en" in adapted
    assert [row["tokens"] for row in read_rows("found.conll")] == [["wir", "house"], ["gut", "!"]]
    assert float(re.search(r"word_accuracy (\S+)", scored)[1]) > 0.9  # its own support rows
    assert "sampler=n_way_k2k_shot" in drawn
    assert "word_accuracy" in trained
    assert (folder / "runs" / NAME / "final" / "README.md").is_file()


def test_the_card_is_checked_by_the_tasks_columns(folder, tmp_path):
    assert load_card("mixed_de_en").labels == ("de", "en")
    path = tmp_path / "mixed_de_en.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(CARD), "columns": {"text": "text"}}))
    with pytest.raises(FewShotError, match="language_marking needs: tokens, languages"):
        cards.read_card(path)


def test_rows_and_changes_that_do_not_suit_are_refused_in_one_line(task, tiny_encoder_folder):
    from fewshot_nlp import FewShotModel
    from fewshot_nlp.training.augmentation import Augmentation

    with pytest.raises(FewShotError, match=r"no column 'tokens', which language_marking needs"):
        read_rows([{"words": ["a"], "languages": ["en"]}], NAME)
    model = FewShotModel.from_pretrained(tiny_encoder_folder, task=NAME)
    with pytest.raises(FewShotError, match="Row 1: 2 tokens but 1 languages"):
        model.adapt([{"tokens": ["a", "b"], "languages": ["en"]}])
    with pytest.raises(FewShotError, match="word_dropout does not fit language_marking"):
        Augmentation(word_dropout=0.1).check_fits(TASKS.get(NAME))


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_contract_holds_with_a_learner(check, task, tiny_folders, tmp_path, monkeypatch):
    monkeypatch.setitem(contract.ROWS, NAME, toy_rows)
    monkeypatch.setitem(contract.BAR, NAME, 0.8)  # a word is "other" five times out of seven
    monkeypatch.setattr(contract, "rename", renamed)

    def make(task, learner, **config):
        return make_pipeline(tiny_folders, task, learner, **config)

    known = {"task": NAME, "learner": "linear_probe", "make": make, "tmp_path": tmp_path}
    known["adapted_once"] = contract.adapting_once(make)
    names = inspect.signature(check).parameters
    if "shared" in names:
        known["shared"] = known["adapted_once"](NAME, "linear_probe")[0]
    check(**{name: known[name] for name in names})


def test_an_installed_package_adds_the_task_to_the_command_line(tmp_path):
    package, info = tmp_path / "my_package", tmp_path / "my_package-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / f"{NAME}.py").write_text(CODE, encoding="utf-8")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", encoding="utf-8"
    )
    ((group, points),) = tomllib.loads(TOML)["project"]["entry-points"].items()
    entries = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(entries), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "fewshot_nlp", "tasks", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout)[NAME]["columns"] == [["tokens", "languages"]]


def test_a_learner_has_the_settings_that_suit_the_task_whether_it_is_named_or_not(task, tiny_encoder_folder):
    from fewshot_nlp import FewShotModel, FewShotTranslator

    def settings(**options):
        learner = FewShotModel.from_pretrained(tiny_encoder_folder, task=NAME, **options).pipeline.learner
        return learner.name, learner.config.to_dict(), learner.encoder.layers

    assert settings() == settings(learner="linear_probe")
    assert settings(learner="linear_probe")[1]["C"] == 10.0
    assert settings(learner="linear_probe", learner_config={"C": 2.0}, layers=(2,))[1:] == (
        {**settings()[1], "C": 2.0},
        (2,),
    )
    assert settings(learner="ridge")[2] == (
        2,
    )  # of another learner nothing is said: its own settings, the last layer
    memory = FewShotTranslator.from_pretrained(learner="nearest_neighbour").pipeline.learner.config
    assert (memory.k, memory.metric, memory.half) == (8, "euclidean", True)
