"""The start of entity recognition that ships: it knows names, learns from one sentence, and loads without a network."""

import pytest

from fewshot_nlp import FewShotNER
from fewshot_nlp.backbone.bundled import HUB_NAME, shipped_folder
from fewshot_nlp.errors import FewShotError

ROW = {"tokens": ["Give", "aspirin", "today"], "ner_tags": ["O", "B-DRUG", "O"]}
TEXT = "She took ibuprofen and penicillin after lunch with Peter."


def found(model, text=TEXT):
    return [(e["entity_group"], e["word"]) for e in model.predict([text])[0]]


@pytest.fixture(scope="module")
def ner():
    return FewShotNER.from_pretrained()


def test_one_sentence_is_enough_where_the_frozen_encoder_fails(ner):
    wanted = [("DRUG", "ibuprofen"), ("DRUG", "penicillin")]
    assert found(ner.adapt([ROW])) == wanted
    frozen = FewShotNER.from_pretrained(HUB_NAME)
    assert found(frozen.adapt([ROW])) != wanted


def test_names_alone_find_entities_and_leave_the_rest(ner):
    ner.adapt([], labels=["drug", "person"])
    assert ("person", "Peter") in found(ner)
    assert ("drug", "ibuprofen") in found(ner)
    assert found(ner, "The weather in the morning was nice, and so on.") == []


def test_any_learner_takes_its_features(ner):
    other = FewShotNER.from_pretrained(learner="prototypical", layers=(6,))
    assert other.pipeline.learner.name == "prototypical"
    assert other.pipeline.learner.encoder.head is not None
    assert other.adapt([ROW]).predict([TEXT])
    with pytest.raises(FewShotError, match=r"has layers 0 \(embeddings\) to 6"):
        FewShotNER.from_pretrained(layers=(9,))
    with pytest.raises(FewShotError, match="whose adapter cannot be chosen"):
        FewShotNER.from_pretrained(top_layers=2)


def test_it_is_saved_by_name_and_loads_equal(ner, tmp_path):
    ner.adapt([ROW])
    folder = ner.save_pretrained(tmp_path / "model")
    assert not (folder / "encoder").exists()
    assert FewShotNER.from_pretrained(folder).predict([TEXT]) == ner.predict([TEXT])


def test_a_frozen_prediction():
    """Scores of the file that ships, to four digits; another file, or another way to read it, gives others."""
    model = FewShotNER.from_pretrained().adapt([ROW])
    [entities] = model.predict(["Give 20 mg aspirin."])
    assert [(e["word"], round(e["score"], 3)) for e in entities] == FROZEN


def test_its_card_says_where_it_comes_from():
    card = (shipped_folder("ner") / "README.md").read_text(encoding="utf-8")
    for told in ("license: cc-by-sa-4.0", "crossner", "recipes/train_label_names.py", "entity_f1"):
        assert told in card


FROZEN = [("mg", 0.467), ("aspirin", 0.958)]
