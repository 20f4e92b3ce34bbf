"""Benchmarks on tiny data sets of their own: cards, rows and a YAML file in a folder."""

import itertools
import json
import re

import pytest
import yaml
from toys import ROWS

from fewshot_nlp import FewShotError
from fewshot_nlp.arguments import merged
from fewshot_nlp.cli import main
from fewshot_nlp.comparison import grid, trained
from fewshot_nlp.comparison.benchmark import (
    benchmark_file,
    benchmark_names,
    freeze,
    manifest_of,
    read_benchmark,
    run_benchmark,
)
from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.frozen import read_manifest
from fewshot_nlp.sources import cards
from fewshot_nlp.tasks import TASKS

COLUMNS = {
    "classification": ("text", "label"),
    "ner": ("tokens", "ner_tags"),
    "question_answering": ("context", "question", "answers"),
    "translation": ("translation",),
}


def write_set(folder, task, name, splits, domain="legal"):
    """A data set's rows and its card."""
    import gzip

    where = folder / "data" / name
    where.mkdir(parents=True)
    for split, rows in splits.items():
        (where / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    kind, labels = TASKS.get(task), []
    if kind.has_labels:
        labels = list(kind().labels(kind().examples([r for rows in splits.values() for r in rows])))
    card = {
        "name": name,
        "task": task,
        "domain": domain,
        "language": ["xx", "en"] if task == "translation" else ["en"],
        "licence": "none",
        "licence_class": "permissive",
        "may_train_weights": False,
        "folder": name,
        "columns": {c: c for c in COLUMNS[task]},
        "splits": {split: len(rows) for split, rows in splits.items()},
        "labels": labels,
        "citation": "nobody",
    }
    (folder / "cards").mkdir(exist_ok=True)
    (folder / "cards" / f"{name}.yaml").write_text(yaml.safe_dump(card))


def spoken(row):
    """The row with other case and marks, as one that copies a text would have it."""
    return {**row, "text": f"{row['text'].upper()}!"}


@pytest.fixture
def world(tmp_path, monkeypatch, tiny_encoder_folder):
    """Two targets and a source for texts; returns the benchmark's YAML file."""
    monkeypatch.setattr(cards, "data_folder", lambda: tmp_path)
    monkeypatch.setenv("FEWSHOT_NLP_DATA", str(tmp_path / "data"))
    rows = {
        name: ROWS["classification"](12, seed) for seed, name in enumerate(("first", "second", "general"))
    }
    write_set(tmp_path, "classification", "first", {"train": rows["first"][:20], "test": rows["first"][20:]})
    write_set(
        tmp_path, "classification", "second", {"train": rows["second"][:20], "test": rows["second"][20:]}
    )
    leak = spoken(rows["first"][21])
    write_set(tmp_path, "classification", "general", {"train": [*rows["general"][:5], leak]}, "general")
    learners = {
        "default": {"learner": "prototypical", "name": str(tiny_encoder_folder)},
        "ridge": {"learner": "ridge", "name": str(tiny_encoder_folder)},
        "logistic regression": {"learner": "linear_probe", "name": str(tiny_encoder_folder)},
        "majority": {"learner": "linear_probe", "name": str(tiny_encoder_folder), "kind": "majority"},
    }
    made = {
        "task": "classification",
        "sources": {"general": ["train"]},
        "targets": {"legal": ["first"], "finance": ["second"]},
        "learners": learners,
        "baseline": "logistic regression",
        "budgets": {
            "10m": {"k_shot": [1, 2], "repeats": 3, "scored": 8},
            "full": {"k_shot": [1, 2, 3], "repeats": 3, "scored": 10},
        },
        "ngram": 5,
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    freeze(str(path))
    return path


def change(path, **values):
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))


class TestRuns:
    def test_every_learner_has_a_score_on_every_target(self, world):
        found = run_benchmark(str(world))
        assert found.shots == (1, 2)
        assert set(found.targets) == {"first", "second"}
        for name in found.names:
            means = [mine.score(name, 2) for mine in found.targets.values()]
            assert found.mean(name, 2).mean == pytest.approx(sum(m.mean for m in means) / 2)
            assert found.mean(name, 2).half == pytest.approx(sum(m.half**2 for m in means) ** 0.5 / 2)
            assert all(m.n == 3 for m in means)
        assert found.headline.startswith("Best over 2 targets with 2 examples a label: ")
        assert found.facts["made"] == found.facts["cells"] == 2 * 4 * 2 * 3

    def test_the_calibration_error_is_that_of_all_predictions(self, world):
        found = run_benchmark(str(world)).targets["first"]
        sure, right = found.decisions("ridge", 2)
        assert len(sure) == 3 * 8
        assert right.mean() == pytest.approx(found.score("ridge", 2).mean)
        assert found.table()[0][3] == "calibration error"
        assert 0 <= found.calibration("ridge", 2)["ece_15_bins"] <= 1

    def test_cut_short_and_resumed_equals_unbroken(self, world, tmp_path):
        whole = run_benchmark(str(world), path=tmp_path / "whole.jsonl")
        path = tmp_path / "cut.jsonl"
        lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:9]) + lines[9][:30])
        again = run_benchmark(str(world), path=path)
        for target, mine in whole.targets.items():
            for name in whole.names:
                assert again.targets[target].score(name, 2) == mine.score(name, 2)

    def test_no_time_leaves_a_run_that_goes_on(self, world, tmp_path):
        path = tmp_path / "parts.jsonl"
        found = run_benchmark(str(world), budget=1e-9, path=path)
        assert found.facts["made"] == 0
        assert "run the same command again" in found.headline
        assert run_benchmark(str(world), path=path).facts["made"] == 48

    def test_learners_that_all_refuse_leave_a_page_of_reasons(self, world, tmp_path, monkeypatch):
        refused = {"refused": "it has no mind to"}
        monkeypatch.setattr(grid, "run_part", lambda c, e, key: {"key": key, "learner": c.name, **refused})
        found = run_benchmark(str(world))
        assert "refused: it has no mind to" in found.write_page(tmp_path / "page.html").read_text()
        assert found.to_json()["targets"] == {}

    def test_a_package_that_is_not_installed_is_left_out_and_named(self, world, monkeypatch):
        monkeypatch.delenv("FEWSHOT_NLP_PEERS", raising=False)
        learners = yaml.safe_load(world.read_text())["learners"] | {"SetFit": {"kind": "setfit"}}
        change(world, learners=learners)
        found = run_benchmark(str(world), budget=1e-9)
        assert "SetFit" not in found.names
        assert "Left out, not installed: SetFit (python -m venv peers" in found.protocol

    def test_a_file_of_another_budget_is_refused(self, world, tmp_path):
        path = tmp_path / "parts.jsonl"
        run_benchmark(str(world), budget=1e-9, path=path)
        with pytest.raises(FewShotError, match=r"another run \(another budget\)"):
            run_benchmark(str(world), budget="full", path=path)

    def test_the_command_writes_a_page(self, world, tmp_path, capsys):
        page = tmp_path / "page.html"
        with pytest.raises(SystemExit, match="0"):
            main(["evaluate", "--benchmark", str(world), "--page", str(page), "--json"])
        said = json.loads(capsys.readouterr().out)
        assert set(said["targets"]) == {"first", "second"}
        assert said["headline"] in page.read_text()
        assert "Learners by targets" in page.read_text()
        assert said["headline"] in page.with_suffix(".md").read_text()

    @pytest.mark.parametrize("task", ["ner", "question_answering", "translation"])
    def test_other_tasks(self, task, tmp_path, monkeypatch, tiny_encoder_folder, tiny_translator_folder):
        monkeypatch.setattr(cards, "data_folder", lambda: tmp_path)
        monkeypatch.setenv("FEWSHOT_NLP_DATA", str(tmp_path / "data"))
        rows = ROWS[task](8, 0)
        half = len(rows) // 2
        write_set(tmp_path, task, "target", {"train": rows[:half], "test": rows[half:]})
        folder = str(tiny_translator_folder if task == "translation" else tiny_encoder_folder)
        learners = {"default": {"learner": "nearest_neighbour", "name": folder}}
        made = {"task": task, "targets": {"legal": ["target"]}, "learners": learners, "baseline": "default"}
        made["budgets"] = {"10m": {"k_shot": [2], "repeats": 3, "scored": 5}}
        path = tmp_path / "one.yaml"
        path.write_text(yaml.safe_dump(made, sort_keys=False))
        freeze(str(path))
        assert run_benchmark(str(path)).mean("default", 2).n == 3


TRAINING = {
    "learner": "prototypical",
    "data": {"sources": [{"name": "wide"}], "sampler": {"n_way": 2, "k_shot": 1, "n_query": 1}},
    "outer": {"steps": 2, "meta_batch": 1},
    "adapter": {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": "all-linear"},
}
"""Shared by the meta-trained learners of a benchmark."""


class TestMetaTrainedLearners:
    @pytest.fixture
    def training(self, world, tiny_encoder_folder):
        """The benchmark's file, with two meta-trained learners beside the others."""
        write_set(world.parent, "classification", "wide", {"train": ROWS["classification"](6, 3)}, "general")
        learners = {
            "trained": {"train": {}},
            "smoothed": {"train": {"outer.label_smoothing": 0.5}},
            "logistic regression": {"learner": "linear_probe", "name": str(tiny_encoder_folder)},
        }
        shared = TRAINING | {"encoder": {"name": str(tiny_encoder_folder)}}
        budgets = {"10m": {"k_shot": [1], "repeats": 3, "scored": 8, "training": {"outer.lr": 0.01}}}
        change(world, sources={"wide": ["train"]}, learners=learners, training=shared, training_seeds=2)
        change(world, budgets=budgets)
        freeze(str(world))
        return world

    def test_repeats_take_the_models_of_the_training_seeds_in_turn(self, training, tmp_path):
        path = tmp_path / "parts.jsonl"
        found = run_benchmark(str(training), path=path)
        assert found.facts["made"] == found.facts["cells"] == 2 * 3 * 3
        folders = sorted((tmp_path / "parts.jsonl.models").iterdir())
        configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
        assert sorted((c["run"]["seed"], c["outer"]["label_smoothing"]) for c in configs) == [
            (0, 0.0),
            (0, 0.5),
            (1, 0.0),
            (1, 0.5),
        ]
        assert {c["outer"]["lr"] for c in configs} == {0.01}
        [candidate] = [c for c in found.targets["first"].candidates if c.name == "trained"]
        assert len({candidate.at(repeat).identity() for repeat in range(3)}) == 2
        assert candidate.at(0).identity() == candidate.at(2).identity()

    def test_what_is_there_is_not_trained_again(self, training, tmp_path, monkeypatch):
        path = tmp_path / "parts.jsonl"
        first = run_benchmark(str(training), path=path)
        monkeypatch.delattr(trained, "meta_train")
        again = run_benchmark(str(training), path=path)
        assert again.mean("trained", 1) == first.mean("trained", 1)

    @pytest.mark.parametrize(
        ("change_of", "said"),
        [
            (
                {"sources": {}},
                "trained: It reads 'wide' (train), which is not among the benchmark's sources",
            ),
            (
                {"training": TRAINING | {"data": {"sources": [{"name": "first"}]}}},
                "trained: 'first' is a source and a target",
            ),
            ({"training": TRAINING | {"outer": {"stepps": 2}}}, "stepps"),
            (
                {
                    "training": merged(
                        TRAINING,
                        {"data": {"augmentation": {"paraphrase": "os:getcwd", "paraphrase_rate": 0.5}}},
                    )
                },
                "trained: data.augmentation.paraphrase is 'os:getcwd', whose module would be imported",
            ),
        ],
    )
    def test_training_that_may_not_be_is_refused(self, training, change_of, said):
        change(training, **change_of)
        with pytest.raises(FewShotError, match=re.escape(said)):
            run_benchmark(str(training))


class TestManifests:
    def test_a_text_of_a_source_is_not_scored(self, world):
        manifest, _ = read_manifest(manifest_of(world))
        assert manifest["targets"]["first"]["left_out"]["5-gram in general (train)"] >= 1
        assert 1 not in manifest["targets"]["first"]["scored"]  # row 21 of all is row 1 of the test split

    def test_it_holds_no_text(self, world):
        text = manifest_of(world).read_text()
        assert not any(row["text"] in text for row in ROWS["classification"](12, 0))

    def test_a_changed_byte_is_refused(self, world):
        path = manifest_of(world)
        path.write_bytes(path.read_bytes().replace(b'"scored":[', b'"scored": [', 1))
        with pytest.raises(FewShotError, match="the manifest was changed"):
            run_benchmark(str(world))

    def test_rows_that_do_not_fit_are_refused(self, world, tmp_path):
        import gzip

        path = tmp_path / "data" / "second" / "test.jsonl.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        path.write_bytes(gzip.compress("\n".join(lines[::-1]).encode()))
        with pytest.raises(FewShotError, match="The test rows of 'second' are not those of the manifest"):
            run_benchmark(str(world))

    def test_a_scored_text_that_is_learned_from_is_refused(self, world, monkeypatch, tmp_path):
        """A manifest that somebody sealed again, with a support set whose text stands among the scored ones."""
        from fewshot_nlp.comparison import frozen
        from fewshot_nlp.episode import write_with_digest

        data = read_benchmark(world).data("first", "train")
        manifest, _ = read_manifest(manifest_of(world))
        test = manifest["targets"]["first"]
        leak = frozen.plain(data.examples[test["supports"]["1"][0][0]].inputs)
        real = frozen.plain
        scored = read_benchmark(world).data("first", "test").examples[test["scored"][0]]
        monkeypatch.setattr(frozen, "plain", lambda inputs: leak if inputs == scored.inputs else real(inputs))
        write_with_digest(manifest_of(world), [manifest])
        with pytest.raises(FewShotError, match="1 of 8 scored rows of 'first' are also in support sets"):
            run_benchmark(str(world))

    def test_more_repeats_than_were_frozen_are_refused(self, world):
        change(world, budgets={"10m": {"k_shot": [1], "repeats": 4, "scored": 8}})
        with pytest.raises(FewShotError, match="3 support sets of 1 for 'first', fewer than 4"):
            run_benchmark(str(world))

    def test_every_beginning_of_the_scored_rows_has_each_label(self, world):
        data = read_benchmark(world).data("second", "test")
        scored = read_manifest(manifest_of(world))[0]["targets"]["second"]["scored"]
        labels = [data.examples[row].target for row in scored]
        assert set(labels[: 2 * len(set(labels))]) == set(labels)


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"baseline": "nobody"}, "baseline is 'nobody', which is none of the learners"),
            ({"targets": {"legal": ["third"]}}, "lacks the target 'third'"),
            ({"repeat": 3}, "repeat"),
        ],
    )
    def test_settings(self, world, values, said):
        change(world, **values)
        with pytest.raises(FewShotError, match=re.escape(said)):
            run_benchmark(str(world))

    def test_data_that_are_not_there(self, world, monkeypatch, tmp_path):
        monkeypatch.setenv("FEWSHOT_NLP_DATA", str(tmp_path))
        with pytest.raises(FewShotError, match=r"The data set 'first' is not here \(not at .*first\)"):
            run_benchmark(str(world))

    def test_unknown_names(self, world):
        with pytest.raises(FewShotError, match="There is no benchmark 'cross_domain_nerr'"):
            run_benchmark("cross_domain_nerr")
        with pytest.raises(FewShotError, match=r"There is no budget '2h'\. There are: 10m, full"):
            run_benchmark(str(world), budget="2h")


@pytest.mark.parametrize("name", benchmark_names())
def test_what_ships_can_be_read_and_is_sealed(name):
    path = benchmark_file(name)
    made = read_benchmark(path)
    manifest, _ = read_manifest(manifest_of(path))
    assert list(manifest["targets"]) == sorted(made.names)
    assert len(made.learners) >= (6 if name.startswith(("cross_domain", "family")) else 3)
    for candidate in made.candidates():
        assert candidate.kind in ("learner", "majority", "unadapted")
    for budget in made.budgets.values():
        for config in itertools.chain(*made.training_configs(budget, path.parent).values()):
            assert config.task == made.task


def test_an_adapter_of_a_benchmark_is_put_into_the_top_layers(tiny_encoder_folder):
    adapter = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": "all-linear"}
    options = {"task": "ner", "name": str(tiny_encoder_folder), "learner": "fine_tune"}
    found = Candidate("LoRA", options | {"adapter": adapter, "top_layers": 1}).pipeline().learner.encoder
    assert {min(weight.shape) for weight in found.adapter.values()} == {3}
    assert all(".layer.1." in name for name in found.adapter)
