"""The classifier as an estimator of scikit-learn, and models as values: pickled, copied, sent to other processes."""

import copy
import logging
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from processes import context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted
from toys import ROWS

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER

TEXTS, LABELS = zip(*((row["text"], row["label"]) for row in ROWS["classification"](6, 0)), strict=True)


@pytest.fixture
def estimator(tiny_encoder_folder):
    return FewShotClassifier(str(tiny_encoder_folder), learner="ridge")


@pytest.mark.parametrize(
    "check",
    [
        checks.check_estimator_cloneable,
        checks.check_estimator_repr,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_parameters_default_constructible,
    ],
)
def test_checks_of_scikit_learn(check, estimator):
    """Those that pass no numbers. All others fit an array of numbers, which is no text.

    `check_no_attributes_set_in_init` does not suit: a model has its state from the start.
    """
    check("FewShotClassifier", estimator)


class TestEstimator:
    def test_fit_and_what_it_learned(self, estimator):
        with pytest.raises(NotFittedError):
            check_is_fitted(estimator)
        fitted = estimator.fit(np.array(TEXTS), np.array(LABELS))
        check_is_fitted(fitted)
        assert fitted.classes_.tolist() == sorted(set(LABELS))
        assert fitted.score(TEXTS, LABELS) == accuracy_score(LABELS, fitted.predict(TEXTS))

    @pytest.mark.parametrize("kind", [int, np.int64, str, np.str_])
    def test_labels_come_back_in_their_order(self, estimator, kind):
        numbers = [kind({"law": 10, "medicine": 9, "money": 2}[label]) for label in LABELS]
        fitted = estimator.fit(TEXTS, numbers)
        assert fitted.classes_.tolist() == sorted(set(map(int if kind in (int, np.int64) else str, numbers)))
        assert set(fitted.predict(TEXTS)) <= set(numbers)

    def test_a_changed_setting_loads_anew(self, estimator):
        estimator.fit(TEXTS, LABELS)
        before = estimator.pipeline
        assert estimator.fit(TEXTS, LABELS).pipeline.learner is before.learner
        estimator.set_params(learner="prototypical").fit(TEXTS, LABELS)
        assert estimator.pipeline.learner.name == "prototypical"

    def test_clone_of_a_loaded_model(self, tiny_encoder_folder):
        loaded = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical", max_length=16)
        twin = clone(loaded)
        assert twin.get_params() == loaded.get_params()
        assert twin.fit(TEXTS, LABELS) is not loaded
        assert twin.predict(TEXTS) == loaded.fit(TEXTS, LABELS).predict(TEXTS)

    def test_pipeline_and_search(self, estimator):
        chain = Pipeline([("same", FunctionTransformer()), ("classify", estimator)])
        assert np.mean(cross_val_score(chain, TEXTS, LABELS, cv=3)) > 0.5
        grid = {"classify__learner": ["ridge", "prototypical"]}
        found = GridSearchCV(chain, grid, cv=2, error_score="raise").fit(TEXTS, LABELS)
        assert found.best_score_ == max(found.cv_results_["mean_test_score"])

    def test_calibration(self, estimator):
        found = CalibratedClassifierCV(estimator, cv=2).fit(TEXTS, LABELS)
        np.testing.assert_allclose(found.predict_proba(TEXTS).sum(axis=1), 1, rtol=1e-6)


class TestCopies:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
    def test_a_copy_predicts_the_same(self, estimator, copied):
        unfitted = copied(estimator)
        assert unfitted.get_params() == estimator.get_params()
        twin = copied(estimator.fit(TEXTS, LABELS))
        np.testing.assert_allclose(twin.predict_proba(TEXTS), estimator.predict_proba(TEXTS), atol=1e-6)
        assert (twin.get_params(), twin.labels) == (estimator.get_params(), estimator.labels)

    def test_other_models(self, tiny_encoder_folder):
        rows = ROWS["ner"](3, 0)
        ner = FewShotNER.from_pretrained(tiny_encoder_folder, learner="prototypical").adapt(rows)
        texts = [" ".join(row["tokens"]) for row in rows]
        assert pickle.loads(pickle.dumps(ner)).predict(texts) == ner.predict(texts)  # noqa: S301

    def test_another_process(self, estimator):
        estimator.fit(TEXTS, LABELS)
        parts = [list(TEXTS[:9]), list(TEXTS[9:])]
        with ProcessPoolExecutor(1, context()) as pool:
            found = list(pool.map(estimator.predict, parts))
        assert [*found[0], *found[1]] == estimator.predict(TEXTS)


class TestWords:
    def test_a_model_is_called(self, estimator):
        estimator.fit(TEXTS, LABELS)
        assert estimator(TEXTS) == estimator.predict(TEXTS)

    def test_a_stream_is_read_in_chunks(self, estimator):
        estimator.fit(TEXTS, LABELS)
        taken = []

        def stream():
            for text in TEXTS:
                taken.append(text)
                yield text

        found = estimator.predict_iter(stream(), chunk=4)
        assert [next(found), len(taken)] == [estimator.predict(TEXTS[:1])[0], 4]
        assert [*found] == estimator.predict(TEXTS)[1:]

    def test_the_log_and_the_name_tell_what_was_adapted_to(self, estimator, caplog):
        with caplog.at_level(logging.INFO, logger="fewshot_nlp"):
            estimator.fit(TEXTS, LABELS)
        assert "ridge adapted to 18 examples of 3 labels." in caplog.text
        assert repr(estimator) == (
            "<FewShotClassifier: classification by ridge, adapted to 18 examples of 3 labels>"
        )

    def test_a_device_by_its_short_name(self, tiny_encoder_folder):
        model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="ridge", device="cpu")
        assert model.pipeline.learner.encoder.model.device.type == "cpu"


def test_a_threshold_of_several_labels(tiny_encoder_folder):
    several = FewShotClassifier(
        str(tiny_encoder_folder), learner="prototypical", task_config={"multi_label": True}
    ).fit(TEXTS, [[label] for label in LABELS])
    texts = [*TEXTS[:3], " "]
    proba = several.predict_proba(texts)
    least = float(np.median(proba[:3]))
    expected = [list(several.classes_[row >= least]) for row in proba]
    assert several.predict(texts, threshold=least) == expected
    assert several.predict(texts, threshold=0.5) == several.predict(texts)
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(FewShotError, match=r"must lie between 0 and 1"):
            several.predict(texts, threshold=wrong)
    single = FewShotClassifier(str(tiny_encoder_folder), learner="prototypical").fit(TEXTS, LABELS)
    with pytest.raises(FewShotError, match="'multi_label': True"):
        single.predict(texts, threshold=0.5)
