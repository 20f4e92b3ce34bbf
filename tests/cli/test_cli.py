"""The command line: results on stdout, one line and exit code 2 for a mistake, nothing half written."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from processes import run_program

import fewshot_nlp
from fewshot_nlp.cli import main
from fewshot_nlp.cli.remedies import on_the_command_line
from fewshot_nlp.episode import read_episodes
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.sources import card_names, read_rows

ROOT = Path(fewshot_nlp.__file__).parents[1]
COMMAND = (sys.executable, "-m", "fewshot_nlp")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TEXTS = {
    "card": ["I lost my card", "send me a new card", "my card was taken", "when will the card be here"],
    "court": [
        "the judge was late",
        "we were told by the court",
        "an order of the court",
        "the law is the law",
    ],
}
ENTITIES = [
    {"tokens": ["Give", "aspirin", "for", "pain"], "ner_tags": ["O", "B-DRUG", "O", "B-SYMPTOM"]},
    {"tokens": ["The", "back", "pain", "was", "gone"], "ner_tags": ["O", "B-SYMPTOM", "I-SYMPTOM", "O", "O"]},
    {"tokens": ["Take", "codeine", "."], "ner_tags": ["O", "B-DRUG", "O"]},
]


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run(*arguments: object, stdin: str | None = None) -> Result:
    typed = io.TextIOWrapper(io.BytesIO((stdin or "").encode()))
    out, err = io.StringIO(), io.StringIO()
    with (
        patch("sys.stdin", typed),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main([str(a) for a in arguments])
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def good(*arguments: object, stdin: str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object, stdin: str | None = None) -> str:
    """The message of a command that must fail: one line on stderr, nothing on stdout, exit code 2."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text_rows() -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for label, texts in TEXTS.items() for text in texts]


@pytest.fixture
def texts_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "texts.jsonl", text_rows())


@pytest.fixture(scope="session")
def classifier_folder(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    data = write_lines(folder / "texts.jsonl", text_rows())
    good(
        *("adapt", "--task", "classification", "--data", data, "--out", folder / "model"),
        *("--encoder", tiny_encoder_folder, "--learner", "prototypical"),
    )
    return folder / "model"


@pytest.fixture(scope="session")
def ner_folder(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    data = write_lines(folder / "rows.jsonl", ENTITIES)
    arguments = ("--encoder", tiny_encoder_folder, "--learner", "linear_probe", "--learner_config.C", "1000")
    good("adapt", "--task", "ner", "--data", data, "--out", folder / "model", *arguments)
    return folder / "model"


class TestAdaptAndPredict:
    def test_adapt_says_what_it_did_as_one_json_object(
        self, texts_file: Path, tiny_encoder_folder: Path, tmp_path: Path
    ) -> None:
        said = good(
            *(
                "adapt",
                "--task",
                "classification",
                "--data",
                texts_file,
                "--out",
                tmp_path / "model",
                "--json",
            ),
            *("--encoder", tiny_encoder_folder, "--learner", "nearest_neighbour", "--learner_config.k", "2"),
        )
        value = json.loads(said)
        assert value["labels"] == ["card", "court"]
        assert value["n_rows"] == 8
        settings = json.loads((tmp_path / "model" / "fewshot_nlp.json").read_text())["learner_config"]
        assert settings["k"] == 2

    def test_labels_file_and_column_mapping(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        data = tmp_path / "rows.csv"
        data.write_text("utterance,intent\nI lost my card,card\nthe judge was late,court\n")
        labels = tmp_path / "labels.yaml"
        labels.write_text("card: a card of the bank\ncourt: a judge\nletter: a letter\n")
        said = good(
            *("adapt", "--task", "classification", "--data", data, "--out", tmp_path / "model", "--json"),
            *("--encoder", tiny_encoder_folder, "--learner", "prototypical", "--labels", labels),
            *("--column_mapping.utterance", "text", "--column_mapping.intent", "label"),
        )
        assert json.loads(said)["labels"] == ["card", "court", "letter"]

    def test_texts_in_json_lines_out(self, classifier_folder: Path, tmp_path: Path) -> None:
        source = tmp_path / "new.txt"
        source.write_text("I lost my card\r\n\nthe judge was late\n", encoding="utf-8-sig")
        rows = [
            json.loads(line)
            for line in good("predict", "--model", classifier_folder, "--input", source).splitlines()
        ]
        assert [row["text"] for row in rows] == ["I lost my card", "", "the judge was late"]  # line for line
        assert [row["predicted"] for row in rows] == ["card", None, "court"]  # both are support rows
        assert all(0.5 <= row["score"] <= 1 for row in rows if row["text"])

    def test_standard_input_takes_texts_and_json_lines(self, classifier_folder: Path) -> None:
        command = ("predict", "--model", classifier_folder, "--input", "-")
        plain = good(*command, stdin="I lost my card\n")
        as_json = good(*command, stdin='{"id": 7, "text": "I lost my card"}\n')
        assert json.loads(as_json) == {"id": 7, **json.loads(plain)}

    def test_csv_in_and_out_keeps_the_columns(self, classifier_folder: Path, tmp_path: Path) -> None:
        source, out = tmp_path / "new.csv", tmp_path / "out.csv"
        source.write_text('id,utterance\n7,"my card, please"\n')
        mapping = ("--column_mapping.utterance", "text")
        assert good("predict", "--model", classifier_folder, "--input", source, "--out", out, *mapping) == ""
        with out.open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["id"], row["text"]) == ("7", "my card, please")
        assert row["predicted"] in TEXTS

    def test_entities_have_exact_offsets(self, ner_folder: Path) -> None:
        text = "Give  aspirin\tfor pain"
        row = json.loads(good("predict", "--model", ner_folder, "--input", "-", stdin=text))
        assert [(e["entity_group"], e["word"]) for e in row["entities"]] == [
            ("DRUG", "aspirin"),
            ("SYMPTOM", "pain"),
        ]
        assert all(text[e["start"] : e["end"]] == e["word"] for e in row["entities"])

    def test_conll_in_and_out(self, ner_folder: Path, tmp_path: Path) -> None:
        source, out = tmp_path / "in.conll", tmp_path / "out.conll"
        source.write_text("Give\tO\naspirin\tO\nfor\tO\npain\tO\n\n")
        good("predict", "--model", ner_folder, "--input", source, "--out", out)
        assert read_rows(out) == [ENTITIES[0]]

    def test_conll_is_refused_for_labels_of_texts(self, classifier_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.conll"
        message = refused("predict", "--model", classifier_folder, "--input", "-", "--out", out, stdin="Hi")
        assert ".jsonl or .csv" in message
        assert not out.exists()

    def test_held_out_scores_of_a_folder(
        self, classifier_folder: Path, texts_file: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "scores.jsonl"
        said = good("evaluate", "--model", classifier_folder, "--data", texts_file, "--json", "--out", out)
        value = json.loads(said)
        assert value["n_rows"] == 8
        assert value["scores"]["accuracy"] > 0.5  # its own support rows
        assert json.loads(out.read_text()) == value


class TestEpisodes:
    def test_a_full_disk_keeps_finished_episodes(
        self, tiny_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, full = tmp_path / "episodes.jsonl", tmp_path / "whole.jsonl"
        drawn = ("--n_way", 3, "--k_shot", 2, "--n_query", 2, "--episodes", 3)
        learner = ("--encoder", tiny_encoder_folder, "--learner", "prototypical")
        command = ("evaluate", "--card", "legal_classification", *drawn, *learner)
        calls = []

        def no_room(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) == 3:  # the header and one episode fitted
                os.write(descriptor, b'{"half')
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr("fewshot_nlp.persistence.json_lines.os.fsync", no_room)
            said = refused(*command, "--out", out)
        assert "episodes.jsonl cannot be written: No space left on device" in said
        assert "finished episodes stay; make room and go on" in said
        good(*command, "--out", out)
        good(*command, "--out", full)
        assert [json.loads(line) for line in out.read_text().splitlines()] == [
            json.loads(line) for line in full.read_text().splitlines()
        ]

    def test_export_then_evaluate_the_file(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "new folder" / "episodes.jsonl"
        drawn = ("--k-shot", 2, "--n-query", 3, "--episodes", 3, "--seed", 5)
        said = good("episodes", "--card", "legal_classification", "--n_way", 4, "--out", out, *drawn)
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        assert said.split()[-1] == digest
        found, _ = read_episodes(out)
        assert [(len(e.label_names), len(e.support), len(e.query)) for e in found] == [(4, 8, 12)] * 3
        learner = ("--encoder", tiny_encoder_folder, "--learner", "prototypical", "--seed", 5, "--json")
        from_file = json.loads(good("evaluate", "--episodes_file", out, *learner))
        command = ("evaluate", "--card", "legal_classification", "--n_way", 4, *drawn, *learner)
        from_card = json.loads(good(*command))
        assert from_file["mean"] == from_card["mean"]
        assert from_file["manifest_sha"] == from_card["manifest_sha"]
        assert from_file["protocol"]["sha256"] == digest

    def test_json_has_mean_interval_episodes_and_seed(
        self, tiny_encoder_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "results.jsonl"
        said = good(
            *(
                "evaluate",
                "--card",
                "medical_ner",
                "--encoder",
                tiny_encoder_folder,
                "--learner",
                "prototypical",
            ),
            *("--k_shot", 1, "--n_query", 1, "--episodes", 3, "--seed", 4, "--json", "--out", out),
        )
        assert said.count("\n") == 1
        value = json.loads(said)
        assert value["metric"] == "entity_f1_strict_iob2"
        assert 0 <= value["mean"] <= 1
        assert value["ci95"] >= 0
        assert (value["n_episodes"], value["seed"], len(value["manifest_sha"])) == (3, 4, 64)
        assert value["protocol"]["sampler"] == "n_way_k2k_shot"
        assert value["protocol"]["n_way"] == "all"
        assert len(out.read_text().splitlines()) == 1 + 3

    def test_without_json_the_same_is_told_in_words(self, tiny_encoder_folder: Path) -> None:
        said = good(
            *("evaluate", "--card", "finance_classification", "--encoder", tiny_encoder_folder, "--learner"),
            *("prototypical", "--k_shot", 1, "--n_query", 1, "--episodes", 2),
        )
        assert "(95 % interval, 2 episodes, seed 0)" in said
        assert "n_way=5" in said

    def test_chosen_labels_and_knobs_of_the_sampler(self, tmp_path: Path) -> None:
        out = tmp_path / "episodes.jsonl"
        chosen = ("--labels", "[PARTY, COURT]", "--sampler_config.query", "rows", "--n_query", 7)
        good("episodes", "--card", "legal_ner", *chosen, "--episodes", 1, "--k_shot", 2, "--out", out)
        (episode,), _ = read_episodes(out)
        assert episode.label_names == ("COURT", "PARTY")
        assert len(episode.query) == 7

    def test_all_labels(self, tmp_path: Path) -> None:
        out = tmp_path / "episodes.jsonl"
        good("episodes", "--card", "medical_classification", "--n_way", "all", "--episodes", 1, "--out", out)
        assert len(read_episodes(out)[0][0].label_names) == 7


class TestLists:
    def test_learners_and_cards(self) -> None:
        assert sorted(json.loads(good("learners", "--json"))) == LEARNERS.names()
        assert sorted(json.loads(good("cards", "--json"))) == card_names()
        assert all(name in good("learners") for name in LEARNERS.names())
        told = good("learners", "maml")
        assert "inner_steps=5: a whole number from 1 to " in told
        assert "ridge" not in told
        listed = good("cards", "--task", "ner")
        copies = {line.split()[0]: line.split()[-1] for line in listed.splitlines()[1:]}
        assert copies["medical_ner"] == "package"
        assert copies["bc5cdr"] == "tner/bc5cdr"
        assert "none" in copies.values()
        assert "medical_classification" not in listed


class TestTrain:
    def test_trains_on_a_file_of_rows_and_the_result_adapts(
        self, tiny_encoder_folder: Path, tmp_path: Path
    ) -> None:
        settings = {
            "task": "classification",
            "learner": "prototypical",
            "encoder": {"name": str(tiny_encoder_folder)},
            "train": "learner",
            "data": {
                "sources": [{"name": "legal_classification"}],
                "sampler": {"n_way": 2, "k_shot": 1, "n_query": 1},
            },
            "outer": {"steps": 50, "meta_batch": 1},
            "run": {"output_dir": str(tmp_path / "run")},
        }
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        said = good("train", "--config", config, "--outer.steps", 2, "--json")
        folder = json.loads(said)["folder"]
        steps = [
            json.loads(line).get("step") for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
        ]
        assert max(step for step in steps if step is not None) == 2
        data = write_lines(tmp_path / "texts.jsonl", text_rows())
        adapted = ("adapt", "--task", "classification", "--data", data, "--out", tmp_path / "model")
        assert "court" in good(*adapted, "--encoder", folder)

    def test_an_unknown_setting_is_one_line(self, tmp_path: Path) -> None:
        config = tmp_path / "config.yaml"
        config.write_text("task: ner\nlearner: maml\nouter: {stepz: 3}\n")
        assert "outer has no setting 'stepz'" in refused("train", "--config", config)

    def test_a_missing_file_of_settings(self, tmp_path: Path) -> None:
        assert "There is no file" in refused("train", "--config", tmp_path / "none.yaml")


class TestReadme:
    README = (ROOT / "README.md").read_text(encoding="utf-8")

    def test_every_learner_is_in_the_table(self) -> None:
        assert sorted(re.findall(r"^\| `(\w+)` \|.*\|.*\|$", self.README, re.MULTILINE)) == LEARNERS.names()


class TestQuestionAnswering:
    """A task without labels goes the same way through every command."""

    def test_adapt_predict_and_evaluate(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        words = ["aspirin", "card", "drug", "court", "bank", "letter"]
        rows = [
            {
                "question": "what was it",
                "context": f"{filler} {word} of my week",
                "answers": {"text": [word], "answer_start": [len(filler) + 1]},
            }
            for filler in ("the", "a", "in")
            for word in words
        ]
        data = write_lines(tmp_path / "rows.jsonl", rows)
        common = ("--task", "question_answering", "--data", data, "--encoder", tiny_encoder_folder)
        told = good("adapt", *common, "--learner", "linear_probe", "--out", tmp_path / "model")
        assert "linear_probe adapted to 18 rows" in told
        assert "labels" not in told
        found = good("predict", "--model", tmp_path / "model", "--input", data)
        predicted = [json.loads(line) for line in found.splitlines()]
        assert (
            sum(p["answer"] == row["answers"]["text"][0] for p, row in zip(predicted, rows, strict=True)) > 12
        )
        for p in predicted:
            assert p["context"][p["start"] : p["end"]] == p["answer"]
            assert 0 < p["score"] <= 1
        scored = json.loads(good("evaluate", "--model", tmp_path / "model", "--data", data, "--json"))
        assert scored["metric"] == "squad_f1"
        assert scored["scores"]["squad_f1"] > 0.6

    def test_evaluate_on_a_card_by_rows_of_whole_documents(self, tmp_path: Path) -> None:
        from conftest import make_tiny_encoder

        encoder = make_tiny_encoder(tmp_path / "tiny", window=256)
        options = ("--learner", "prototypical", "--k_shot", 3, "--n_query", 2, "--episodes", 2, "--json")
        report = json.loads(
            good("evaluate", "--card", "legal_question_answering", "--encoder", encoder, *options)
        )
        assert report["protocol"]["sampler"] == "k_shot"
        assert report["n_episodes"] == 2
        assert set(report["metrics"]) >= {"squad_f1", "squad_exact_match", "unicode_f1"}
        refused(
            "evaluate", "--card", "legal_question_answering", "--encoder", encoder, *options, "--n_way", 2
        )

    def test_a_text_file_is_no_input(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        data = write_lines(
            tmp_path / "rows.jsonl",
            [{"question": "who", "context": "my bank", "answers": {"text": ["bank"], "answer_start": [3]}}],
        )
        common = ("--task", "question_answering", "--data", data, "--encoder", tiny_encoder_folder)
        good("adapt", *common, "--learner", "prototypical", "--out", tmp_path / "model")
        texts = tmp_path / "texts.txt"
        texts.write_text("who\n")
        message = refused("predict", "--model", tmp_path / "model", "--input", texts)
        assert "Input 1: there is no column 'question', only: text" in message


class TestTranslation:
    """Predictions that are generated go the same way through every command."""

    def test_adapt_predict_and_evaluate_with_the_shipped_model(self, tmp_path: Path) -> None:
        lines = (ROOT / "data/corpora/medical_translation.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        data, texts = write_lines(tmp_path / "rows.jsonl", rows[:12]), tmp_path / "texts.txt"
        german = [row["translation"]["de"] for row in rows[:12]]
        texts.write_text("\n".join(german[:2]) + "\n", encoding="utf-8")
        told = good(
            *("adapt", "--task", "translation", "--data", data, "--out", tmp_path / "model"),
            *("--learner", "nearest_neighbour", "--learner_config.interpolation", 0.95),
            *("--learner_config.temperature", 0.01, "--task_config.num_beams", 1),
        )
        assert "nearest_neighbour adapted to 12 rows" in told
        assert "labels" not in told
        found = good("predict", "--model", tmp_path / "model", "--input", texts)
        predicted = [json.loads(line) for line in found.splitlines()]
        assert [p["text"] for p in predicted] == german[:2]
        gold = [row["translation"]["en"] for row in rows[:2]]
        assert [p["predicted"] for p in predicted] == gold  # the memory holds these very pairs
        scored = json.loads(good("evaluate", "--model", tmp_path / "model", "--data", data, "--json"))
        assert scored["metric"] == "chrf"
        assert scored["scores"]["chrf"] > 90
        assert scored["n_rows"] == 12

    def test_evaluate_on_a_card(self) -> None:
        options = ("--learner", "prototypical", "--k_shot", 4, "--n_query", 3, "--episodes", 2, "--json")
        report = json.loads(good("evaluate", "--card", "medical_translation", *options))
        assert report["protocol"]["sampler"] == "k_shot"
        assert report["n_episodes"] == 2
        assert set(report["metrics"]) >= {"chrf", "bleu"}

    def test_a_learner_that_cannot_translate_is_one_line(
        self, tiny_translator_folder: Path, tmp_path: Path
    ) -> None:
        data = write_lines(tmp_path / "rows.jsonl", [{"translation": {"xx": "knab", "en": "bank"}}])
        common = ("--task", "translation", "--data", data, "--encoder", tiny_translator_folder)
        message = refused("adapt", *common, "--learner", "linear_probe", "--out", tmp_path / "model")
        assert "own distribution" in message
        assert not (tmp_path / "model").exists()


class TestDemo:
    def test_page_and_terminal_show_the_same_numbers(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from conftest import make_tiny_encoder

        from fewshot_nlp.demo import run_demo
        from fewshot_nlp.tasks import TASKS
        from fewshot_nlp.tasks.defaults import Defaults

        few = {"steps": 2, "batch_size": 2}
        for task, quick in (
            ("question_answering", Defaults(learner=few)),
            ("translation", Defaults(learner={"folds": 0}, bundled=few)),
        ):
            monkeypatch.setattr(TASKS.get(task), "defaults", {"fine_tune": quick})

        encoder = make_tiny_encoder(
            tmp_path / "tiny", window=256
        )  # half of it must hold a question, letter by letter
        page = run_demo(tmp_path / "out", 3, repeats=2, domains=["legal"], encoder=str(encoder))
        html, printed = page.read_text(encoding="utf-8"), capsys.readouterr().out
        rows = [line.split("  ") for line in printed.splitlines() if re.match(r"\S.*  \d\S* ± ", line)]
        assert len(rows) == 5 + 5 + 3 + 2  # classification, entities, answers, translation
        for name, score, *_ in ([cell.strip() for cell in row if cell.strip()] for row in rows):
            assert f"<td>{name}</td><td>{score}</td>" in html
        assert html.count('<tr class="best">') == 4
        assert "2 repeats, seed 3" in html
        assert "Why was the appeal dismissed?" in html
        assert printed.count("Adapting changed ") == html.count("Adapting changed ") == 4
        assert "http" not in html
        assert "<script" not in html


class TestBadInput:
    """Each is one line on stderr and exit code 2, and the output is not there."""

    def adapt(self, folder: Path, data: Path, *more: object, task: str = "classification") -> str:
        out = folder / "model"
        message = refused("adapt", "--task", task, "--data", data, "--out", out, *more)
        assert not out.exists()
        assert not list(folder.glob("model*"))
        return message

    def test_empty_file(self, tmp_path: Path) -> None:
        empty = tmp_path / "rows.jsonl"
        empty.write_text("")
        assert "is empty" in self.adapt(tmp_path, empty)

    def test_unknown_column(self, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "rows.jsonl", [{"txt": "Hi", "label": "greet"}])
        assert """pass --column_mapping '{"txt": "text"}'""" in self.adapt(tmp_path, data)

    def test_unknown_learner(self, texts_file: Path, tmp_path: Path) -> None:
        message = self.adapt(tmp_path, texts_file, "--learner", "prototypcal")
        assert "Did you mean 'prototypical'?" in message

    def test_unknown_setting(self, texts_file: Path, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        more = (
            "--learner",
            "prototypical",
            "--learner_config.metrik",
            "cosine",
            "--encoder",
            tiny_encoder_folder,
        )
        assert "metrik" in self.adapt(tmp_path, texts_file, *more)

    def test_setting_without_value(self, texts_file: Path, tmp_path: Path) -> None:
        assert "--option.name value" in self.adapt(tmp_path, texts_file, "--learner_config", "k=2")

    def test_unknown_task(self, texts_file: Path, tmp_path: Path) -> None:
        assert "Did you mean 'ner'?" in self.adapt(tmp_path, texts_file, task="nerr")
        assert "Did you mean 'question_answering'?" in self.adapt(tmp_path, texts_file, task="qa")

    def test_missing_data(self, tmp_path: Path) -> None:
        assert "There is no file" in self.adapt(tmp_path, tmp_path / "none.jsonl")

    def test_line_that_is_not_json(self, tmp_path: Path) -> None:
        data = tmp_path / "rows.jsonl"
        data.write_text('{"text": "Hi", "label": "greet"}\n{"text": \n')
        assert "line 2: not JSON" in self.adapt(tmp_path, data)

    def test_tokens_and_tags_of_different_length(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        rows = [ENTITIES[0], {"tokens": ["Give", "aspirin"], "ner_tags": ["O"]}]
        data = write_lines(tmp_path / "rows.jsonl", rows)
        message = self.adapt(tmp_path, data, "--encoder", tiny_encoder_folder, task="ner")
        assert "Row 2: 2 tokens but 1 tags" in message

    def test_single_class(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        data = write_lines(tmp_path / "rows.jsonl", [row for row in text_rows() if row["label"] == "card"])
        message = self.adapt(tmp_path, data, "--encoder", tiny_encoder_folder)
        assert "'card'" in message
        assert "at least 2" in message

    def test_conflicting_duplicates(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        rows = [*text_rows(), {"text": "I lost my card", "label": "court"}]
        data = write_lines(tmp_path / "rows.jsonl", rows)
        assert "Rows 1 and 9" in self.adapt(tmp_path, data, "--encoder", tiny_encoder_folder)

    def test_folder_that_is_no_model(
        self, texts_file: Path, tmp_path: Path, tiny_encoder_folder: Path
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes").write_text("keep")
        encoder = ("--encoder", tiny_encoder_folder, "--learner", "prototypical")
        command = ("adapt", "--task", "classification", "--data", texts_file, "--out", tmp_path / "mine")
        assert "no model folder" in refused(*command, *encoder)
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]

    def test_missing_model_folder(self, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        message = refused("predict", "--model", tmp_path / "none", "--input", "-", "--out", out, stdin="Hi")
        assert "neither a folder" in message
        assert not out.exists()

    def test_bad_row_to_predict(self, classifier_folder: Path, tmp_path: Path) -> None:
        source = write_lines(tmp_path / "in.jsonl", [{"text": "Hi"}, {"text": 3}])
        out = tmp_path / "out.jsonl"
        message = refused("predict", "--model", classifier_folder, "--input", source, "--out", out)
        assert "Input 2: 'text' is 3 of type int, but must be a text" in message
        assert not out.exists()

    def test_a_remedy_is_an_option_that_works(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        rows = [
            {"my text": text, "intent": label} for text, label in (("my card", "card"), ("the law", "law"))
        ]
        source = write_lines(tmp_path / "in.jsonl", rows)
        given = ("adapt", "--task", "classification", "--data", source, "--encoder", tiny_encoder_folder)
        given = (*given, "--learner", "ridge", "--out", tmp_path / "model")
        mapping: dict[str, str] = {}
        for expected in ({"my text": "text"}, {"intent": "label"}):
            message = refused(*given, "--column_mapping", json.dumps(mapping))
            option = re.search(r"pass --column_mapping (\S.*)\.$", message)
            assert option is not None
            assert [json.loads(value) for value in shlex.split(option[1])] == [expected]
            mapping |= expected
        assert run(*given, "--column_mapping", json.dumps(mapping)).exit_code == 0

    def test_messages_for_the_command_line(self) -> None:
        message = (
            "load it with learner='nearest_neighbour', or set task_config={'source': 'de', 'target': 'en'}."
        )
        assert on_the_command_line(message) == (
            "load it with --learner nearest_neighbour, or set "
            """--task_config '{"source": "de", "target": "en"}'."""
        )
        assert on_the_command_line("call adapt(rows) first.") == "run `fewshot-nlp adapt` first."
        assert on_the_command_line("give one row, or labels={name: description}.").endswith(
            "--labels '{name: description}'."
        )

    def test_empty_and_broken_texts_are_predicted_beside_the_others(
        self, classifier_folder: Path, tmp_path: Path
    ) -> None:
        source = write_lines(
            tmp_path / "in.jsonl", [{"text": "my card"}, {"text": " "}, {"text": "cut \ud83d it"}]
        )
        for ending in ("jsonl", "csv"):
            out = tmp_path / f"out.{ending}"
            assert (
                run("predict", "--model", classifier_folder, "--input", source, "--out", out).exit_code == 0
            )
            rows = read_rows(out)
            assert [row["predicted"] is None for row in rows] == [False, True, False]
            assert rows[2]["text"] == "cut \ud83d it"

    def test_unknown_ending(self, classifier_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.xlsx"
        assert ".csv" in refused(
            "predict", "--model", classifier_folder, "--input", "-", "--out", out, stdin="Hi"
        )

    def test_unknown_card(self, tmp_path: Path) -> None:
        out = tmp_path / "episodes.jsonl"
        message = refused("episodes", "--card", "medical_nerr", "--out", out)
        assert "Did you mean 'medical_ner'?" in message
        assert not list(tmp_path.iterdir())

    def test_k_too_large(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        out = tmp_path / "results.jsonl"
        chosen = ("--card", "medical_classification", "--k_shot", 500, "--out", out)
        for command in (("episodes",), ("evaluate", "--encoder", tiny_encoder_folder)):
            assert "needs 510 examples of each label" in refused(*command, *chosen)
        assert not list(tmp_path.iterdir())

    def test_episodes_that_cannot_be_drawn_leave_no_part(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fewshot_nlp import FewShotError
        from fewshot_nlp.sampling import NWayKShot

        real = NWayKShot.episode

        def second_fails(self: NWayKShot, index: int) -> object:
            if index == 1:
                raise FewShotError("no second episode")
            return real(self, index)

        monkeypatch.setattr(NWayKShot, "episode", second_fails)
        out = tmp_path / "episodes.jsonl"
        assert "no second" in refused("episodes", "--card", "legal_classification", "--out", out)
        assert not list(tmp_path.iterdir())

    def test_changed_file_of_episodes(self, tmp_path: Path) -> None:
        out = tmp_path / "episodes.jsonl"
        good("episodes", "--card", "legal_classification", "--episodes", 1, "--out", out)
        out.write_text(out.read_text() + "\n")
        assert "manifest" in refused("evaluate", "--episodes_file", out)

    def test_evaluate_needs_one_source(self) -> None:
        assert "given: none" in refused("evaluate")
        assert "--card, --data" in refused("evaluate", "--card", "legal_ner", "--data", "rows.jsonl")

    def test_unknown_knob_of_the_sampler(self, tmp_path: Path) -> None:
        command = ("episodes", "--card", "legal_ner", "--out", tmp_path / "x.jsonl")
        message = refused(*command, "--sampler_config.quary", "rows")
        assert "'quary'. It has: query." in message

    def test_n_way_must_be_a_number(self, tmp_path: Path) -> None:
        message = refused("episodes", "--card", "legal_ner", "--n_way", "few", "--out", tmp_path / "x.jsonl")
        assert "'all'" in message

    def test_repository_without_user(self, classifier_folder: Path) -> None:
        assert "user/name" in refused("push", "--model", classifier_folder, "--repo", "name")

    def test_output_that_cannot_be_written(self, classifier_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "out.jsonl"
        message = refused("predict", "--model", classifier_folder, "--input", "-", "--out", out, stdin="Hi")
        assert str(tmp_path / "file") in message

    def test_unknown_option_is_a_usage_error(self) -> None:
        result = run("evaluate", "--crad", "legal_ner")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "--crad" in result.stderr


def test_interruption_is_told_in_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot_nlp.sources.card_names", interrupt)
    result = run("cards")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


class TestProcess:
    """The command as a shell sees it."""

    def test_json_alone_on_stdout(self, classifier_folder: Path, texts_file: Path, tmp_path: Path) -> None:
        given = ["evaluate", "--model", classifier_folder, "--data", texts_file, "--json"]
        found = run_program("fewshot_nlp", given, tmp_path)
        assert found.returncode == 0
        assert json.loads(found.stdout)["n_rows"] == 8
        assert found.stderr == ""

    def test_a_mistake_is_one_line_without_traceback(self, tmp_path: Path) -> None:
        found = subprocess.run(
            [*COMMAND, "predict", "--model", tmp_path / "none", "--input", "-"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            input="Hi",
        )
        assert found.returncode == 2
        assert found.stdout == ""
        assert found.stderr.startswith("Error: ")
        assert found.stderr.count("\n") == 1

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        with subprocess.Popen(
            [*COMMAND, "cards"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 141
