"""Other packages beside the learners: spaCy itself, and a stand-in for SetFit, which needs an older transformers."""

import sys

import pytest

from fewshot_nlp import FewShotError
from fewshot_nlp.comparison import peers
from fewshot_nlp.comparison.cells import Candidate, run_part
from fewshot_nlp.episode import Episode, Example

SETFIT = """
from types import SimpleNamespace
import torch

class SetFitModel:
    model_body = torch.nn.Linear(2, 3)

    @classmethod
    def from_pretrained(cls, folder):
        assert folder == "an encoder"
        return cls()

    def predict(self, texts):
        return [self.labels[text[0]] for text in texts]

class TrainingArguments(SimpleNamespace):
    pass

class Trainer(SimpleNamespace):
    def train(self):
        self.model.labels = {row["text"][0]: row["label"] for row in self.train_dataset}
"""


@pytest.fixture(autouse=True)
def anew():
    peers.python.cache_clear()
    yield
    peers.python.cache_clear()


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setenv("FEWSHOT_NLP_PEERS", sys.executable)


def test_spacy_learns_its_support_set(here):
    pytest.importorskip("spacy")
    rows = [
        (["Give", "aspirin", "", "today"], ["O", "B-DRUG", "O", "O"]),
        (["Dr", "Anna", "Berg", "came"], ["O", "B-PER", "I-PER", "O"]),
    ]
    found = peers.predicted("spacy", {"support": rows, "query": rows, "encoder": "", "seed": 0})
    assert found["predicted"] == [tags for _, tags in rows]
    assert min(found["adapt"], found["predict"]) > 0
    assert found["bytes"] > 1000


def test_setfit_is_asked_for_the_texts_of_the_query(here, tmp_path, monkeypatch):
    (tmp_path / "setfit.py").write_text(SETFIT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    support = (Example({"text": "a card"}, "lost"), Example({"text": "b fee"}, "fee"))
    query = (Example({"text": "all"}, "lost"), Example({"text": "bye"}, "lost"))
    names = {"task": "classification", "task_id": "t", "episode_id": "e"}
    episode = Episode(support=support, query=query, label_names=("fee", "lost"), **names)
    record = run_part(Candidate("SetFit", {"name": "an encoder"}, "setfit"), episode, "key")
    assert record["gold"] == ["lost", "lost"]
    assert record["predicted"] == ["lost", "fee"]
    assert record["bytes"] == 4 * (2 * 3 + 3)


def test_one_that_fails_is_refused_with_what_it_said(here, tmp_path, monkeypatch):
    (tmp_path / "setfit.py").write_text("raise RuntimeError('no room')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(FewShotError, match=r"^setfit failed: RuntimeError: no room$"):
        peers.predicted("setfit", {"support": [], "query": [], "encoder": "", "seed": 0})


@pytest.mark.parametrize("named", ["", "/nowhere/python"])
def test_one_that_is_not_here_is_told_with_the_remedy(named, monkeypatch):
    monkeypatch.setenv("FEWSHOT_NLP_PEERS", named)
    with pytest.raises(FewShotError, match=r"setfit is not here: .*pip install torch setfit"):
        peers.predicted("setfit", {})
