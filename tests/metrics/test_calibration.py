"""Calibration metrics on cases worked out by hand."""

import numpy as np
import pytest

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.metrics.calibration import (
    decision_calibration,
    expected_calibration_error,
    risk_coverage_curve,
)


def test_expected_calibration_error_by_hand():
    confidence = np.array([0.1, 0.5, 0.6, 0.9, 1.0])
    right = np.array([False, True, False, True, True])
    # two bins: (0, 0.5] holds 0.1, 0.5: right 1, confident 0.6; the other 0.6, 0.9, 1.0: right 2, confident 2.5
    assert expected_calibration_error(confidence, right, 2) == pytest.approx((0.4 + 0.5) / 5)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0
    assert expected_calibration_error(np.array([0.8] * 5), np.array([True] * 4 + [False])) == pytest.approx(0)
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([False, False])) == 1.0


def test_expected_calibration_error_is_the_definition_of_torchmetrics():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(500), rng.random(500) < 0.5
    total = 0.0
    for b in range(15):  # sum over bins of (share of the decisions) x |accuracy - mean confidence|
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, right) == pytest.approx(total, rel=1e-12)


def test_risk_coverage_by_hand():
    confidence = np.array([0.5, 0.9, 0.8, 0.7])
    right = np.array([False, True, False, True])
    risk = risk_coverage_curve(confidence, right)
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert decision_calibration(confidence, right)["aurc"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_ties_do_not_depend_on_the_order():
    confidence = np.array([0.9, 0.6, 0.6, 0.6, 0.6])
    for right in ([1, 1, 0, 0, 0], [1, 0, 0, 0, 1]):
        risk = risk_coverage_curve(confidence, np.array(right, bool))
        np.testing.assert_allclose(risk, [0, 0.75 / 2, 1.5 / 3, 2.25 / 4, 3 / 5])


def test_squares_of_decisions_by_hand():
    scores = decision_calibration(np.array([0.7, 0.4]), np.array([True, False]))
    assert scores["brier_of_decisions"] == pytest.approx((0.3**2 + 0.4**2) / 2)
    assert scores["ece_15_bins"] == pytest.approx((0.3 + 0.4) / 2)
    assert scores["aurc"] == pytest.approx((0 + 1 / 2) / 2)


def test_what_cannot_be_measured_is_refused_in_one_line():
    with pytest.raises(FewShotError, match="0 confidences for 0 decisions"):
        decision_calibration(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(FewShotError, match="2 confidences for 1 decisions"):
        decision_calibration(np.ones(2), np.ones(1, bool))
    with pytest.raises(FewShotError, match="must be probabilities"):
        decision_calibration(np.array([1.2]), np.ones(1, bool))
