"""The words that other libraries have taught everybody: `to`, `encode`, `batch_size`, progress bars, notebooks."""

import io
import pickle
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from processes import run_program
from sklearn.base import clone

import fewshot_nlp
from fewshot_nlp import Answer, Entity, FewShotClassifier, FewShotError, FewShotNER, FewShotQA, progress
from fewshot_nlp.progress import progress_bar

ROWS = [
    {"text": "I lost my card", "label": "card"},
    {"text": "my card is not here", "label": "card"},
    {"text": "send money to her", "label": "transfer"},
    {"text": "the money was not paid", "label": "transfer"},
]
ENTITIES = [
    {"text": "give <b>aspirin</b>", "spans": [{"start": 8, "end": 15, "label": "A<B"}]},
    {"text": "take a dose", "spans": []},
]
QUESTION = {"question": "who pays", "context": "the bank pays my account"}
TEXTS = ["where is my card", "", "pay the bank", "send it"]


@pytest.fixture(scope="module")
def classifier(tiny_encoder_folder: Path) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="contrastive").adapt(ROWS)


@pytest.fixture(scope="module")
def ner(tiny_encoder_folder: Path) -> FewShotNER:
    return FewShotNER.from_pretrained(tiny_encoder_folder).adapt(ENTITIES)


class TestPredictOptions:
    def test_batch_size_changes_no_prediction(self, classifier: FewShotClassifier) -> None:
        expected = classifier.predict_proba(TEXTS)
        np.testing.assert_allclose(classifier.predict_proba(TEXTS, batch_size=1), expected, atol=1e-5)
        assert classifier(TEXTS, batch_size=2) == classifier.predict(TEXTS)
        assert list(classifier.predict_iter(TEXTS, 2, batch_size=1)) == classifier.predict(TEXTS)

    def test_batch_size_bounds_what_is_computed_at_once(
        self, classifier: FewShotClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        collate = type(classifier.pipeline.task).collate

        def counted(task: Any, items: Any, *rest: Any, **options: Any) -> Any:
            sizes.append(len(items))
            return collate(task, items, *rest, **options)

        monkeypatch.setattr(type(classifier.pipeline.task), "collate", counted)
        classifier.predict([*TEXTS, "card", "money"], batch_size=2)
        assert sizes == [2, 2, 1]

    @pytest.mark.parametrize("size", [0, -1, 1.5, True])
    def test_a_batch_size_that_is_none(self, classifier: FewShotClassifier, size: Any) -> None:
        with pytest.raises(FewShotError, match=f"batch_size is {size!r}, but must be a whole number from 1"):
            classifier.predict(TEXTS, batch_size=size)


class TestProgressBars:
    def shown(self, model: Any, **options: Any) -> str:
        with redirect_stderr(io.StringIO()) as told:
            model.predict(TEXTS, **options)
        return told.getvalue()

    def test_a_bar_as_asked(self, classifier: FewShotClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "texts" in self.shown(classifier, show_progress_bar=True)
        assert self.shown(classifier, show_progress_bar=False) == self.shown(classifier) == ""
        monkeypatch.setenv("TQDM_DISABLE", "1")
        assert self.shown(classifier, show_progress_bar=True) == ""

    def test_the_environment_silences_bars_of_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        for given, silent in (("0", False), ("1", True)):
            monkeypatch.setenv("TQDM_DISABLE", given)
            with progress_bar(range(3), delay=0, file=(file := Terminal())) as bar:
                list(bar)
            assert (file.getvalue() == "") is silent

    def test_all_bars_off(self, classifier: FewShotClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "_off", False)
        from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

        fewshot_nlp.disable_progress_bars()
        assert self.shown(classifier, show_progress_bar=True) == ""
        assert are_progress_bars_disabled()
        enable_progress_bars()


class TestEncode:
    def test_embeddings_are_those_of_transformers(self, tiny_encoder_folder: Path) -> None:
        """Of an unadapted encoder: the mean of `AutoModel`'s last hidden states, special tokens included."""
        from transformers import AutoModel, AutoTokenizer

        model = FewShotClassifier.from_pretrained(tiny_encoder_folder)
        found = model.encode(TEXTS, batch_size=1)
        peer = AutoModel.from_pretrained(tiny_encoder_folder)
        tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_folder)
        with torch.no_grad():
            for row, text in zip(found, TEXTS, strict=True):
                mean = peer(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
                np.testing.assert_allclose(row, mean if text else 0 * mean, atol=1e-5)

    def test_adapting_moves_them(self, classifier: FewShotClassifier, tiny_encoder_folder: Path) -> None:
        before = FewShotClassifier.from_pretrained(tiny_encoder_folder).encode(TEXTS)
        assert before.shape == classifier.encode(TEXTS).shape == (4, 32)
        assert np.abs(classifier.encode(TEXTS) - before).max() > 1e-3

    def test_of_entities_and_refusals(self, ner: FewShotNER) -> None:
        assert ner.encode(["give aspirin"]).shape == (1, 32)
        with pytest.raises(FewShotError, match=r"encode takes a list of inputs, .* put it in \[ \]"):
            ner.encode("give aspirin")


class TestDevices:
    def test_to(self, classifier: FewShotClassifier) -> None:
        expected = classifier.predict_proba(TEXTS)
        assert classifier.to("cpu") is classifier
        assert classifier.device == "cpu"
        np.testing.assert_array_equal(classifier.predict_proba(TEXTS), expected)

    def test_a_device_that_is_not_here(self, classifier: FewShotClassifier) -> None:
        with pytest.raises(FewShotError, match="device is 'meta', but 'meta' holds no weights"):
            classifier.to("meta")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    def test_there_and_back(self, ner: FewShotNER) -> None:
        expected = ner.predict(["give aspirin"])
        there = ner.to("cuda").predict(["give aspirin"])
        assert next(iter(ner._model.adapted.state.values())).is_cuda  # type: ignore[union-attr]
        assert [e["word"] for e in there[0]] == [e["word"] for e in expected[0]]
        assert ner.to("cpu").predict(["give aspirin"]) == expected


class TestEncodersInMemory:
    @pytest.fixture
    def peer(self, tiny_encoder_folder: Path) -> Any:
        from transformers import AutoModel

        return AutoModel.from_pretrained(tiny_encoder_folder)

    def test_a_model_of_transformers(self, peer: Any, tiny_encoder_folder: Path, tmp_path: Path) -> None:
        with torch.no_grad():
            for parameter in peer.parameters():
                parameter.mul_(1.1)
        before = {name: value.clone() for name, value in peer.state_dict().items()}
        model = FewShotClassifier.from_pretrained(peer).adapt(ROWS)
        peer.save_pretrained(tmp_path / "peer")
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(tiny_encoder_folder).save_pretrained(tmp_path / "peer")
        expected = FewShotClassifier.from_pretrained(tmp_path / "peer").adapt(ROWS).predict_proba(TEXTS)
        np.testing.assert_allclose(model.predict_proba(TEXTS), expected, atol=1e-5)
        assert all(torch.equal(value, before[name]) for name, value in peer.state_dict().items())
        model.save_pretrained(tmp_path / "saved")
        again = FewShotClassifier.from_pretrained(tmp_path / "saved").predict_proba(TEXTS)
        np.testing.assert_allclose(again, expected, atol=1e-5)
        assert (
            clone(FewShotClassifier(peer))
            .fit([r["text"] for r in ROWS], [r["label"] for r in ROWS])
            .is_adapted
        )
        assert pickle.loads(pickle.dumps(model)).predict(TEXTS) == model.predict(TEXTS)  # noqa: S301

    def test_a_sentence_transformer(self, tiny_encoder_folder: Path) -> None:
        sentence_transformers = pytest.importorskip("sentence_transformers")
        from sentence_transformers import models

        transformer = models.Transformer(str(tiny_encoder_folder), max_seq_length=24)
        pooling = models.Pooling(32, pooling_mode="cls")
        peer = sentence_transformers.SentenceTransformer(modules=[transformer, pooling], device="cpu")
        model = FewShotNER.from_pretrained(peer)
        assert model.pipeline.learner.encoder.settings["max_length"] == 24
        np.testing.assert_allclose(
            FewShotClassifier.from_pretrained(peer).encode(ROWS[0]["text"].split()),
            peer.encode(ROWS[0]["text"].split()),
            atol=1e-5,
        )

    def test_without_a_tokenizer(self, peer: Any) -> None:
        peer.name_or_path = "nowhere/at-all"
        with pytest.raises(
            FewShotError, match="name_or_path 'nowhere/at-all', where no tokenizer is found"
        ) as e:
            FewShotClassifier.from_pretrained(peer)
        assert "\n" not in str(e.value)
        with pytest.raises(FewShotError, match="The encoder is a Linear, but must be a folder"):
            FewShotClassifier.from_pretrained(torch.nn.Linear(1, 1))


class TestNotebooks:
    def test_examples_are_highlighted_and_escaped(self, ner: FewShotNER) -> None:
        html = ner._repr_html_()
        assert "&lt;b&gt;<mark>aspirin <b>A&lt;B</b></mark>&lt;/b&gt;" in html
        assert "ner by context_probe, adapted to 2 examples of 1 labels" in html

    def test_of_a_classifier_as_scikit_learn_shows_it(self, classifier: FewShotClassifier) -> None:
        assert "send money to her <i>transfer</i>" in classifier._repr_mimebundle_()["text/html"]
        assert "not adapted" in FewShotClassifier(learner="ridge", name=None)._html_repr()

    def test_predictions(self, ner: FewShotNER, tiny_encoder_folder: Path) -> None:
        text = "give <b>aspirin</b>"
        [found] = ner.predict([text])
        shown = ner.show([text])
        marks = [f"<mark>{e['word']} <b>A&lt;B</b></mark>" for e in found]
        assert found
        assert all(mark in shown._repr_html_() for mark in marks)
        assert f"[{found[0]['word']} A<B]" in shown[0]
        qa = FewShotQA.from_pretrained(tiny_encoder_folder, learner="linear_probe")
        answers = {"text": ["the bank"], "answer_start": [0]}
        shown = qa.adapt([{**QUESTION, "answers": answers}]).show([QUESTION])
        assert f"<mark>{qa.predict([QUESTION])[0]['answer']}</mark>" in shown._repr_html_()
        assert "<mark>the bank</mark> pays my account <i>who pays</i>" in qa._repr_html_()


def test_predictions_have_the_keys_of_their_types(ner: FewShotNER, tiny_encoder_folder: Path) -> None:
    [found] = ner.predict(["give <b>aspirin</b>"])
    assert set(found[0]) == set(get_type_hints(Entity))
    qa = FewShotQA.from_pretrained(tiny_encoder_folder, learner="linear_probe")
    qa.adapt([{**QUESTION, "answers": {"text": ["the bank"], "answer_start": [0]}}])
    assert set(qa.predict([QUESTION], top_n=1)[0]) == set(get_type_hints(Answer))
    assert set(qa.predict([QUESTION])[0]) == Answer.__required_keys__


@pytest.mark.parametrize("command", ["adapt", "predict", "evaluate"])
def test_help_has_examples(command: str, tmp_path: Path) -> None:
    told = run_program("fewshot_nlp", [command, "--help"], tmp_path, {"COLUMNS": "200"}).stdout
    assert f"\n  fewshot-nlp {command} --" in told
