"""Data set cards, and rows from files, from data sets and from a stand-in for the Hub."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence import disk
from fewshot_nlp.sources import (
    DATA_VARIABLE,
    DatasetCard,
    card_names,
    data_folder,
    load_card,
    load_dataset_card,
    load_rows,
    read_rows,
    write_rows,
)
from fewshot_nlp.sources.cards import SHIPPABLE, read_card
from fewshot_nlp.sources.readers import RENDERERS

OWN = [f"{d}_{t}" for d in ("finance", "legal", "medical") for t in (
    "classification", "ner", "question_answering", "translation")]  # fmt: skip
EVALUATION_ONLY = {
    "ag_news", "finer_ord", "flores101_de_en", "fomc_stance", "trec6", "wmt_news_de_en",
    "xquad_de", "xquad_en", "xquad_es",
}  # fmt: skip
GOOD: dict[str, Any] = {
    "name": "toy",
    "task": "classification",
    "domain": "general",
    "language": ["en"],
    "licence": "CC0 1.0",
    "licence_class": "public-domain",
    "may_train_weights": True,
    "folder": "classification/toy",
    "columns": {"text": "text", "label": "label"},
    "splits": {"train": 2},
    "labels": ["a", "b"],
    "citation": "Nobody",
}
HARD = [
    "plain",
    "👩‍⚕️ family 👨‍👩‍👧‍👦 and 🏳️‍🌈",
    "e\u0301 against é, \u200dn\u0303",
    "שלום עולם, مرحبا \u202bx\u202c",
    'line one\r\nline two\nand "three"\rfour\u2028five\x85six',
    "a, b; c\td",
    "\ufeffmark and\u00a0no-break space",
    "[1, 2]",
    "",
    "  spaces  ",
]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return path


def message(call: Any, *args: Any, **kwargs: Any) -> str:
    """The one line with which a call fails."""
    with pytest.raises(FewShotError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels_of(task: str, rows: list[dict[str, Any]]) -> set[str]:
    if task == "classification":
        return {row["label"] for row in rows}
    if task == "ner" and "spans" in rows[0]:
        return {span["label"] for row in rows for span in row["spans"]}
    return {tag[2:] for row in rows for tag in row["ner_tags"] if tag != "O"} if task == "ner" else set()


# Cards


def test_every_card_is_right_and_named_as_its_file():
    cards = [load_card(name) for name in card_names()]
    assert len(cards) == 91
    assert {c.name for c in cards} >= set(OWN)
    assert {c.name for c in cards if not c.may_train_weights} == EVALUATION_ONLY
    assert {c.domain for c in cards} >= {"general", "intent", "science", "medical", "legal", "finance"}
    for card in cards:
        assert card.may_train_weights == (card.licence_class in SHIPPABLE)
        assert (card.group_column is not None) == (card.task == "question_answering")
        assert len(card.language) == (2 if card.task == "translation" else 1)


def test_cards_name_no_place_on_a_machine():
    for path in (data_folder() / "cards").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not any(place in text for place in ("/work/", "/home/", "/root/", "/tmp/", ":\\")), path


def test_cards_are_found_in_the_package_first(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "__file__", str(tmp_path / "fewshot_nlp" / "persistence" / "disk.py"))
    assert "reinstall fewshot-nlp" in message(data_folder)
    for folder in (tmp_path / "data", tmp_path / "fewshot_nlp" / "_data"):
        (folder / "cards").mkdir(parents=True)
        assert data_folder() == folder


def test_an_unknown_card_suggests_the_nearest():
    assert "Did you mean 'banking77'?" in message(load_card, "bankin77")
    assert "91" in message(load_card, "zzzzzz")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"task": "parsing"}, "There is no task 'parsing'. Known: classification, ner"),
        ({"licence_class": "free"}, "licence_class is 'free'"),
        ({"licence_class": "unclear"}, "may_train_weights is true, but the licence class 'unclear'"),
        ({"may_train_weights": "yes please"}, "must be true or false"),
        ({"domain": "Legal (acts)"}, "one lower-case word"),
        ({"language": "en"}, "must be a list that is not empty, each item a language's code"),
        ({"language": [False]}, "language.0 is False, but must be a language's code"),
        ({"language": ["english"]}, "language.0 is 'english'"),
        ({"labels": ["b", "a"]}, "sorted"),
        ({"labels": ["a", True]}, "labels.1 is True, but must be a text that is not empty, in quotes"),
        ({"labels": []}, "0 labels"),
        ({"label_descriptions": {"c": "third"}}, "label_descriptions has 'c', but the labels are: a, b"),
        ({"splits": {}}, "splits is {}, but must be a mapping that is not empty"),
        ({"splits": {"train": 0}}, "splits.train is 0, but must be a whole number of at least 1"),
        ({"folder": "../else"}, "must be relative"),
        ({"folder": "/data/toy"}, "must be relative"),
        ({"columns": {"text": "text"}}, "classification needs: text, label"),
        ({"group_column": "document"}, "group_column is 'document'"),
        ({"citation": " "}, "citation is ' '"),
        ({"domian": "x"}, "has no setting 'domian'. Did you mean 'domain'?"),
        ({"hub": {"id": "toy"}}, "organisation/name"),
        ({"hub": {"id": "a/b", "comit": "x"}}, "hub has no setting 'comit'"),
        ({"hub": {"revision": "main"}}, "hub.id is missing"),
        ({"hub": "a/b"}, "hub is 'a/b', but must be settings: id, revision"),
        ({"name": "other"}, "named 'other'; name it 'toy'"),
    ],
)
def test_wrong_cards_are_refused(tmp_path, change, part):
    path = write(tmp_path / "toy.yaml", yaml.safe_dump(GOOD))
    assert read_card(path) == DatasetCard(**GOOD)
    text = message(read_card, write(path, yaml.safe_dump(GOOD | change)))
    assert text.startswith(str(path))
    assert part in text


def test_cards_that_are_not_yaml_or_lack_keys_are_refused(tmp_path):
    path = tmp_path / "toy.yaml"
    assert "not YAML" in message(read_card, write(path, "name: [a"))
    assert "is ['a'], but must be a mapping" in message(read_card, write(path, "- a"))
    with pytest.raises(FewShotError, match=r"task is missing.*(?s:.*)domain is missing"):
        read_card(write(path, "name: toy"))


def test_importing_sources_imports_nothing_heavy():
    code = (
        "import sys, fewshot_nlp.sources as s; s.card_names(); s.read_rows([{'text': 'Hi'}]); "
        "print([m for m in ('torch', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Rows of cards


@pytest.mark.parametrize("name", OWN)
def test_own_corpora_are_as_their_cards_say(name, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    card = load_card(name)
    rows = load_rows(name, "train")
    assert {"train": len(rows)} == card.splits
    assert labels_of(card.task, rows) == set(card.labels) == set(card.label_descriptions)
    assert all(set(row) == set(card.columns.values()) for row in rows)
    for row in rows:
        if card.task == "question_answering":
            answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            assert all(row["context"][start : start + len(text)] == text for text, start in answers)


def test_a_dataset_is_what_load_dataset_gives(monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    every = load_dataset_card("legal_question_answering")
    one = load_dataset_card("legal_question_answering", "train")
    assert list(every) == ["train"]
    assert every["train"].to_list() == one.to_list() == load_rows("legal_question_answering")


@pytest.mark.data
@pytest.mark.skipif(DATA_VARIABLE not in os.environ, reason=f"{DATA_VARIABLE} is not set")
@pytest.mark.parametrize("name", [name for name in card_names() if name not in OWN])
def test_benchmark_sets_are_as_their_cards_say(name):
    card = load_card(name)
    folder = Path(os.environ[DATA_VARIABLE]) / card.folder
    assert {path.name.removesuffix(".jsonl.gz") for path in folder.iterdir()} == set(card.splits)
    found: set[str] = set()
    for split, expected in card.splits.items():
        if expected > 15_000:  # sampled, to be quick
            with gzip.open(folder / f"{split}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
                lines = [line for line in file if line.strip()]
            assert len(lines) == expected
            rows = [json.loads(line) for line in lines[::100]]
        else:
            rows = load_rows(name, split)
            assert len(rows) == expected
        assert all(set(row) == set(card.columns.values()) for row in rows)
        found |= labels_of(card.task, rows)
        if card.task == "translation":
            assert all(set(row["translation"]) == set(card.language) for row in rows)
    assert found == set(card.labels)


def local_copy(root: Path, rows: list[dict[str, Any]], split: str = "test") -> Path:
    folder = root / "classification" / "banking77"
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def test_local_files_go_before_the_hub(tmp_path, monkeypatch):
    rows = [{"text": "one\u2028line", "label": "age_limit"}, {"text": "two", "label": "atm_support"}]
    folder = local_copy(tmp_path, rows)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert load_rows("banking77", "test") == rows
    assert load_dataset_card("banking77", "test").to_list() == rows
    assert "has no file" in message(load_rows, "banking77", "train")
    assert "the folder has: test.jsonl.gz" in message(load_dataset_card, "banking77")
    (folder / "test.jsonl.gz").write_bytes((folder / "test.jsonl.gz").read_bytes()[:-9])
    assert "test.jsonl.gz is damaged" in message(load_rows, "banking77", "test")
    assert "has no split 'tset'. Did you mean 'test'? It has: train, validation, test." in message(
        load_rows, "banking77", "tset"
    )


def test_a_data_folder_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert "there is no such folder" in message(load_rows, "banking77", "test")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    text = message(load_rows, "kpi_edgar", "test")
    assert f"not at {tmp_path / 'ner' / 'kpi_edgar'}" in text
    assert f"Set {DATA_VARIABLE} to a folder with ner/kpi_edgar/<split>.jsonl.gz" in text


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the Hub: what `datasets.load_dataset` returns, and with what it was called."""
    import datasets

    calls: list[Any] = []
    answer: dict[str, Any] = {}

    def load_dataset(name: str, config: str | None = None, *, revision: str) -> Any:
        calls.append((name, config, revision))
        if isinstance(answer["value"], Exception):
            raise answer["value"]
        return answer["value"]

    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls, answer


def table(columns: dict[str, list[Any]], **features: Any) -> Any:
    import datasets

    made = datasets.Dataset.from_dict(columns)
    schema = made.features.copy()
    schema.update(features)
    return made.cast(schema)


def test_the_hub_gives_names_for_numbers_and_the_tasks_columns(hub):
    import datasets

    calls, answer = hub
    labels = datasets.ClassLabel(names=["yes", "oos"])
    rows = table({"text": ["a", "b"], "intent": [1, 0]}, intent=labels)
    answer["value"] = datasets.DatasetDict(train=rows, test=rows)
    assert load_rows("clinc150", "test") == [{"text": "a", "label": "oos"}, {"text": "b", "label": "yes"}]
    assert calls == [("clinc/clinc_oos", "plus", "main")]
    assert list(load_dataset_card("clinc150")) == ["train", "test"]
    assert "has no split 'validation' on the Hub (clinc/clinc_oos). It has: train, test." in message(
        load_rows, "clinc150", "validation"
    )
    answer["value"] = datasets.DatasetDict(test=rows.rename_column("intent", "goal"))
    assert "clinc/clinc_oos has no column 'intent', only: text, goal" in message(
        load_rows, "clinc150", "test"
    )


def test_the_hubs_bare_numbers_and_other_split_names(hub):
    import datasets

    calls, answer = hub
    answer["value"] = datasets.DatasetDict(train=table({"tokens": [["Give", "aspirin"]], "tags": [[0, 1]]}))
    assert load_rows("bc5cdr") == [{"tokens": ["Give", "aspirin"], "ner_tags": ["O", "B-Chemical"]}]
    assert calls == [("tner/bc5cdr", None, "refs/convert/parquet")]
    world = datasets.ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])
    answer["value"] = datasets.DatasetDict(test=table({"text": ["a"], "label": [3]}, label=world))
    assert load_rows("ag_news", "test") == [{"text": "a", "label": "sci/tech"}]
    answer["value"] = datasets.DatasetDict(validation=table({"context": ["c"], "question": ["q"]}))
    assert load_rows("xquad_de", "test") == [{"context": "c", "question": "q"}]
    assert calls[-1] == ("google/xquad", "xquad.de", "main")


def test_no_local_copy_and_no_network_is_one_line(hub):
    calls, answer = hub
    answer["value"] = ConnectionError("Couldn't reach the Hub\nat all")
    text = message(load_rows, "banking77", "test")
    for part in (f"{DATA_VARIABLE} is not set", "PolyAI/banking77", "ConnectionError", "classification/"):
        assert part in text
    assert "no copy on the Hub is known" in message(load_rows, "kpi_edgar", "test")
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_a_dataset_loaded_from_files(tmp_path, kind):
    import datasets

    labels = datasets.ClassLabel(names=["no", "yes"])
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-X"]))
    columns = {"text": ["a", "b"], "label": [1, 0], "tags": [[0, 1], []]}
    source = table(columns, label=labels, tags=tags)
    file = str(tmp_path / f"rows.{kind}")
    source.to_parquet(file) if kind == "parquet" else source.to_json(file)
    features = source.features if kind == "json" else None
    loaded = datasets.load_dataset(
        kind, data_files=file, split="train", features=features, cache_dir=str(tmp_path / "cache")
    )
    rows = read_rows(loaded, "classification")
    assert rows == [
        {"text": "a", "label": "yes", "tags": ["O", "B-X"]},
        {"text": "b", "label": "no", "tags": []},
    ]
    assert read_rows(loaded.to_iterable_dataset()) == rows
    assert read_rows(loaded, "ner", {"text": "note", "tags": "ner_tags", "label": "tokens"})[0] == {
        "note": "a", "tokens": "yes", "ner_tags": ["O", "B-X"]}  # fmt: skip
    assert read_rows(datasets.DatasetDict(train=loaded), "classification") == rows
    assert "the splits test; pass one of them" in message(read_rows, datasets.DatasetDict(test=loaded))


def test_a_number_without_a_name_is_an_error():
    import datasets

    labels = datasets.ClassLabel(names=["no", "yes"])
    assert "Row 2: the column 'label' holds -1" in message(
        read_rows, table({"text": ["a", "b"], "label": [0, -1]}, label=labels)
    )


# Files


def test_rows_pass_through_as_copies():
    rows = [{"text": "Give aspirin.", "spans": [{"start": 5, "end": 12, "label": "DRUG"}]}]
    read = read_rows(rows, "ner")
    assert read == rows
    assert read[0] is not rows[0]
    assert read_rows(iter(rows)) == rows
    assert read_rows([]) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", '{"text": "x", "label": "A"}\r\n\r\n{"text": "y\\r\\n", "label": "B"}'),
        ("a.JSONL", '\ufeff{"text": "x", "label": "A"}\n{"text": "y\\r\\n", "label": "B"}\n'),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "x", "label": "A"}\n{"text": "y\\r\\n", "label": "B"}\n', mtime=0),
        ),
        ("a.json", '[{"text": "x", "label": "A"},\n {"text": "y\\r\\n", "label": "B"}]'),
        ("a.csv", '\ufefftext,label\nx,A\n\n"y\r\n",B\n'),
        ("a.csv", 'label,text\r\nA,x\r\nB,"y\r\n"\r\n'),
        ("a.csv", 'label,text:json\nA,"""x"""\nB,"""y\\r\\n"""\n'),
        ("a.tsv", 'text\tlabel\nx\tA\n"y\r\n"\tB'),
    ],
)
def test_files_of_texts(tmp_path, name, data):
    path = write(tmp_path / name, data)
    expected = [{"text": "x", "label": "A"}, {"text": "y\r\n", "label": "B"}]
    assert read_rows(path, "classification") == read_rows(str(path)) == expected
    assert read_rows(path, None, {"label": "topic"})[0] == {"text": "x", "topic": "A"}


@pytest.mark.parametrize("end", ["conll", "iob", "bio", "txt"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_conll_files(tmp_path, end, newline):
    lines = [
        "\ufeff-DOCSTART- -X- -X- O", "", "Give VB O", "aspirin  NN  B-DRUG", " ", "20\u00a0mg\tNN\tB-DOSE",
        "New York\tO ", "", "", "# O",
    ]  # fmt: skip
    path = write(tmp_path / f"a.{end}", newline.join(lines))
    assert read_rows(path, "ner") == [
        {"tokens": ["Give", "aspirin"], "ner_tags": ["O", "B-DRUG"]},
        {"tokens": ["20\u00a0mg", "New York"], "ner_tags": ["B-DOSE", "O"]},
        {"tokens": ["#"], "ner_tags": ["O"]},
    ]


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": y}\n', "line 2: not JSON (Expecting value, column 10)"),
        ("a.jsonl", '{"text": "x"}\n["x"]\n', "line 2: a list, but each line must be an object"),
        ("a.json", '[{"text": "x"},\n {"text": y}]', "line 2: not JSON"),
        ("a.json", '{"data": []}', "holds a dict with the keys data, but must hold a list of rows"),
        ("a.json", '[{"text": "x"}, 3]', "item 2: a int"),
        ("a.csv", "Where is it?,lost\nx,A\n", "no column 'text', which classification needs"),
        ("a.csv", "Where is it?,lost\nx,A\n", "'Where is it?', 'lost'. If the file has no header"),
        ("a.csv", "texts,label\nx,A\n", "pass column_mapping={'texts': 'text'}"),
        ("a.csv", "text,text\nx,A\n", "line 1: the column name 'text' twice. The first line must be"),
        ("a.csv", "text,\nx,A\n", "line 1: no name for column 2"),
        ("a.csv", "text,label\nx,A\ny, and z,B\n", "line 3: 3 cells, but the header names 2 columns"),
        ("a.csv", 'text,label\n"x" y,A\n', "line 2: "),
        ("a.csv", 'text,label\n"x,A\n', "every quote must be doubled"),
        ("a.csv", "text,label:json\nx,A\n", "line 2: the column 'label:json' must hold JSON, but has 'A'"),
        ("a.conll", "Give O\naspirin\n", "line 2: 'aspirin' is one column"),
        ("a.conll", "Give O\n\tB-X\n", "line 2: the word of the tag 'B-X' is empty"),
        ("a.jsonl", "", "is empty"),
        ("a.csv", "text,label\n", "is empty"),
        ("a.conll", "\n\n", "is empty"),
        ("a.json", "[]", "is empty"),
        ("a.docx", "x", "ends in '.docx'; files are read that end in: .jsonl, .jsonl.gz"),
        ("a.xlsx", "x", "is no Excel file"),
        ("a.parquet", "x", "is no whole Parquet file"),
        ("a.tmx", "<tmx>", "no well-formed XML"),
        ("a.tmx", "<tmx><tu><tuv xml:lang='de'><seg>a</seg></tuv></tu></tmx>", "unit 1 has 1 languages"),
        ("a", "x", "ends in 'nothing'"),
        ("a.jsonl.gz", b'{"text": "x"}', "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}', mtime=0)[:-9], "not a whole gzip file"),
    ],
)  # fmt: skip
def test_wrong_files_are_told_by_name_and_line(tmp_path, name, data, part):
    path = write(tmp_path / name, data)
    text = message(read_rows, path, "classification")
    assert str(path) in text
    assert part in text


def test_a_conll_file_is_not_for_other_tasks(tmp_path):
    path = write(tmp_path / "a.txt", "Give O\n")
    assert "no column 'text', which classification needs; there are: 'tokens', 'ner_tags'" in message(
        read_rows, path, "classification"
    )


def test_missing_files_and_folders(tmp_path):
    write(tmp_path / "train.csv", "text,label\n")
    assert f"Did you mean {str(tmp_path / 'train.csv')!r}?" in message(read_rows, tmp_path / "trian.csv")
    assert "is a folder; name one file in it: train.csv" in message(read_rows, tmp_path)
    hint = "the name of a data set card: pass load_rows('medical_ner', 'train')"
    assert hint in message(read_rows, "medical_ner")


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ({"text": "a"}, "one dictionary with the keys text"),
        ({"text": ["a", "b"], "label": ["x"]}, "different lengths: text 2, label 1"),
        (["a"], "Row 1 is a str"),
        (3, "The rows are a int"),
        (b"x", "The rows are a bytes"),
        ([{"text": "a"}, {"txt": "b"}], "the column 'text', but row 2 has: txt. Did you mean 'txt'?"),
    ],
)
def test_wrong_rows(source, part):
    assert part in message(read_rows, source, None, {"text": "body"})


def test_what_is_no_table_is_refused():
    assert "The rows are a int, but must be a list of dictionaries" in message(read_rows, 3)
    assert "a table of pandas or pyarrow" in message(read_rows, object())


# Round trips


@pytest.mark.parametrize("end", [".jsonl", ".csv", ".tsv"])
def test_hard_texts_come_back_exactly(tmp_path, end):
    rows = [{"text": text, "label": "a"} for text in HARD]
    nested = [
        {"tokens": HARD, "n": 1.5, "none": None, "x:json": "t", "answers": {"text": HARD, "start": [0]}}
    ]
    for value in (rows, nested, [{"\ufefftext": "a"}], [{"text": ""}]):
        write_rows(tmp_path / f"a{end}", value)
        assert read_rows(tmp_path / f"a{end}") == value
    assert [path.name for path in tmp_path.iterdir()] == [f"a{end}"]


texts = st.text(st.characters(exclude_categories=["Cs"]))
words = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), min_size=1)
sentences = st.lists(st.tuples(words, st.sampled_from(["O", "B-X", "I-X"])), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"text": texts, "label": texts}), min_size=1, max_size=4))
def test_any_text_comes_back_exactly(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    for end in (".jsonl", ".csv", ".tsv"):
        write_rows(folder / f"any{end}", rows)
        assert read_rows(folder / f"any{end}") == rows


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(sentences, min_size=1, max_size=3))
def test_any_sentence_comes_back_exactly(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp() / "any.conll"
    rows = [{"tokens": [w for w, _ in s], "ner_tags": [t for _, t in s]} for s in pairs]
    write_rows(path, rows)
    assert read_rows(path) == rows


def test_lone_surrogates_and_numpy_values_fit_into_json(tmp_path):
    import numpy as np

    path = tmp_path / "new" / "a.jsonl"
    write_rows(path, [{"text": "\ud83d", "p": np.array([0.5, 1.0]), "n": np.int64(3)}])
    assert read_rows(path) == [{"text": "\ud83d", "p": [0.5, 1.0], "n": 3}]
    path.read_bytes().decode("utf-8")
    write_rows(tmp_path / "a.csv", [{"text": "\ud83d"}])
    assert read_rows(tmp_path / "a.csv") == [{"text": "\ud83d"}]


@pytest.mark.parametrize(
    ("end", "rows", "part"),
    [
        (".jsonl", [], "There are no rows to write"),
        (".xml", [{"text": "a"}], "ends in '.xml'; rows are written to: .jsonl, .csv, .tsv, .conll"),
        (".jsonl", [{"p": float("nan")}], "Row 1 cannot be written as JSON"),
        (".jsonl", [{"p": {1, 2}}], "a value is of the type set"),
        (".csv", [{"text": "a"}, {"txt": "b"}], "Row 2 has the columns txt, but row 1 has text"),
        (".conll", [{"text": "a", "label": "b"}], "Row 1 has the columns text, label, but CoNLL holds"),
        (".conll", [{"tokens": ["a"], "ner_tags": []}], "Row 1 has 1 tokens and 0 tags"),
        (".conll", [{"tokens": ["a\tb"], "ner_tags": ["O"]}], "cannot hold the word 'a\\tb'"),
        (".conll", [{"tokens": ["-DOCSTART-"], "ner_tags": ["O"]}], "cannot hold the word '-DOCSTART-'"),
        (".conll", [{"tokens": ["\ud83d"], "ner_tags": ["O"]}], "half a surrogate pair"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, end, rows, part):
    path = write(tmp_path / f"a{end}", "old")
    assert part in message(write_rows, path, rows)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert set(RENDERERS) == {".jsonl", ".csv", ".tsv", ".conll"}
