"""Every format of labelled rows, as its library writes it or its documentation shows it, is the same rows; a model is
adapted to them, its predictions go back in the format where the tool reads it, and are read again as they were."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.models import FewShotModel
from fewshot_nlp.sources import TOOLS, read_rows, write_rows

TEXTS = [
    ("my card is lost", "card"),
    ("a new card", "card"),
    ("pay the bank", "money"),
    ("send money", "money"),
]
LABELLED = [{"text": text, "label": label} for text, label in TEXTS]
WORDS = [
    ("give aspirin and insulin now", [(5, 12, "DRUG"), (17, 24, "DRUG")]),
    ("the bank of england pays", [(4, 19, "ORG")]),
    ("nothing was found", []),
]
ANSWERED = {
    "id": "1",
    "question": "who pays",
    "context": "the bank pays",
    "answers": {"text": ["the bank"], "answer_start": [0]},
}
UNANSWERED = {
    "id": "2",
    "question": "when",
    "context": "the bank pays",
    "answers": {"text": [], "answer_start": []},
}
PAIRS = [("eht knab", "the bank"), ("wal", "law")]
Made = Callable[[Path], Any]


def texts(name: str, text: str, encoding: str = "utf-8") -> Made:
    """A file with a text in it."""

    def make(folder: Path) -> Path:
        (folder / name).write_text(text, encoding=encoding)
        return folder / name

    return make


def lines(name: str, rows: list[Any]) -> Made:
    return texts(name, "\n".join(map(json.dumps, rows)))


def whole(name: str, value: Any) -> Made:
    return texts(name, json.dumps(value))


def table(ending: str) -> Made:
    def make(folder: Path) -> Path:
        frame, path = pandas.DataFrame(LABELLED), folder / f"rows{ending}"
        {".xlsx": frame.to_excel, ".parquet": frame.to_parquet, ".csv": frame.to_csv}[ending](
            path, index=False
        )
        return path

    return make


def saved_dataset(folder: Path) -> Path:
    datasets.DatasetDict(train=datasets.Dataset.from_list(LABELLED)).save_to_disk(folder / "d")
    return folder / "d"


def folder_a_class(folder: Path) -> Path:
    for number, (text, label) in enumerate(TEXTS):
        (folder / "f" / label).mkdir(parents=True, exist_ok=True)
        (folder / "f" / label / f"{number}.txt").write_text(text)
    return folder / "f"


def brat(folder: Path) -> Path:
    for number, (text, spans) in enumerate(WORDS):
        (folder / f"{number}.txt").write_text(text)
        marks = [f"T{i}\t{label} {s} {e}\t{text[s:e]}\n" for i, (s, e, label) in enumerate(spans, 1)]
        (folder / f"{number}.ann").write_text("".join(marks))
    return folder


def documents(folder: Path) -> list[Any]:
    spacy = pytest.importorskip("spacy")
    found = []
    for text, spans in WORDS:
        document = spacy.blank("en")(text)
        document.ents = [document.char_span(s, e, label=label) for s, e, label in spans]
        found.append(document)
    return found


def docbin(folder: Path) -> Path:
    tokens = pytest.importorskip("spacy.tokens")
    tokens.DocBin(docs=documents(folder)).to_disk(folder / "a.spacy")
    return folder / "a.spacy"


def docbin_of_categories(folder: Path) -> Path:
    spacy = pytest.importorskip("spacy")
    bin_ = spacy.tokens.DocBin()
    for text, label in TEXTS:
        document = spacy.blank("en")(text)
        document.cats = {name: float(name == label) for name in ("card", "money")}
        bin_.add(document)
    bin_.to_disk(folder / "a.spacy")
    return folder / "a.spacy"


def parallel(folder: Path) -> tuple[Path, Path]:
    for place, name in enumerate(("a.xx", "a.en")):
        (folder / name).write_text("".join(pair[place] + "\n" for pair in PAIRS))
    return folder / "a.xx", folder / "a.en"


def words_and_tags(begin: str, inside: str, end: str, single: str) -> list[tuple[list[str], list[str]]]:
    """Words with tags, whose prefixes for a first, inner and last word and for one alone are given."""
    found = []
    for text, spans in WORDS:
        words, tags, at = text.split(), [], 0
        for word in words:
            span = next((s for s in spans if s[0] <= at < s[1]), None)
            first, last = span is not None and at == span[0], span is not None and at + len(word) == span[1]
            prefix = (single if last else begin) if first else end if last else inside
            tags.append("O" if span is None else f"{prefix}-{span[2]}")
            at += len(word) + 1
        found.append((words, tags))
    return found


def conll(*prefixes: str) -> Made:
    rows = words_and_tags(*prefixes)
    blocks = ["".join(f"{w} X {t}\n" for w, t in zip(*row, strict=True)) for row in rows]
    return texts("rows.conll", "-DOCSTART- -X- O\n\n" + "\n".join(blocks))


def webanno() -> Made:
    layer = "de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity|identifier|value"
    text, mark = f"#FORMAT=WebAnno TSV 3.3\n#T_SP={layer}\n\n", 0
    for number, (words, tags) in enumerate(words_and_tags("B", "I", "I", "B"), 1):
        text, at = text + f"\n#Text={' '.join(words)}\n", 0
        for place, (word, tag) in enumerate(zip(words, tags, strict=True), 1):
            mark += tag[0] == "B"
            cells = ["_", "_"] if tag == "O" else [f"*[{mark}]", f"{tag[2:]}[{mark}]"]
            text += "\t".join([f"{number}-{place}", f"{at}-{at + len(word)}", word, *cells, ""]) + "\n"
            at += len(word) + 1
    return texts("rows.tsv", text)


def gliner() -> list[Any]:
    found = []
    for words, tags in words_and_tags("B", "I", "E", "S"):
        begins = [i for i, tag in enumerate(tags) if tag[0] in "BS"]
        ends = [i for i, tag in enumerate(tags) if tag[0] in "ES"]
        found.append(
            {"tokenized_text": words, "ner": [[i, j, tags[i][2:]] for i, j in zip(begins, ends, strict=True)]}
        )
    return found


def spacy_2() -> list[Any]:
    sentences = [
        {"tokens": [{"id": i, "orth": w, "ner": t} for i, (w, t) in enumerate(zip(*row, strict=True))]}
        for row in words_and_tags("B", "I", "L", "U")
    ]
    return [{"id": 0, "paragraphs": [{"raw": " ".join(text for text, _ in WORDS), "sentences": sentences}]}]


def studio(values: Callable[[Any], list[Any]], kind: str, rows: list[Any]) -> list[Any]:
    """A project's export, with a cancelled annotation, a relation, and keys of newer versions."""
    place = {"from_name": "label", "to_name": "text", "type": kind, "origin": "manual"}
    tasks = []
    for number, (text, target) in enumerate(rows, 1):
        results: list[Any] = [{"id": f"r{i}", **place, "value": v} for i, v in enumerate(values(target))]
        results.append({"from_id": "r0", "to_id": "r1", "type": "relation", "direction": "right"})
        done = {"id": number, "result": results, "was_cancelled": False, "bulk_created": False}
        skipped = {"id": 99, "result": [], "was_cancelled": True}
        task = {
            "id": number,
            "data": {"text": text},
            "annotations": [done, skipped],
            "predictions": [],
            "drafts": [],
        }
        tasks.append(task | {"meta": {}, "inner_id": number, "allow_skip": True, "comment_authors": []})
    never = {"id": 98, "data": {"text": "not done"}, "annotations": [skipped], "predictions": []}
    return [*tasks, never]


def marks(spans: list[Any]) -> list[Any]:
    return [{"start": s, "end": e, "text": "x", "labels": [label]} for s, e, label in spans]


def bioc() -> list[Any]:
    """Passages of one document, each with its offset in it."""
    passages, at = [], 0
    for text, spans in WORDS:
        notes = [
            {"infons": {"type": label}, "text": text[s:e], "locations": [{"offset": at + s, "length": e - s}]}
            for s, e, label in spans
        ]
        passages.append({"infons": {}, "offset": at, "text": text, "annotations": notes, "relations": []})
        at += len(text) + 1
    return [{"id": "1", "infons": {}, "passages": passages}]


def bioc_xml() -> str:
    text = ""
    for passage in bioc()[0]["passages"]:
        text += f"<passage><offset>{passage['offset']}</offset><text>{passage['text']}</text>"
        for note in passage["annotations"]:
            [place] = note["locations"]
            text += f"<annotation id='1'><infon key='type'>{note['infons']['type']}</infon>"
            text += f"<location offset='{place['offset']}' length='{place['length']}'/></annotation>"
        text += "</passage>"
    head = "<?xml version='1.0' encoding='UTF-8'?><!DOCTYPE collection SYSTEM 'BioC.dtd'>"
    return f"{head}<collection><source/><document><id>1</id>{text}</document></collection>"


def studio_min() -> list[Any]:
    return [{"id": 1, "text": t, **({"label": marks(s), "lead_time": 2} if s else {})} for t, s in WORDS]


def doccano_new() -> list[Any]:
    return [
        {
            "id": 1,
            "text": text,
            "entities": [{"id": 7, "label": x, "start_offset": s, "end_offset": e} for s, e, x in spans],
            "relations": [],
            "Comments": [],
        }
        for text, spans in WORDS
    ]


def prodigy() -> list[Any]:
    left_out = [{"text": "no", "answer": "reject"}, {"text": "?", "answer": "ignore"}]
    return [
        {
            "text": text,
            "spans": [{"start": s, "end": e, "label": x} for s, e, x in spans],
            "_task_hash": 1,
            "answer": "accept",
        }
        for text, spans in WORDS
    ] + left_out


def predictions() -> list[Any]:
    return [
        {
            "text": text,
            "entities": [{"entity_group": x, "start": s, "end": e, "score": 1.0} for s, e, x in spans],
        }
        for text, spans in WORDS
    ]


def memory() -> str:
    units = "".join(
        f"<tu><tuv xml:lang='xx'><seg>{a}</seg></tuv><tuv xml:lang='en'><seg>{b}</seg></tuv></tu>"
        for a, b in PAIRS
    )
    return f"<?xml version='1.0'?><tmx version='1.4'><header/><body>{units}</body></tmx>"


def squad(rows: list[Any], version: str) -> Any:
    asked = [
        {
            "id": row["id"],
            "question": row["question"],
            "answers": [
                {"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)
            ],
            **({"is_impossible": not row["answers"]["text"]} if version == "v2.0" else {}),
        }
        for row in rows
    ]
    return {
        "version": version,
        "data": [{"title": "T", "paragraphs": [{"context": rows[0]["context"], "qas": asked}]}],
    }


CLASSIFICATION: dict[str, Made] = {
    "CSV": table(".csv"),
    "CSV, semicolons, cp1252": texts("a.csv", "text;label\n" + "".join(f"{t};{x}\n" for t, x in TEXTS), "cp1252"),
    "TSV, UTF-16": texts("a.tsv", "text\tlabel\n" + "".join(f"{t}\t{x}\n" for t, x in TEXTS), "utf-16"),
    "Excel": table(".xlsx"),
    "Parquet": table(".parquet"),
    "JSON": whole("a.json", LABELLED),
    "JSON lines": lines("a.jsonl", LABELLED),
    "a folder of datasets": saved_dataset,
    "DatasetDict": lambda folder: datasets.DatasetDict(train=datasets.Dataset.from_list(LABELLED)),
    "DataFrame": lambda folder: pandas.DataFrame(LABELLED),
    "tuples": lambda folder: TEXTS,
    "columns": lambda folder: pandas.DataFrame(LABELLED).to_dict("list"),
    "fastText": texts("a.txt", "".join(f"__label__{x} {t}\n" for t, x in TEXTS)),
    "a folder a class": folder_a_class,
    "Label Studio": whole("a.json", studio(lambda label: [{"choices": [label]}], "choices", TEXTS)),
    "Label Studio (JSON-MIN)": whole("a.json", [{"id": 1, "text": t, "topic": x, "annotator": 1} for t, x in TEXTS]),
    "doccano": lines("a.jsonl", [{"id": 1, "text": t, "label": [x]} for t, x in TEXTS]),
    "Prodigy": lines("a.jsonl", [{"text": t, "options": [], "accept": [x], "answer": "accept"} for t, x in TEXTS]),
    "spaCy's DocBin": docbin_of_categories,
    "spaCy": lambda folder: [(t, {"cats": {x: 1.0}}) for t, x in TEXTS],
}  # fmt: skip
NER: dict[str, Made] = {
    "Label Studio": whole("a.json", studio(marks, "labels", WORDS)),
    "Label Studio (JSON-MIN)": whole("a.json", studio_min()),
    "doccano": lines("a.jsonl", [{"id": 1, "text": t, "label": s} for t, s in WORDS]),
    "doccano, new": lines("a.jsonl", doccano_new()),
    "Prodigy": lines("a.jsonl", prodigy()),
    "spaCy": lambda folder: [(t, {"entities": s}) for t, s in WORDS],
    "spaCy's Doc": documents,
    "spaCy's DocBin": docbin,
    "spaCy 2": whole("a.json", spacy_2()),
    "brat": brat,
    "GLiNER": whole("a.json", gliner()),
    "CoNLL, IOB2": conll("B", "I", "I", "B"),
    "CoNLL, IOB1": lambda folder: texts("a.conll", (conll("I", "I", "I", "I")(folder)).read_text())(folder),
    "CoNLL, IOBES": conll("B", "I", "E", "S"),
    "CoNLL, BILOU": conll("B", "I", "L", "U"),
    "WebAnno TSV": webanno(),
    "BioC": texts("a.xml", bioc_xml()),
    "BioC as JSON": whole("a.json", {"source": "s", "date": "", "key": "", "documents": bioc()}),
    "a file of predictions": lines("a.jsonl", predictions()),
}  # fmt: skip
QUESTIONS: dict[str, Made] = {
    "SQuAD 1": whole("a.json", squad([ANSWERED], "1.1")),
    "SQuAD 2": whole("a.json", squad([ANSWERED, UNANSWERED], "v2.0")),
    "JSON lines": lines("a.jsonl", [ANSWERED, UNANSWERED]),
    "Dataset": lambda folder: datasets.Dataset.from_list([ANSWERED, UNANSWERED]),
}
TRANSLATION: dict[str, Made] = {
    "CSV, a language a column": texts("a.csv", "xx,en\n" + "".join(f"{a},{b}\n" for a, b in PAIRS)),
    "CSV, source and target": texts("a.csv", "source,target\n" + "".join(f"{a},{b}\n" for a, b in PAIRS)),
    "parallel files": parallel,
    "a translation memory": texts("a.tmx", memory()),
    "tuples": lambda folder: PAIRS,
    "JSON lines": lines("a.jsonl", [{"translation": {"xx": a, "en": b}} for a, b in PAIRS]),
}  # fmt: skip
ALL = {
    "classification": CLASSIFICATION,
    "ner": NER,
    "question_answering": QUESTIONS,
    "translation": TRANSLATION,
}
TOOL = {
    "Label Studio": "label-studio",
    "doccano": "doccano",
    "Prodigy": "prodigy",
    "spaCy": "spacy",
    "CoNLL": "conll",
}


@pytest.fixture(scope="module")
def models(tiny_encoder_folder: Path, tiny_translator_folder: Path) -> dict[str, FewShotModel]:
    return {
        "classification": FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical"),
        "ner": FewShotNER.from_pretrained(tiny_encoder_folder, learner="prototypical"),
        "question_answering": FewShotQA.from_pretrained(tiny_encoder_folder, learner="prototypical"),
        "translation": FewShotTranslator.from_pretrained(tiny_translator_folder, learner="nearest_neighbour"),
    }


def expected(task: str, name: str) -> list[Any]:
    if task == "classification":
        return sorted(TEXTS)
    if task == "ner":
        return [(text, list(map(tuple, spans))) for text, spans in WORDS]
    if task == "question_answering":
        return [
            (r["question"], r["answers"])
            for r in ([ANSWERED] if name == "SQuAD 1" else [ANSWERED, UNANSWERED])
        ]
    return PAIRS


def canonical(model: FewShotModel, rows: Any) -> list[Any]:
    """What rows say, in one form a task."""
    task = model.pipeline.task
    examples = task.examples(rows)
    if task.name == "classification":
        return sorted((e.inputs["text"], e.target) for e in examples)
    if task.name == "ner":
        return [task.highlights(e)[:2] for e in examples]
    if task.name == "question_answering":
        return [(row["question"], row["answers"]) for row in rows]
    return [(e.inputs["text"], e.target) for e in examples]


def question(task: str, row: Any) -> Any:
    """What a model is asked for a row."""
    if task == "translation":
        return next(iter(row["translation"].values()))
    return row if task == "question_answering" else row.get("text") or row["tokens"]


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, made in ALL.items() for name in made])
def test_read_adapted_predicted_written_back_and_read_again(
    task: str, name: str, models: dict[str, FewShotModel], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, source = models[task], ALL[task][name](tmp_path)
    mapping = {"topic": "label"} if (task, name) == ("classification", "Label Studio (JSON-MIN)") else None
    with caplog.at_level(logging.INFO, logger="fewshot_nlp"):
        rows = read_rows(source, task, mapping)
    if isinstance(source, Path):
        assert f"{source}: read as " in caplog.text
    assert canonical(model, rows) == expected(task, name)
    model.adapt(source, column_mapping=mapping)
    asked = [question(task, row) for row in rows]
    found = model.predict(asked)
    assert len(found) == len(rows)

    tool = next((TOOL[known] for known in TOOL if name.startswith(known)), None)
    if tool is None:
        write_rows(tmp_path / "again.jsonl", rows)
        assert read_rows(tmp_path / "again.jsonl", task) == rows
        return
    ending = ".spacy" if "Doc" in name else TOOLS[tool][1]
    back = model.annotate(asked, tmp_path / f"back{ending}", tool)
    again = canonical(model, read_rows(back, task))
    if task == "classification":
        assert again == sorted(zip(asked, found, strict=True))
    else:
        spans = [[(e["start"], e["end"], e["entity_group"]) for e in one] for one in found]
        assert [pair[1] for pair in again] == spans


def test_predictions_for_label_studio_are_told_from_what_people_did(
    models: dict[str, FewShotModel], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tasks with a prediction each, under the names of a project; read with a warning, or once they are accepted."""
    model = models["classification"].adapt(LABELLED)
    names = {"control": "topic", "object": "body", "column": "mail"}
    path = model.annotate(["my card", "send"], tmp_path / "tasks.json", "label-studio", **names)
    tasks = json.loads(path.read_text())
    [prediction] = tasks[0]["predictions"]
    [result] = prediction["result"]
    assert (result["from_name"], result["to_name"], result["type"]) == ("topic", "body", "choices")
    assert prediction["score"] == pytest.approx(model.predict_proba(["my card"]).max())
    found = read_rows(path, "classification")
    assert "predictions that nobody has checked, 2 rows" in caplog.text
    accepted = {
        "data": tasks[0]["data"],
        "annotations": [{"result": prediction["result"]}],
        "predictions": [1],
    }
    caplog.clear()
    seen = read_rows([accepted, tasks[1] | {"annotations": []}], "classification")
    assert seen == found[:1]
    assert "1 rows; 1 left out that were not accepted" in caplog.text
    asked = read_rows([accepted, tasks[1] | {"annotations": []}], "classification", labelled=False)
    assert [row["text"] for row in asked] == ["my card", "send"]
    with pytest.raises(FewShotError, match=r"no option 'controll'; it has: control.*Did you mean 'control'"):
        model.annotate(["my card"], path, "label-studio", controll="a")


def test_an_unknown_ending_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.jsnl").write_text("{}")
    with pytest.raises(FewShotError, match=r"ends in '.jsnl'; files are read .*Did you mean '.jsonl'"):
        read_rows(tmp_path / "a.jsnl")
