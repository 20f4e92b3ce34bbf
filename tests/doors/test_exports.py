"""Exported models give what the model gives, read by the libraries that the formats belong to."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.cli import main
from fewshot_nlp.learners import LEARNERS

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"
ROWS = [("I lost my card", "card"), ("my card", "card"), ("send money", "transfer"), ("pay her", "transfer")]
TEXTS = ["where is my card", "pay the bank " * 20, "send it"]
ENTITIES = [
    {"text": "give aspirin now", "spans": [{"start": 5, "end": 12, "label": "DRUG"}]},
    {"text": "take a dose of aspirin", "spans": [{"start": 15, "end": 22, "label": "DRUG"}]},
]
SENTENCES = ["give aspirin", "she was told to take aspirin for pain " * 3, "law"]
ASKED = {"question": "who pays", "context": "the bank pays my account"}
QUESTIONS = [ASKED, {"question": "what", "context": "the card is lost and the money too " * 8}]
LINEAR = {"neighbours": 0.0, "word_shape": 0.0}


@pytest.fixture(scope="module")
def classifier(tiny_encoder_folder: Path) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(tiny_encoder_folder).adapt(ROWS)


def qa_of(folder: Path, **options: Any) -> FewShotQA:
    return FewShotQA.from_pretrained(folder, **options).adapt(
        [{**ASKED, "answers": {"text": ["the bank"], "answer_start": [0]}}]
    )


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _libraries(self) -> None:
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")

    def read(self, model: Any, folder: Path, **options: Any) -> Any:
        from fewshot_nlp.exports.onnx_model import OnnxModel

        return OnnxModel(model.export(folder, "onnx", **options))

    def test_the_default_classifier(self, classifier: FewShotClassifier, tmp_path: Path) -> None:
        """Two encoders, before and after tuning; a text of several windows; another batch size than was traced."""
        found = self.read(classifier, tmp_path / "graph").predictions(["", *TEXTS], batch_size=2)
        expected = classifier.predict_proba(["", *TEXTS])
        np.testing.assert_allclose(np.stack([p["probabilities"] for p in found]), expected, atol=1e-4)

    def test_by_tokenizers_and_onnxruntime_alone(self, classifier: FewShotClassifier, tmp_path: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        folder = classifier.export(tmp_path / "graph", "onnx")
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_padding()
        texts = [TEXTS[0], TEXTS[2]]
        encoded = tokenizer.encode_batch(texts)
        mask = np.array([e.attention_mask for e in encoded])
        token = np.flatnonzero(mask)
        ones = np.ones(len(token), np.float32)
        given = {"input_ids": np.array([e.ids for e in encoded]), "attention_mask": mask, "token": token}
        given |= {
            "slot": token // mask.shape[1],
            "weight": ones,
            "part": ones,
            "example": np.arange(len(texts)),
        }
        [scores] = session.run(["scores"], given)
        found = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, classifier.predict_proba(texts), atol=1e-4)

    def test_the_default_for_entities(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        ner = FewShotNER.from_pretrained(tiny_encoder_folder).adapt(ENTITIES)
        self.same_entities(ner, self.read(ner, tmp_path / "graph"))

    def same_entities(self, ner: FewShotNER, written: Any) -> None:
        expected = ner.predict(SENTENCES)
        for found, wanted in zip(written.predict(SENTENCES), expected, strict=True):
            assert [{**e, "score": 0} for e in found] == [{**e, "score": 0} for e in wanted]
            np.testing.assert_allclose([e["score"] for e in found], [e["score"] for e in wanted], atol=1e-4)
        assert any(expected)

    def test_entities_with_a_head_of_label_names(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        ner = FewShotNER.from_pretrained(tiny_encoder_folder, layers=(1, 2))
        ner.pipeline.learner.encoder.head = LabelNameHead(32, layer=2).requires_grad_(False)
        ner.adapt(ENTITIES)
        assert "prior.labelled" in ner._adapted().adapted.state
        self.same_entities(ner, self.read(ner, tmp_path / "graph"))

    def test_the_default_for_answers(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        qa = qa_of(tiny_encoder_folder)
        for found, wanted in zip(
            self.read(qa, tmp_path / "graph").predict(QUESTIONS), qa.predict(QUESTIONS), strict=True
        ):
            assert {**found, "score": 0} == {**wanted, "score": 0}
            assert found["score"] == pytest.approx(wanted["score"], abs=1e-4)

    def test_the_exported_reader_needs_neither_torch_nor_this_package(
        self, classifier: FewShotClassifier, tiny_encoder_folder: Path, tmp_path: Path
    ) -> None:
        """Labels, entities and answers in a process in which neither can be imported: head, decoding rule, windows."""
        ner = FewShotNER.from_pretrained(tiny_encoder_folder).adapt(ENTITIES)
        several = FewShotClassifier.from_pretrained(
            tiny_encoder_folder, learner="linear_probe", task_config={"multi_label": True}
        ).adapt([{"text": text, "labels": [label]} for text, label in ROWS])
        long = "give aspirin now. " * 30  # more than one sentence and window
        asked: dict[str, tuple[Any, list[Any]]] = {
            "labels": (classifier, TEXTS),
            "several": (several, TEXTS),
            "entities": (ner, [*SENTENCES, long, ["give", "aspirin"]]),
            "answers": (qa_of(tiny_encoder_folder), QUESTIONS),
        }
        for name, (model, _) in asked.items():
            model.export(tmp_path / name, "onnx")
        script = (
            "import importlib.util, json, sys\n"
            "for name in ('torch', 'transformers', 'fewshot_nlp', 'jaxtyping'):\n"
            "    sys.modules[name] = None\n"
            "found = {}\n"
            "for name, inputs in json.load(sys.stdin).items():\n"
            "    spec = importlib.util.spec_from_file_location(name, f'{name}/predict.py')\n"
            "    reader = importlib.util.module_from_spec(spec)\n"
            "    sys.modules[name] = reader\n"
            "    spec.loader.exec_module(reader)\n"
            "    found[name] = reader.Reader(name)(inputs, batch_size=2)\n"
            "print(json.dumps(found))\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", script], input=json.dumps({n: i for n, (_, i) in asked.items()}),
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        for name in ("labels", "several"):
            assert told[name] == asked[name][0].predict(TEXTS)
        pairs = zip(asked["entities"][0].predict(asked["entities"][1]), told["entities"], strict=True)
        for found, wanted in [*((a, b) for es, fs in pairs for a, b in zip(es, fs, strict=True)),
                              *zip(asked["answers"][0].predict(QUESTIONS), told["answers"], strict=True)]:  # fmt: skip
            assert {**found, "score": 0} == {**wanted, "score": 0}
            assert found["score"] == pytest.approx(wanted["score"], abs=1e-4)
        assert len(told["entities"][3]) > 1

    def test_a_learner_whose_scores_cannot_be_traced(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="nearest_neighbour").adapt(
            ROWS
        )
        with pytest.raises(
            FewShotError, match=r"nearest_neighbour .* take the task's default learner, "
        ) as caught:
            model.export(tmp_path / "graph", "onnx")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "graph").exists()

    def test_the_page_has_every_learner_once(self) -> None:
        row = next(line for line in PAGE.read_text().splitlines() if line.startswith("| `bayesian`"))
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(
            name for name in LEARNERS.names() if LEARNERS.get(name).__module__.startswith("fewshot_nlp.")
        )

    def test_int8_is_smaller_and_near(self, classifier: FewShotClassifier, tmp_path: Path) -> None:
        quantised = self.read(classifier, tmp_path / "small", int8=True)
        classifier.export(tmp_path / "graph", "onnx")
        sizes = [(tmp_path / n / "model.onnx").stat().st_size for n in ("small", "graph")]
        assert sizes[0] < sizes[1]
        found = np.stack([p["probabilities"] for p in quantised.predictions(TEXTS)])
        np.testing.assert_allclose(found, classifier.predict_proba(TEXTS), atol=0.1)


class TestTransformers:
    def test_texts(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        from transformers import pipeline

        options: Any = {
            "learner": "prototypical",
            "learner_config": {"metric": "euclidean"},
            "pooling": "first",
        }
        model = FewShotClassifier.from_pretrained(tiny_encoder_folder, **options).adapt(ROWS)
        told = pipeline(
            "text-classification", model=str(model.export(tmp_path / "m", "transformers")), top_k=None
        )
        texts = [TEXTS[0], TEXTS[2]]
        for row, expected in zip(told(texts), model.predict_proba(texts), strict=True):
            found = {entry["label"]: entry["score"] for entry in row}
            np.testing.assert_allclose([found[label] for label in model.labels], expected, atol=1e-4)

    def test_entities(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        from transformers import pipeline

        options: Any = {"scheme": "io", "pooling": "first", "transitions": "none"}
        ner = FewShotNER.from_pretrained(
            tiny_encoder_folder, learner_config=LINEAR, task_config=options, layers=(1,)
        ).adapt(ENTITIES)
        folder = str(ner.export(tmp_path / "m", "transformers"))
        told = pipeline("token-classification", model=folder, aggregation_strategy="first")
        for text in (SENTENCES[0], SENTENCES[2]):
            for found, wanted in zip(told(text), ner.predict([text])[0], strict=True):
                assert (found["start"], found["end"], found["entity_group"]) == (
                    wanted["start"],
                    wanted["end"],
                    wanted["entity_group"],
                )
                assert found["score"] == pytest.approx(wanted["score"], abs=1e-4)

    def test_answers(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        qa = qa_of(tiny_encoder_folder, learner_config={"start": "context_probe", "start_config": LINEAR})
        folder = qa.export(tmp_path / "m", "transformers")
        peer, tokenizer = (
            kind.from_pretrained(folder) for kind in (AutoModelForQuestionAnswering, AutoTokenizer)
        )
        inputs = tokenizer(ASKED["question"], ASKED["context"], return_tensors="pt")
        with torch.no_grad():
            told = peer.eval()(**inputs)
        scores = qa._adapted().adapted.scores(qa.pipeline.queries(qa._queries([ASKED]), ()))
        slots = [0, *[i for i, part in enumerate(inputs.sequence_ids(0)) if part == 1]]
        found = torch.stack([told.start_logits[0, slots], told.end_logits[0, slots]], dim=1)
        torch.testing.assert_close(found, scores, atol=1e-4, rtol=1e-4)

    def test_refusals_name_what_can_be_had(
        self, classifier: FewShotClassifier, tiny_encoder_folder: Path, tmp_path: Path
    ) -> None:
        for options, told in (
            (
                {"learner": "linear_probe"},
                "linear_probe are not linear in the features.*prototypical with metric",
            ),
            (
                {"learner": "prototypical", "learner_config": {"metric": "euclidean"}},
                "pooled by 'mean', but .* reads the first token; load the encoder with pooling='first'",
            ),
            ({}, r"read from the layers \(1, 2\).* adapt with layers=\(-1,\), or take format='onnx'"),
        ):
            model = (
                FewShotClassifier.from_pretrained(tiny_encoder_folder, **options) if options else classifier
            )
            with pytest.raises(FewShotError, match=told) as caught:
                (model if model.is_adapted else model.adapt(ROWS)).export(tmp_path / "m", "transformers")
            assert "\n" not in str(caught.value)
            assert not (tmp_path / "m").exists()


def test_peft(classifier: FewShotClassifier, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    folder = classifier.export(tmp_path / "adapter", "peft")
    base = AutoModel.from_pretrained(tiny_encoder_folder)
    peer = PeftModel.from_pretrained(base, folder).eval()
    inputs = AutoTokenizer.from_pretrained(tiny_encoder_folder)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        found = peer(**inputs).last_hidden_state[0].mean(dim=0)
        with peer.disable_adapter():
            before = peer(**inputs).last_hidden_state[0].mean(dim=0)
    wanted = classifier.encode(TEXTS[:1])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(before.numpy() - wanted).max() > 1e-3
    plain = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe").adapt(ROWS)
    with pytest.raises(FewShotError, match="linear_probe has no adapter"):
        plain.export(tmp_path / "none", "peft")


def test_sentence_transformers(classifier: FewShotClassifier, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = classifier.export(tmp_path / "m", "sentence-transformers")
    peer = library.SentenceTransformer(str(folder), device="cpu")
    texts = [TEXTS[0], TEXTS[2]]
    np.testing.assert_allclose(peer.encode(texts), classifier.encode(texts), atol=1e-5)
    again = FewShotClassifier.from_pretrained(folder)  # and back
    np.testing.assert_allclose(again.encode(texts), classifier.encode(texts), atol=1e-5)


class TestSpacy:
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("spacy")

    def test_entities(self, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        import spacy

        ner = FewShotNER.from_pretrained(tiny_encoder_folder).adapt(ENTITIES)
        nlp = spacy.load(ner.export(tmp_path / "m", "spacy"))
        for doc, found in zip(nlp.pipe(SENTENCES), ner.predict(SENTENCES), strict=True):
            assert [(e.start_char, e.end_char, e.label_) for e in doc.ents] == [
                (e["start"], e["end"], e["entity_group"]) for e in found
            ]

    def test_categories(self, classifier: FewShotClassifier, tmp_path: Path) -> None:
        import spacy

        import fewshot_nlp.exports.spacy_component  # noqa: F401 - as the installed entry point does

        nlp = spacy.blank("en")
        nlp.add_pipe("fewshot_nlp", config={"folder": str(classifier.save_pretrained(tmp_path / "m"))})
        expected = dict(zip(classifier.labels, classifier.predict_proba(TEXTS[:1])[0], strict=True))
        assert nlp(TEXTS[0]).cats == pytest.approx(expected, abs=1e-6)
        with pytest.raises(FewShotError, match="The component fewshot_nlp has no model"):
            spacy.blank("en").add_pipe("fewshot_nlp")(nlp.make_doc("a"))


def test_other_refusals(classifier: FewShotClassifier, tiny_translator_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=r"format is 'onyx', but must be one of: .* Did you mean 'onnx'"):
        classifier.export(tmp_path / "m", "onyx")
    with pytest.raises(FewShotError, match="exists and is not empty"):
        classifier.export(tiny_translator_folder, "peft")
    mt = FewShotTranslator.from_pretrained(tiny_translator_folder)
    with pytest.raises(FewShotError, match="by a sequence-to-sequence model, which is not exported"):
        mt.export(tmp_path / "m", "onnx")


def test_the_command_line(
    classifier: FewShotClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = classifier.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit) as ended:
        main(["export", "--model", str(folder), "--format", "peft", "--out", str(tmp_path / "adapter")])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"peft in {tmp_path / 'adapter'}\n"
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
