import numpy as np
import pytest
from scipy import stats

from fewshot_nlp.comparison.statistics import estimate, holm


class TestEstimate:
    def test_without_blocks_it_is_students_interval(self):
        values = [0.3, 0.5, 0.55, 0.4]
        found = estimate(values, np.zeros((4, 0)))
        low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
        assert found.half == pytest.approx((high - low) / 2)
        assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)

    def test_blocks_of_single_rows_give_the_error_of_a_mean(self):
        """Two equal support sets leave the rows' spread alone, which for a mean is the textbook's."""
        rows = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
        without = (rows.sum() - rows) / 5
        found = estimate([rows.mean()] * 2, [without] * 2)
        assert found.half == pytest.approx(1.96 * rows.std(ddof=1) / np.sqrt(6))

    def test_one_repeat_has_no_interval(self):
        found = estimate([0.4], [[0.4, 0.5]])
        assert (found.half, found.p_value) == (None, None)
        assert str(found) == "0.400"

    @pytest.mark.parametrize("spread", [0.1, 1.0])
    def test_it_covers_the_mean_over_new_supports_and_new_rows(self, spread: float):
        """Accuracies that depend on support and row, both drawn anew; the truth is their mean over many."""
        rng = np.random.default_rng(0)

        def chance(supports, rows):
            return 1 / (1 + np.exp(-(0.7 + supports[:, None] + rows[None])))

        truth = chance(rng.normal(0, spread, 2000), rng.normal(0, 1.2, 2000)).mean()
        covered = []
        for _ in range(400):
            p = chance(rng.normal(0, spread, 5), rng.normal(0, 1.2, 120))
            blocks = (rng.random(p.shape) < p).reshape(5, 20, 6)
            hits = blocks.sum(axis=2)
            found = estimate(
                blocks.mean(axis=(1, 2)), (hits.sum(axis=1, keepdims=True) - hits) / (p.shape[1] - 6)
            )
            covered.append(abs(found.mean - truth) < found.half)
        assert 0.92 < np.mean(covered) < 0.995


def test_holm_multiplies_the_smallest_most():
    assert holm([0.04, 0.01, 0.5]) == pytest.approx([0.08, 0.03, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
