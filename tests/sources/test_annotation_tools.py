"""Files as annotation tools and other libraries write them, after their documentation or by the library itself."""

import csv
import json
import logging
from typing import ClassVar

import pytest

from fewshot_nlp import FewShotError
from fewshot_nlp.sources import read_rows

TEXT = "Give aspirin to Ann."
SPANS = [{"start": 5, "end": 12, "label": "DRUG"}, {"start": 16, "end": 19, "label": "PER"}]


def studio_result(span):
    value = {"start": span["start"], "end": span["end"], "text": "x", "labels": [span["label"]]}
    return {"id": "a", "from_name": "label", "to_name": "text", "type": "labels", "value": value}


ENTITIES = {
    "Label Studio": [
        {
            "id": 1,
            "data": {"text": TEXT},
            "annotations": [{"result": list(map(studio_result, SPANS))}],
            "meta": {},
        },
        {"id": 2, "data": {"text": "Not done."}, "annotations": [{"was_cancelled": True, "result": []}]},
    ],
    "Label Studio (JSON-MIN)": [
        {
            "id": 1,
            "text": TEXT,
            "label": [studio_result(s)["value"] for s in SPANS],
            "annotator": 1,
            "lead_time": 3.5,
        }
    ],
    "doccano": [{"id": 1, "text": TEXT, "label": [[s["start"], s["end"], s["label"]] for s in SPANS]}],
    "doccano, new": [
        {
            "id": 1,
            "text": TEXT,
            "entities": [
                {"id": 7, "label": s["label"], "start_offset": s["start"], "end_offset": s["end"]}
                for s in SPANS
            ],
            "relations": [],
        }
    ],
    "Prodigy": [
        {
            "text": TEXT,
            "tokens": [{"text": "Give", "start": 0, "end": 4, "id": 0}],
            "spans": [{**s, "token_start": 1, "token_end": 1} for s in SPANS],
            "answer": "accept",
        },
        {"text": "Skip this.", "spans": [], "answer": "ignore"},
        {"text": "Wrong.", "spans": [], "answer": "reject"},
    ],
    "spaCy": [(TEXT, {"entities": [(s["start"], s["end"], s["label"]) for s in SPANS]})],
}


@pytest.mark.parametrize("tool", list(ENTITIES))
@pytest.mark.parametrize("way", ["memory", ".json", ".jsonl"])
def test_entities(tool, way, tmp_path, caplog):
    items = ENTITIES[tool]
    source = items
    if way != "memory":
        if way == ".jsonl" and tool == "spaCy":
            pytest.skip("pairs have no lines of objects")
        source = tmp_path / f"rows{way}"
        source.write_text(json.dumps(items) if way == ".json" else "\n".join(map(json.dumps, items)))
    with caplog.at_level(logging.INFO, logger="fewshot_nlp"):
        assert read_rows(source, "ner") == [{"text": TEXT, "spans": SPANS}]
    assert f"read as {tool.removesuffix(', new')}, 1 rows" in caplog.text
    if len(items) > 1:
        assert f"{len(items) - 1} left out that were not accepted" in caplog.text


def test_gliner_and_spacy_2_come_in_words():
    gliner = [{"tokenized_text": ["Ann", "Lee", "left"], "ner": [[0, 1, "PER"]]}]
    assert read_rows(gliner, "ner") == [
        {"tokens": ["Ann", "Lee", "left"], "ner_tags": ["B-PER", "I-PER", "O"]}
    ]
    tokens = [{"orth": "Ann", "ner": "B-PER"}, {"orth": "Lee", "ner": "L-PER"}, {"orth": "left", "ner": "O"}]
    spacy = [{"id": 0, "paragraphs": [{"raw": "Ann Lee left", "sentences": [{"tokens": tokens}]}]}]
    assert read_rows(spacy, "ner") == [
        {"tokens": ["Ann", "Lee", "left"], "ner_tags": ["B-PER", "L-PER", "O"]}
    ]


@pytest.mark.parametrize(
    "item",
    [
        {
            "data": {"text": "Fine."},
            "annotations": [{"result": [{"type": "choices", "value": {"choices": ["good"]}}]}],
        },
        {"text": "Fine.", "label": "good", "answer": "accept"},
        {"text": "Fine.", "options": [{"id": "good"}, {"id": "bad"}], "accept": ["good"], "answer": "accept"},
        ("Fine.", {"cats": {"good": 1.0, "bad": 0.0}}),
        ("Fine.", "good"),
    ],
)
def test_one_label(item):
    assert read_rows([item], "classification") == [{"text": "Fine.", "label": "good"}]


def test_squad_with_paragraphs(tmp_path):
    asked = {
        "id": "1",
        "question": "Who?",
        "answers": [{"text": "Ann", "answer_start": 0}],
        "is_impossible": False,
    }
    never = {"id": "2", "question": "When?", "answers": [], "plausible_answers": [], "is_impossible": True}
    path = tmp_path / "train-v2.0.json"
    article = {"title": "T", "paragraphs": [{"context": "Ann left.", "qas": [asked, never]}]}
    path.write_text(json.dumps({"version": "v2.0", "data": [article]}))
    first, second = read_rows(path, "question_answering")
    assert (first["question"], first["context"]) == ("Who?", "Ann left.")
    assert first["answers"] == {"text": ["Ann"], "answer_start": [0]}
    assert second["answers"] == {"text": [], "answer_start": []}


class TestPairs:
    ROWS: ClassVar = [{"translation": {"de": "Guten Tag.", "en": "Good day."}}]

    def test_columns(self, tmp_path):
        path = tmp_path / "pairs.csv"
        path.write_text("de,en\nGuten Tag.,Good day.\n")
        assert read_rows(path, "translation") == self.ROWS

    def test_parallel_files(self, tmp_path):
        (tmp_path / "a.de").write_text("Guten Tag.\n")
        (tmp_path / "a.en").write_text("Good day.\r\n")
        assert read_rows((tmp_path / "a.de", tmp_path / "a.en"), "translation") == self.ROWS
        (tmp_path / "a.en").write_text("Good day.\nBye.\n")
        with pytest.raises(FewShotError, match=r"has 1 lines, but .* has 2"):
            read_rows((tmp_path / "a.de", tmp_path / "a.en"), "translation")

    def test_translation_memory(self, tmp_path):
        path = tmp_path / "a.tmx"
        path.write_text(
            '<?xml version="1.0"?><tmx version="1.4"><header/><body><tu><tuv xml:lang="de-DE"><seg>Guten '
            '<ph x="1"/>Tag.</seg></tuv><tuv xml:lang="EN"><seg>Good day.</seg></tuv></tu></body></tmx>'
        )
        assert read_rows(path, "translation") == self.ROWS
        path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><tmx>&b;</tmx>')
        with pytest.raises(FewShotError, match="XML entities"):
            read_rows(path, "translation")


class TestTables:
    ROWS: ClassVar = [{"text": 'Grün; "a"', "label": "x"}, {"text": "Öl", "label": "y"}]

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_any_delimiter_and_mark(self, delimiter, encoding, tmp_path):
        path = tmp_path / "a.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(self.ROWS)
        assert read_rows(path, "classification") == self.ROWS

    def test_an_encoding_is_guessed_and_told(self, tmp_path, caplog):
        path = tmp_path / "a.csv"
        german = "Die Prüfung der Verträge verzögert sich, weil die Behörde größere Änderungen wünscht."
        path.write_bytes(f'text,label\n"{german}",x\n'.encode("cp1252"))
        assert read_rows(path, "classification") == [{"text": german, "label": "x"}]
        assert "line 2: not UTF-8 (byte 0xfc); read as" in caplog.text

    def test_excel_and_parquet_as_pandas_writes_them(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("openpyxl")
        table = pandas.DataFrame({"text": ["a", "b"], "label": [0, 1]})
        table.to_excel(tmp_path / "a.xlsx", index=False)
        table.to_parquet(tmp_path / "a.parquet")
        expected = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
        assert read_rows(tmp_path / "a.xlsx", "classification") == expected
        assert read_rows(tmp_path / "a.parquet", "classification") == expected
        assert read_rows({"text": ["a", "b"], "label": [0, 1]}, "classification") == expected

    def test_a_named_column_takes_the_place_of_another(self):
        rows = [{"text": "a", "label": 3, "label_text": "joy"}]
        assert read_rows(rows, "classification", {"label_text": "label"}) == [{"text": "a", "label": "joy"}]


class TestFoldersAndLines:
    def test_a_folder_a_class(self, tmp_path):
        for label, text in (("neg", "Bad."), ("pos", "Good.")):
            (tmp_path / label).mkdir()
            (tmp_path / label / "1.txt").write_text(text)
        assert read_rows(tmp_path, "classification") == [
            {"text": "Bad.", "label": "neg"},
            {"text": "Good.", "label": "pos"},
        ]

    def test_brat(self, tmp_path):
        (tmp_path / "d.txt").write_text(TEXT)
        lines = [
            "T1\tDRUG 5 12\taspirin",
            "R1\tTo Arg1:T1 Arg2:T2",
            "T2\tPER 16 17;18 19\tA n",
            "#1\tNote T1\tx",
        ]
        (tmp_path / "d.ann").write_text("\n".join(lines))
        assert read_rows(tmp_path, "ner") == [{"text": TEXT, "spans": SPANS}]
        (tmp_path / "e.ann").write_text("T1\tDRUG\n")
        with pytest.raises(FewShotError, match=r"e\.ann has no e\.txt"):
            read_rows(tmp_path, "ner")

    def test_a_folder_of_datasets(self, tmp_path):
        import datasets

        rows = [{"text": "a", "label": "x"}]
        datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(tmp_path / "d")
        assert read_rows(tmp_path / "d", "classification") == rows

    def test_fasttext(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("__label__pos Good day.\n\n__label__neg __label__rude Go away.\n")
        assert read_rows(path, "classification") == [
            {"text": "Good day.", "label": "pos"},
            {"text": "Go away.", "labels": ["neg", "rude"]},
        ]

    def test_webanno(self, tmp_path):
        path = tmp_path / "a.tsv"
        path.write_text(
            "#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.NE|value\n\n\n#Text=Ann Lee left Rome\n"
            "1-1\t0-3\tAnn\tPER[1]\t\n1-2\t4-7\tLee\tPER[1]\t\n1-3\t8-12\tleft\t_\t\n1-4\t13-17\tRome\tLOC\t\n"
        )
        tags = ["B-PER", "I-PER", "O", "B-LOC"]
        assert read_rows(path, "ner") == [{"tokens": ["Ann", "Lee", "left", "Rome"], "ner_tags": tags}]

    def test_spacys_documents(self, tmp_path):
        spacy = pytest.importorskip("spacy")
        document = spacy.blank("en")(TEXT)
        document.ents = [document.char_span(s["start"], s["end"], label=s["label"]) for s in SPANS]
        assert read_rows([document], "ner") == [{"text": TEXT, "spans": SPANS}]
        spacy.tokens.DocBin(docs=[document]).to_disk(tmp_path / "a.spacy")
        assert read_rows(tmp_path / "a.spacy", "ner") == [{"text": TEXT, "spans": SPANS}]


class TestMistakes:
    def test_an_item_in_the_middle_of_another_shape_has_its_number(self):
        items = [*ENTITIES["Prodigy"], {"text": "no answer"}]
        with pytest.raises(FewShotError, match="item 1 is of Prodigy, but item 4 is not"):
            read_rows(items, "ner")

    def test_an_item_that_lacks_a_key_has_its_number(self):
        items = [{"text": TEXT, "spans": [{"start": 0}], "answer": "accept"}]
        with pytest.raises(FewShotError, match="item 1 is not as Prodigy writes it"):
            read_rows(items, "ner")

    def test_nothing_accepted(self):
        with pytest.raises(FewShotError, match="none of the 1 items of Prodigy was accepted"):
            read_rows([{"text": "a", "answer": "reject"}], "ner")

    def test_a_tuple_of_another_length(self):
        with pytest.raises(FewShotError, match="Row 1 is a tuple of 3, but must have 2: text, label"):
            read_rows([("a", "b", "c")], "classification")
