"""Texts that fit no label get none, with the reason."""

import json

import numpy as np
import pytest
import torch
from toys import ROWS

from fewshot_nlp import FewShotError
from fewshot_nlp.cli import main
from fewshot_nlp.episode import Query
from fewshot_nlp.models import FewShotClassifier
from fewshot_nlp.models.rejection import Fits, fits, fits_of_support, kept_fits

RULES = ["neighbours", "prototypes", "probability", "energy"]
STRANGE = ["?!?! 9 9 9", "zzz qqq"]


@pytest.fixture(scope="module")
def model(tiny_encoder_folder):
    rows = ROWS["classification"](8, 0)
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical").adapt(rows)


@pytest.fixture(scope="module")
def like(model):
    return [row["text"] for row in ROWS["classification"](20, 1)]


class TestThreshold:
    def test_a_stated_coverage_holds_on_average_over_supports(self):
        """Exchangeable fits: a new one is kept with at least the stated probability, and with hardly more."""
        rng = np.random.default_rng(0)
        kept = []
        for _ in range(4000):
            usual = torch.from_numpy(np.sort(rng.gamma(2, size=39)))
            kept.append(rng.gamma(2) >= Fits("neighbours", usual, usual[:0]).threshold(0.9))
        assert np.mean(kept) == pytest.approx(0.9, abs=0.03)

    def test_a_coverage_that_so_few_examples_cannot_state(self):
        usual = torch.linspace(0, 1, 18)
        found = Fits("neighbours", usual, usual[:0])
        with pytest.raises(FewShotError, match=r"0.95 takes 19 examples, and there are 18"):
            found.threshold(0.95)
        assert found.threshold(0.9) == 0.0  # floor(0.1 * 19) = 1: the least

    def test_without_one_it_is_95_percent_or_two_deviations_below_the_mean(self):
        many = torch.arange(40.0)
        assert Fits("energy", many, many[:0]).threshold(None) == 1.0  # floor(0.05 * 41) = 2: the second
        usual = torch.tensor([1.0, 2.0, 3.0])
        assert Fits("energy", usual, usual[:0]).threshold(None) == pytest.approx(0.0)


class TestRules:
    @pytest.mark.parametrize("rule", RULES)
    def test_texts_like_the_examples_keep_their_label(self, model, like, rule):
        plain, found = model.predict(like), model.predict(like, reject=rule, coverage=0.9)
        assert all(b in (a, None) for a, b in zip(plain, found, strict=True))
        assert sum(label is None for label in found) < 0.35 * len(like)

    @pytest.mark.parametrize("rule", RULES)
    def test_a_text_below_the_threshold_has_no_label_and_a_reason(self, model, like, rule):
        predictions = model.predictions(like, reject=rule, coverage=0.5)
        found = kept_fits(model._adapted(), rule)
        assert found is not None
        values = fits(model._adapted(), [Query({"text": text}) for text in like], found)
        for value, p in zip(values, predictions, strict=True):
            assert (p["target"] is None) == ("below" in (p["reason"] or "")) == (value < found.threshold(0.5))

    def test_neighbours_by_brute_force(self, model):
        examples = model._examples
        found = fits_of_support(model.pipeline, model._adapted(), examples, "neighbours")
        encoder = model.pipeline.learner.encoder
        with torch.no_grad():
            raw = encoder.features(model.pipeline.queries([e.query for e in examples], model.labels)).numpy()
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        best = [max(unit[i] @ unit[j] for j in range(len(unit)) if j != i) for i in range(len(unit))]
        np.testing.assert_allclose(found.usual, sorted(best), atol=1e-5)


class TestFiles:
    def test_a_saved_model_rejects_as_before(self, model, like, tmp_path):
        before = model.predict([*like, *STRANGE], reject=True)
        loaded = FewShotClassifier.from_pretrained(model.save_pretrained(tmp_path / "m"))
        assert loaded.predict([*like, *STRANGE], reject=True) == before
        assert loaded.predict(like) == model.predict(like)

    def test_one_saved_without_tells_the_remedy(self, tiny_encoder_folder, tmp_path):
        rows = ROWS["classification"](3, 0)
        saved = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="ridge").adapt(rows)
        loaded = FewShotClassifier.from_pretrained(saved.save_pretrained(tmp_path / "m"))
        with pytest.raises(FewShotError, match="once before saving"):
            loaded.predict(["a bank"], reject=True)

    def test_the_command_line(self, tiny_encoder_folder, like, tmp_path, capsys):
        data, texts = tmp_path / "rows.jsonl", tmp_path / "texts.txt"
        data.write_text("\n".join(map(json.dumps, ROWS["classification"](5, 0))))
        texts.write_text("\n".join(like))
        given = ["adapt", "--task", "classification", "--data", data, "--out", tmp_path / "m"]
        given += ["--encoder", tiny_encoder_folder, "--learner", "ridge"]
        more = ["predict", "--model", tmp_path / "m", "--input", texts, "--coverage", 0.5]
        for command in (given, more):
            with pytest.raises(SystemExit) as ended:
                main(list(map(str, [*command, "--reject", "true"])))
            assert ended.value.code == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
        assert [row["predicted"] for row in rows] == loaded.predict(like, reject=True, coverage=0.5)
        assert {row["predicted"] is None for row in rows} == {True, False}
        assert all((row["score"] is None) == (row["reason"] is not None) for row in rows)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reject": "distance"}, "no rule 'distance'"),
            ({"coverage": 0.9}, "set reject=True"),
            ({"reject": True, "coverage": 1.5}, "between 0 and 1"),
            ({"reject": True, "coverage": 0.999}, "takes 999 examples"),
        ],
    )
    def test_one_line(self, model, options, message):
        with pytest.raises(FewShotError, match=message):
            model.predict(["a bank"], **options)

    def test_scores_without_an_energy(self, tiny_encoder_folder):
        rows = ROWS["classification"](4, 0)
        tuned = FewShotClassifier.from_pretrained(
            tiny_encoder_folder, learner="contrastive", learner_config={"steps": 1}
        )
        with pytest.raises(FewShotError, match="always 0"):
            tuned.adapt(rows).predict(["a bank"], reject="energy")

    def test_an_empty_text_has_its_own_reason(self, model):
        assert model.predictions([" "], reject=True)[0]["reason"] == "it is empty"

    def test_a_model_adapted_anew_forgets(self, model, tiny_encoder_folder):
        other = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="ridge")
        other.adapt(ROWS["classification"](3, 0)).predict(["a"], reject=True)
        assert kept_fits(other._adapted(), "prototypes") is not None
        other.adapt(ROWS["classification"](4, 0))
        assert kept_fits(other._adapted(), "prototypes") is None


def test_the_weather_is_no_missing_payment():
    """The encoder that ships; labels of a shop's mail."""
    words = {
        "missing payment": [
            "I have not received my money",
            "The payment has not arrived",
            "Where is my refund?",
        ],
        "lost card": ["I lost my card", "My card was stolen", "Somebody took my bank card"],
        "opening hours": ["When do you open?", "Are you open on Sunday?", "Until when are you open today?"],
    }
    rows = [{"text": text, "label": label} for label, texts in words.items() for text in texts]
    shop = FewShotClassifier.from_pretrained(learner="stacked_probe").adapt(rows)
    asked = ["The weather in Paris is nice", "My refund is still missing", "Is the shop open tomorrow?"]
    assert shop.predict(asked, reject=True) == [None, "missing payment", "opening hours"]
