"""The translation model that ships with the package: it loads without a network, adapts, and saves its name only."""

from pathlib import Path

import pytest

from fewshot_nlp import FewShotTranslator
from fewshot_nlp.backbone.bundled import TRANSLATION, translation_folder
from fewshot_nlp.sources import load_rows

MEDICAL = load_rows("medical_translation")


@pytest.fixture(scope="module")
def mt() -> FewShotTranslator:
    return FewShotTranslator.from_pretrained(learner_config={"epochs": 2}, task_config={"num_beams": 1})


def test_it_says_its_direction_and_translates_before_any_example(mt: FewShotTranslator) -> None:
    assert (mt.pipeline.task.source, mt.pipeline.task.target) == ("de", "en")
    assert mt.pipeline.learner.name == "fine_tune"
    assert mt.pipeline.learner.config.scope == "all"
    assert not mt.is_adapted
    good = mt.predict(["Guten Morgen!", "Ich habe keine Zeit."])
    assert "morning" in good[0].lower()
    assert "time" in good[1].lower()


def test_it_adapts_to_rows_of_a_domain_and_saves_no_weights(mt: FewShotTranslator, tmp_path: Path) -> None:
    support, held_out = MEDICAL[:16], MEDICAL[50:54]
    mt.adapt(support)
    texts = [row["translation"]["de"] for row in held_out]
    predicted = mt.predict(texts)
    assert all(predicted)
    folder = mt.save_pretrained(tmp_path / "model")
    assert not (folder / "encoder").exists()
    assert TRANSLATION in (folder / "fewshot_nlp.json").read_text(encoding="utf-8")
    assert FewShotTranslator.from_pretrained(folder).predict(texts) == predicted


def test_its_files_are_those_that_load_without_running_code() -> None:
    names = {path.name for path in translation_folder().iterdir()}
    assert {"config.json", "model.safetensors", "source.spm", "target.spm", "vocab.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_a_model_that_is_named_keeps_its_weights_and_gets_an_adapter() -> None:
    named = FewShotTranslator.from_pretrained(translation_folder())
    assert named.pipeline.learner.config.scope == "adapter"
    assert named.pipeline.learner.config.folds > 1
