"""Meta-training on own files: one command, a file of settings with comments, and the recipes of the wheel."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fewshot_nlp.cli import main
from fewshot_nlp.training import parse_config
from fewshot_nlp.training.recipes import own_recipe, recipe_names

ROOT = Path(__file__).parents[2]
WORDS = "give take order tell get more not will".split()  # noqa: SIM905 - as one reads them


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, types in {"a": ("DRUG", "DAY"), "b": ("LAW", "CARD"), "c": ("BANK", "BOOK")}.items():
        rows = [
            {"tokens": [word, kind.lower(), "and", word], "ner_tags": ["O", f"B-{kind}", "O", "O"]}
            for word in WORDS
            for kind in types
        ]
        found[name] = tmp_path / f"{name}.jsonl"
        found[name].write_text("\n".join(map(json.dumps, rows)))
    return found


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return int(ended.value.code or 0)


def test_train_on_files(
    files: dict[str, Path], tiny_encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "--task",
        "ner",
        "--sources",
        files["a"],
        files["b"],
        "--val",
        files["c"],
        "--out",
        tmp_path / "run",
    ]
    small = ["--encoder.name", tiny_encoder_folder, "--outer.steps", 2, "--outer.warmup", 0]
    small += [
        "--validation.n_episodes",
        2,
        "--validation.every",
        1,
        "--outer.meta_batch",
        1,
        "--top_layers",
        1,
    ]
    assert run("train", *given, *small) == 0
    assert f"saved to {tmp_path / 'run' / 'best'}" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [source["name"] for source in config["data"]["sources"]] == [str(files["a"]), str(files["b"])]
    assert (config["learner"], config["data"]["sampler"]["n_way"]) == ("prototypical", 3)  # of the recipe


def test_init_writes_what_train_reads(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    assert (
        run("init", "--task", "ner", "--sources", files["a"], files["b"], "--val", files["c"], "--out", out)
        == 0
    )
    text = out.read_text()
    assert f'{{name: "{files["a"]}"}}  # 16 rows, 2 labels' in text
    assert "# types in an episode; more is harder and slower" in text
    config = parse_config(["--config", str(out)])
    assert [s.name for s in config.validation.sources] == [str(files["c"])]
    assert (config.data.targets, config.data.ship) == ((), False)
    assert run("init", "--task", "ner", "--sources", files["a"], "--out", out) == 2
    assert "mine.yaml exists; name another file with --out" in capsys.readouterr().err
    assert (
        run("init", "--task", "ner", "--sources", tmp_path / "none.jsonl", "--out", tmp_path / "new.yaml")
        == 2
    )
    assert "There is no file" in capsys.readouterr().err


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_serves_own_data(name: str) -> None:
    """With and without validation; what else stands in the recipe stays."""
    task = next(
        t for t in ("classification", "ner", "question_answering", "translation") if name.startswith(t)
    )
    learner = name.removeprefix(task + "_")
    cards = {"classification": ["clinc150", "hwu64"], "ner": ["wnut17", "scierc"]}.get(
        task,
        ["squad_v1", "covid_qa"] if task == "question_answering" else ["tatoeba_de_en", "multi30k_de_en"],
    )
    recipe = yaml.safe_load((ROOT / "recipes" / "configs" / f"{name}.yaml").read_text())
    for val in ([], cards[1:]):
        made = yaml.safe_load(own_recipe(task, cards[:1], val, "here", learner))
        assert made["data"]["sources"] == [{"name": cards[0]}]
        assert made.get("validation", {}).get("sources", []) == [{"name": n} for n in val]
        assert made["run"] == {**recipe["run"], "output_dir": "here"}
        assert made["outer"] == recipe["outer"]
        assert made["data"]["sampler"] == recipe["data"]["sampler"]


def test_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("recipes") == run("recipes", "list") == 0
    assert "ner_prototypical\n" in capsys.readouterr().out
    assert run("recipes", "copy", "ner_maml") == 0
    assert Path("ner_maml.yaml").read_text() == (ROOT / "recipes" / "configs" / "ner_maml.yaml").read_text()
    assert run("recipes", "copy", "ner_mamml") == 2
    assert "There is no recipe 'ner_mamml'. Did you mean 'ner_maml'?" in capsys.readouterr().err
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert packed["force-include"]["recipes/configs"] == "fewshot_nlp/_recipes"


def test_refusals(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--sources", files["a"]) == 2
    assert "--sources needs --task" in capsys.readouterr().err
    assert run("train", "--task", "ner", "--sources", files["a"], "--learner", "ridge") == 2
    assert "No recipe has ridge for ner; take one of: " in capsys.readouterr().err
