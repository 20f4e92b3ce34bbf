"""Corpus BLEU and chrF by sacrebleu, with its signatures, and a paired bootstrap of two systems."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.settings import check


def corpus_scores(references: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Scores of all translations together, from 0 to 100; `signatures` says their settings.

    Returns:
        ``chrf``: chrF2 (Popović 2015), the mean F-score, recall counting twice, of character 1- to 6-grams.
        ``bleu``: BLEU (Papineni et al. 2002), 13a tokenisation, exponential smoothing.
    """
    hypotheses, gold = list(predicted), [list(references)]
    if not hypotheses:
        return {"chrf": 0.0, "bleu": 0.0}
    return {name: float(metric.corpus_score(hypotheses, gold).score) for name, metric in _metrics().items()}


def signatures(n_references: int = 1) -> dict[str, str]:
    """sacrebleu's signature of each score: its settings and version, which belong beside every number."""
    found = {}
    for name, metric in _metrics().items():
        metric.corpus_score(["a"], [["a"]] * n_references)
        found[name] = str(metric.get_signature())
    return found


def check_metric(name: str) -> None:
    """Refuses a name that is none of the corpus scores.

    Raises:
        FewShotError: naming those that there are.
    """
    check("metric", name, Literal["chrf", "bleu"])


def paired_bootstrap(
    references: Sequence[str],
    baseline: Sequence[str],
    system: Sequence[str],
    *,
    metric: str = "chrf",
    resamples: int = 1000,
    seed: int = 12345,
) -> dict[str, float]:
    """Whether a system is better than a baseline: resampled test sets (Koehn 2004, Statistical Significance Tests).

    Args:
        references: one a sentence.
        baseline: translations of the one system.
        system: translations of the other.
        metric: "chrf" or "bleu".
        resamples: test sets drawn from the sentences with replacement.
        seed: for drawing them.

    Raises:
        FewShotError: another metric, or nothing to compare.

    Returns:
        ``baseline`` and ``system``: corpus scores; ``baseline_ci95`` and ``system_ci95``: half-widths of their 95 %
        intervals; ``difference``: of the second to the first; ``p``: of a difference so large by chance.
    """
    from sacrebleu.significance import PairedTest

    check_metric(metric)
    if not references:
        raise FewShotError("There are no translations to compare; give at least one.")

    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        _, found = PairedTest(
            [("baseline", list(baseline)), ("system", list(system))],
            {metric: _metrics()[metric]},
            [list(references)],
            test_type="bs",
            n_samples=resamples,
        )()
    finally:
        os.environ.pop("SACREBLEU_SEED")
        if before is not None:
            os.environ["SACREBLEU_SEED"] = before
    one, two = next(value for name, value in found.items() if name != "System")
    return {
        "baseline": float(one.score),
        "system": float(two.score),
        "baseline_ci95": float(one.ci),
        "system_ci95": float(two.ci),
        "difference": float(two.score - one.score),
        "p": 1.0
        if one.score == two.score
        else float(two.p_value),  # sacrebleu counts nothing above no difference
    }


def _metrics() -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    return {"chrf": CHRF(), "bleu": BLEU()}
