"""Forty doors by which people come with their data, and by which they take what they get elsewhere; each has a test.

`DOORS` names the test of each; those that no other file has are here.
"""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest

from fewshot_nlp import FewShotClassifier, FewShotNER, FewShotQA
from fewshot_nlp.sources import read_rows

TESTS = Path(__file__).parents[1]
DOORS = {
    "CoNLL-2003, IOB1, ClassLabel, generators, flat SQuAD": "doors/test_doors.py::test_rows_as_libraries_have_them",
    "semicolons, encodings, Excel, Parquet": "sources/test_annotation_tools.py::test_any_delimiter_and_mark",
    "integer labels": "test_rows.py::test_numbers_come_back_as_numbers_in_their_natural_order",
    "SetFit's columns": "doors/test_doors.py::test_either_column_of_setfit",
    "DataFrame, DatasetDict, tuples, columns": "doors/test_doors.py::test_tables_in_memory",
    "doccano": "sources/test_annotation_tools.py::test_entities",
    "Label Studio, Prodigy": "sources/test_annotation_tools.py::test_labels",
    "spaCy, brat, GLiNER, WebAnno": "sources/test_annotation_tools.py::test_gliner_and_spacy_2_come_in_words",
    "SQuAD with paragraphs": "sources/test_annotation_tools.py::test_squad_with_paragraphs",
    "pairs of languages": "sources/test_annotation_tools.py::test_translation_memory",
    "a folder a class, fastText": "sources/test_annotation_tools.py::test_a_folder_a_class",
    "predict on Series, ndarray, Dataset, generator": "doors/test_doors.py::test_inputs_of_any_kind",
    "one empty text": "test_rows.py::test_an_empty_text_abstains_and_leaves_its_neighbours_as_they_are",
    "blank lines of a text file": "cli/test_cli.py::test_empty_and_broken_texts_are_predicted_beside_the_others",
    "an estimator": "models/test_estimator.py::test_fit_and_what_it_learned",
    "Pipeline, GridSearchCV": "models/test_estimator.py::test_pipeline_and_search",
    "pickle, joblib, deepcopy, processes": "models/test_estimator.py::test_another_process",
    "datasets.map": "doors/test_doors.py::test_a_map_of_datasets",
    "device, to, batch_size, progress bar": "doors/test_everyday_words.py::test_batch_size_changes_no_prediction",
    "model(texts), encode(texts)": "doors/test_everyday_words.py::test_embeddings_are_those_of_transformers",
    "an encoder in memory": "doors/test_everyday_words.py::test_a_sentence_transformer",
    "progress bars off": "doors/test_everyday_words.py::test_the_environment_silences_bars_of_a_terminal",
    "repr, notebooks": "doors/test_everyday_words.py::test_examples_are_highlighted_and_escaped",
    "logging": "models/test_estimator.py::test_the_log_and_the_name_tell_what_was_adapted_to",
    "a stream": "models/test_estimator.py::test_a_stream_is_read_in_chunks",
    "transformers, sentence-transformers": "doors/test_exports.py::test_sentence_transformers",
    "PEFT": "doors/test_exports.py::test_peft",
    "ONNX": "doors/test_exports.py::test_by_tokenizers_and_onnxruntime_alone",
    "spaCy's component": "doors/test_exports.py::test_categories",
    "push_to_hub, dry": "persistence/test_hub.py::test_a_dry_run_sends_nothing",
    "FastAPI, gradio, displaCy": "doors/test_doors.py::test_predictions_in_pages",
    "TensorBoard, Optuna": "training/test_training_records.py::test_trackers_get_settings_and_figures",
    "types of predictions": "doors/test_everyday_words.py::test_predictions_have_the_keys_of_their_types",
    "python -m, completion, help": "doors/test_everyday_words.py::test_help_has_examples",
    "evaluate on own rows": "comparison/test_evaluate.py::test_rows_to_page",
    "meta-training on own files": "doors/test_own_training.py::test_train_on_files",
    "recipes from the wheel": "doors/test_own_training.py::test_recipes",
    "plots": "comparison/test_evaluate.py::test_rows_to_page",
    "entities by names alone": "doors/test_doors.py::test_entities_by_names_alone_are_no_commas",
    "README": "docs/test_pages.py::test_blocks_of_a_page_run_in_turn_and_print_what_is_shown",
}
ROWS = [("I lost my card", "card"), ("my card", "card"), ("send money", "transfer"), ("pay her", "transfer")]
TEXTS = ["where is my card", "pay the bank"]


@pytest.fixture(scope="module")
def classifier(tiny_encoder_folder: Path) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe").adapt(ROWS)


@pytest.fixture(scope="module")
def ner(tiny_encoder_folder: Path) -> FewShotNER:
    rows = [{"text": "give aspirin now", "spans": [{"start": 5, "end": 12, "label": "DRUG"}]}]
    return FewShotNER.from_pretrained(tiny_encoder_folder).adapt(rows)


def test_each_door_has_its_test() -> None:
    assert len(DOORS) == 40
    for door, place in DOORS.items():
        file, name = place.split("::")
        assert re.search(rf"def {name}\(", (TESTS / file).read_text(encoding="utf-8")), door


def test_rows_as_libraries_have_them(
    ner: FewShotNER, classifier: FewShotClassifier, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    conll = "-DOCSTART- -X- -X- O\n\nGive VB VB O\naspirin NN NN I-DRUG\ninsulin NN NN B-DRUG\n"
    (tmp_path / "eng.conll").write_text(conll)
    [example] = ner.pipeline.task.examples(read_rows(tmp_path / "eng.conll", "ner"))
    assert example.target == ["O", "B-DRUG", "B-DRUG"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    assert [row["label"] for row in read_rows(table, "classification")] == ["no", "yes"]
    assert classifier.adapt(dict(zip(("text", "label"), row, strict=True)) for row in ROWS).labels == [
        "card",
        "transfer",
    ]
    flat = {
        "id": "1",
        "question": "who",
        "context": "the bank",
        "answers": {"text": ["bank"], "answer_start": [4]},
    }
    assert FewShotQA.from_pretrained(tiny_encoder_folder, learner="linear_probe").adapt([flat]).is_adapted


@pytest.mark.parametrize(("mapping", "label"), [(None, 1), ({"label_text": "label"}, "good")])
def test_either_column_of_setfit(mapping: Any, label: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": 1, "label_text": "good"}\n')
    assert read_rows(tmp_path / "rows.jsonl", "classification", mapping)[0]["label"] == label


def test_tables_in_memory() -> None:
    rows = [dict(zip(("text", "label"), row, strict=True)) for row in ROWS]
    frame = pandas.DataFrame(rows)
    columns = frame.to_dict("list")
    split = datasets.DatasetDict(train=datasets.Dataset.from_list(rows))
    for source in (frame, columns, split, ROWS):
        assert read_rows(source, "classification") == rows


def test_inputs_of_any_kind(classifier: FewShotClassifier) -> None:
    expected = classifier.predict(TEXTS)
    table = datasets.Dataset.from_dict({"text": TEXTS})
    for inputs in (pandas.Series(TEXTS), np.array(TEXTS), table, (text for text in TEXTS), tuple(TEXTS)):
        assert classifier.predict(inputs) == expected


@pytest.mark.parametrize("processes", [None, 2])
def test_a_map_of_datasets(processes: int | None, classifier: FewShotClassifier) -> None:
    table = datasets.Dataset.from_dict({"text": TEXTS * 2})
    found = table.map(
        lambda part: {"found": classifier.predict(part["text"])}, batched=True, num_proc=processes
    )
    assert found["found"] == classifier.predict(TEXTS) * 2


def test_predictions_in_pages(ner: FewShotNER, classifier: FewShotClassifier) -> None:
    """As JSON, which servers send, and as displaCy's manual entities."""
    text = "give aspirin now"
    [found] = ner.predict([text])
    assert json.loads(json.dumps(found)) == found != []
    assert json.loads(json.dumps(classifier.predict(TEXTS))) == classifier.predict(TEXTS)
    displacy = pytest.importorskip("spacy.displacy")
    entities = [{**e, "label": e["entity_group"]} for e in found]
    html = displacy.render({"text": text, "ents": entities}, style="ent", manual=True, page=True)
    assert all(e["word"] in html for e in found)
    assert html.count("<mark") == len(found)


def test_entities_by_names_alone_are_no_commas() -> None:
    ner = FewShotNER.from_pretrained()
    ner.adapt([], labels={"person": "a person's name", "city": "a city or town", "company": "a company"})
    texts = ["Yesterday, Angela Merkel flew to Paris, London, and Rome.", "Well, yes; no - perhaps (later)."]
    words = [entity["word"] for entities in ner.predict(texts) for entity in entities]
    assert words
    assert all(re.search(r"\w", word) for word in words)
    assert not any(word.startswith((",", ";", ".")) or word.endswith((",", ";")) for word in words)
