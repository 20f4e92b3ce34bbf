"""Files as annotation tools and other libraries write them, after their documentation or by the library itself."""

import csv
import json
import logging
import re
from typing import ClassVar

import pytest

from fewshot_nlp import FewShotError
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks.classification import Classification
from fewshot_nlp.tasks.translation import Translation

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
        [row] = read_rows(source, "ner")
    assert {"text": TEXT, "spans": SPANS}.items() <= row.items()
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


LABELLED = {
    "Label Studio": lambda labels: {
        "data": {"id": "a much longer text than the text", "text": "Fine."},
        "annotations": [{"result": [{"type": "choices", "value": {"choices": labels}}]}],
    },
    "Label Studio (JSON-MIN)": lambda labels: {"text": "Fine.", "mood": {"choices": labels}},
    "Prodigy": lambda labels: {"text": "Fine.", "options": [], "accept": labels, "answer": "accept"},
    "spaCy": lambda labels: ("Fine.", {"cats": {x: float(x in labels) for x in ("good", "kind", "bad")}}),
}


@pytest.mark.parametrize("tool", list(LABELLED))
def test_labels(tool):
    """A list of one is a label; none or several are a row of multi-label data, or refused in words."""
    files = {n: read_rows([LABELLED[tool](["good", "kind"][:n])], "classification") for n in range(3)}
    several = Classification(multi_label=True)
    assert [several.examples(files[n])[0].target for n in range(3)] == [[], ["good"], ["good", "kind"]]
    assert Classification().examples(files[1])[0].target == "good"
    for n in (0, 2):
        with pytest.raises(FewShotError, match=rf"Row 1: it has {n} labels.*'multi_label': True"):
            Classification().examples(files[n])


def test_json_min_writes_one_choice_as_a_text():
    items = [
        {"text": "a", "mood": "good"},
        {"text": "b", "mood": {"choices": ["good", "kind"]}},
        {"text": "c"},
    ]
    rows = read_rows(items, "classification")
    assert [e.target for e in Classification(multi_label=True).examples(rows)] == [
        ["good"],
        ["good", "kind"],
        [],
    ]


def test_one_label_beside_spans():
    [row] = read_rows([{"text": TEXT, "label": "good", "spans": SPANS, "answer": "accept"}])
    assert (Classification().example(row).target, row["spans"]) == ("good", SPANS)
    for pair in [("Fine.", "good"), ["Fine.", "good"]]:
        assert read_rows([pair], "classification") == [{"text": "Fine.", "label": "good"}]


BARE = {
    "doccano": {"id": 2, "text": "Nothing.", "label": []},
    "Label Studio (JSON-MIN)": {"id": 2, "text": "Nothing.", "annotator": 1},
}


@pytest.mark.parametrize("tool", list(BARE))
@pytest.mark.parametrize("first", [True, False])
def test_a_text_without_an_entity_is_a_row(tool, first):
    items = [BARE[tool], *ENTITIES[tool]] if first else [*ENTITIES[tool], BARE[tool]]
    found = {row["text"]: row["spans"] for row in read_rows(items, "ner")}
    assert found == {"Nothing.": [], TEXT: SPANS}


def test_marks_on_a_page_are_refused():
    value = {"start": "/p[1]/text()[1]", "startOffset": 5, "hypertextlabels": ["DRUG"]}
    with pytest.raises(FewShotError, match=r"item 1 is not as Label Studio writes it .*hypertextlabels"):
        read_rows([{"data": {"text": TEXT}, "annotations": [{"result": [{"value": value}]}]}], "ner")


def test_squad_with_paragraphs(tmp_path):
    asked = {
        "id": "1",
        "question": "Who?",
        "answers": [{"text": "Ann", "answer_start": 0}],
        "is_impossible": False,
    }
    never = {"id": "2", "question": "When?", "answers": [], "plausible_answers": [], "is_impossible": True}
    asks = read_rows([{"paragraphs": []}, {"paragraphs": [{"context": "a", "qas": [{"question": "b"}]}]}])
    assert [(row["question"], row["context"], "answers" in row) for row in asks] == [("b", "a", False)]
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
        path.write_text("id,DE,EN\nab,Guten Tag.,Good day.\n")
        assert read_rows(path, "translation") == self.ROWS

    def test_columns_of_any_name(self, tmp_path):
        path = tmp_path / "pairs.csv"
        path.write_text("german,english\nGuten Tag.,Good day.\n")
        mapping = {"german": "source", "english": "target"}
        with pytest.raises(FewShotError, match=re.escape(f"column_mapping={mapping}")):
            read_rows(path, "translation")
        ways = [
            read_rows(path, "translation", mapping),
            read_rows([("Guten Tag.", "Good day.")], "translation"),
        ]
        for rows in ways:
            for task in (Translation(), Translation(source="de", target="en")):
                [example] = task.examples(rows)
                assert (example.inputs, example.target) == ({"text": "Guten Tag."}, "Good day.")
        with pytest.raises(FewShotError, match="Row 2 has not the columns de and en"):
            read_rows([{"de": "a", "en": "b"}, {"de": "a"}], "translation")

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
            {"text": "Good day.", "labels": ["pos"]},
            {"text": "Go away.", "labels": ["neg", "rude"]},
        ]
        path.write_text("\n__label__pos Good\u2028day.\n")
        assert read_rows(path, "classification") == [{"text": "Good\u2028day.", "labels": ["pos"]}]

    def test_webanno(self, tmp_path):
        path = tmp_path / "a.tsv"
        path.write_text(
            "#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.NE|value\n\n\n#Text=Ann Lee left Rome\n"
            "1-1\t0-3\tAnn\tPER[1]\t\n1-2\t4-7\tLee\tPER[1]\t\n1-3\t8-12\tleft\t_\t\n1-4\t13-17\tRome\tLOC\t\n"
        )
        tags = ["B-PER", "I-PER", "O", "B-LOC"]
        assert read_rows(path, "ner") == [{"tokens": ["Ann", "Lee", "left", "Rome"], "ner_tags": tags}]

    def test_webanno_reads_the_value_of_named_entities(self, tmp_path):
        path = tmp_path / "a.tsv"
        path.write_text(
            "#FORMAT=WebAnno TSV 3.3\n#T_SP=x.POS|PosValue\n#T_SP=x.NamedEntity|identifier|value\n\n\n#Text=Ann left\n"
            "1-1\t0-3\tAnn\tNNP\thttp://x\tPER\t\n1-2\t4-8\tleft\tVBD\t_\t_\t\n"
        )
        assert read_rows(path, "ner") == [{"tokens": ["Ann", "left"], "ner_tags": ["B-PER", "O"]}]

    def test_brat_tells_of_texts_without_annotations_and_of_folders_below(self, tmp_path, caplog):
        for name in ("d.txt", "e.txt"):
            (tmp_path / name).write_text(TEXT)
        (tmp_path / "d.ann").write_text("T1\tDRUG 5 12\taspirin\n")
        assert len(read_rows(tmp_path, "ner")) == 1
        assert "left out, as they have no annotations: e.txt." in caplog.text
        (tmp_path / "top" / "train").mkdir(parents=True)
        for file in tmp_path.glob("d.*"):
            file.rename(tmp_path / "top" / "train" / file.name)
        with pytest.raises(FewShotError, match=r"annotations in the folders train; name one of them"):
            read_rows(tmp_path / "top", "ner")

    def test_spacys_documents(self, tmp_path):
        spacy = pytest.importorskip("spacy")
        document = spacy.blank("en")(TEXT)
        document.ents = [document.char_span(s["start"], s["end"], label=s["label"]) for s in SPANS]
        assert read_rows([document], "ner") == [{"text": TEXT, "spans": SPANS}]
        spacy.tokens.DocBin(docs=[document]).to_disk(tmp_path / "a.spacy")
        assert read_rows(tmp_path / "a.spacy", "ner") == [{"text": TEXT, "spans": SPANS}]


class TestDialects:
    ROWS: ClassVar = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.csv", "sep=;\r\ntext;label\r\na;x\r\nb;y\r\n"),
            ("a.csv", "text, label\na, x\nb, y\n"),
            ("a.csv", ",text,label\n0,a,x\n1,b,y\n"),
            ("a.json", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'),
            ("a.json", '{"columns": ["label", "text"], "index": [0, 1], "data": [["x", "a"], ["y", "b"]]}'),
            ("a.json", '[["a", "x"], ["b", "y"]]'),
            ("a.ndjson", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'),
        ],
    )
    def test_files_of_excel_pandas_and_others(self, name, text, tmp_path):
        (tmp_path / name).write_text(text, newline="")
        rows = read_rows(tmp_path / name, "classification")
        assert [{key: row[key] for key in ("text", "label")} for row in rows] == self.ROWS

    @pytest.mark.parametrize("text", ["", " \n"])
    def test_an_empty_json_file(self, text, tmp_path):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(FewShotError, match="is empty: it has no rows"):
            read_rows(tmp_path / "a.json", "classification")

    def test_conll_in_a_tsv(self, tmp_path):
        (tmp_path / "a.tsv").write_text("Ann\tNNP\tB-PER\nleft\tVBD\tO\n\nBob\tNNP\tB-PER\n")
        assert read_rows(tmp_path / "a.tsv", "ner") == [
            {"tokens": ["Ann", "left"], "ner_tags": ["B-PER", "O"]},
            {"tokens": ["Bob"], "ner_tags": ["B-PER"]},
        ]

    def test_excel_labels_with_gaps_and_the_text_na(self, tmp_path, caplog):
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("openpyxl")
        path = tmp_path / "a.xlsx"
        with pandas.ExcelWriter(path) as file:
            table = pandas.DataFrame({"text": ["a", None, "NA"], "label": [1, None, 2]})
            table.to_excel(file, sheet_name="data", index=False)
            table.to_excel(file, sheet_name="notes", index=False)
        assert read_rows(path, "classification") == [{"text": "a", "label": 1}, {"text": "NA", "label": 2}]
        assert "of the sheets data, notes the first is read" in caplog.text

    @pytest.mark.parametrize("encoding", ["UTF-16", "ISO-8859-1", "UTF-8"])
    def test_a_translation_memory_says_its_encoding(self, encoding, tmp_path):
        units = "".join(
            f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>' for code, text in (("de", "\xc3"), ("en", "b"))
        )
        text = f'<?xml version="1.0" encoding="{encoding}"?><tmx><body><tu>{units}</tu></body></tmx>'
        (tmp_path / "a.tmx").write_bytes(text.encode(encoding))
        assert read_rows(tmp_path / "a.tmx", "translation") == [{"translation": {"de": "\xc3", "en": "b"}}]
        (tmp_path / "a.tmx").write_text('<?xml version="1.0" encoding="none"?><tmx/>')
        with pytest.raises(FewShotError, match="names an unknown encoding"):
            read_rows(tmp_path / "a.tmx", "translation")


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
