"""How often 95 % intervals of a mean over episodes hold the true mean, and how often equal learners test as unequal.

    FEWSHOT_NLP_DATA=... python evaluation/interval_coverage.py pools   # evaluation/results/interval_pools.json
    python evaluation/interval_coverage.py table > evaluation/results/interval_coverage.md

A pool holds the scores of episodes of one learner: accuracies near 1 (banking77, 5-way 5-shot, 25 texts, nearest class
mean), strict entity F1 (bc5cdr, 5-shot, 8 sentences, class means), chrF (openehr, 8 sentences, unadapted). A simulation
draws n of them with replacement and asks whether the interval holds the pool's mean. The candidates:

* t: Student's, mean ± t s / sqrt(n).
* t, logit: the same on the logit scale by the delta method, transformed back (`fewshot_nlp.evaluator.interval`).
* t, arcsine: the same on the scale of the arcsine of the root.
* t, skewness: Student's with the third-moment correction of Johnson (1978).
* percentile, BCa: bootstrap, 500 resamples.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fewshot_nlp.backbone.bundled import HUB_NAME
from fewshot_nlp.comparison.statistics import holm
from fewshot_nlp.evaluator import evaluate_episodes, interval
from fewshot_nlp.models import FewShotModel
from fewshot_nlp.sampling import NWayK2KShot, NWayKShot
from fewshot_nlp.sources import load_rows

POOLS = Path(__file__).with_name("results") / "interval_pools.json"
SIZES = (5, 12, 20, 100)
N_POOL = 600
Array = np.ndarray[Any, np.dtype[np.float64]]
Interval = Callable[[Array], tuple[Array, Array]]


def student(x: Array) -> tuple[Array, Array]:
    return interval(x)


def logit(x: Array) -> tuple[Array, Array]:
    return interval(x, shares=True)


def arcsine(x: Array) -> tuple[Array, Array]:
    n, mean = x.shape[1], np.clip(x.mean(axis=1), 1e-3, 1 - 1e-3)
    half = stats.t.ppf(0.975, n - 1) * x.std(axis=1, ddof=1) / np.sqrt(4 * n * mean * (1 - mean))
    low, high = (np.clip(np.arcsin(np.sqrt(mean)) + h, 0, np.pi / 2) for h in (-half, half))
    return np.sin(low) ** 2, np.sin(high) ** 2


def skewness(x: Array) -> tuple[Array, Array]:
    """Johnson 1978, equation 2.7: the mean is moved by the third moment over 6 s² n."""
    n, spread = x.shape[1], x.std(axis=1, ddof=1)
    third = ((x - x.mean(axis=1, keepdims=True)) ** 3).mean(axis=1)
    move = np.where(spread > 0, third / (6 * np.maximum(spread, 1e-12) ** 2 * n), 0.0)
    low, high = student(x)
    return low + move, high + move


def bootstrap(corrected: bool, resamples: int = 500) -> Interval:
    """Percentile interval of the bootstrap, or its BCa (Efron 1987), for all rows at once."""

    def interval(x: Array) -> tuple[Array, Array]:
        rng, n = np.random.default_rng(0), x.shape[1]
        means = np.stack([x[:, rng.integers(n, size=n)].mean(axis=1) for _ in range(resamples)], axis=1)
        mean = x.mean(axis=1, keepdims=True)
        levels = np.full((2, len(x)), [[0.025], [0.975]])
        if corrected:
            apart = mean - x
            below = (means < mean).mean(axis=1) + (means == mean).mean(axis=1) / 2
            bias = stats.norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
            spread = np.maximum((apart**2).sum(axis=1), 1e-12)
            pull = (apart**3).sum(axis=1) / (6 * spread**1.5)
            z = bias + stats.norm.ppf(levels)
            levels = stats.norm.cdf(bias + z / (1 - pull * z))
        low, high = (
            np.array([np.quantile(row, q) for row, q in zip(means, level, strict=True)]) for level in levels
        )
        return low, high

    return interval


CANDIDATES: dict[str, Interval] = {
    "t": student,
    "t, logit (what is reported)": logit,
    "t, arcsine": arcsine,
    "t, skewness": skewness,
    "percentile": bootstrap(False),
    "BCa": bootstrap(True),
}


def coverage(pool: Array, of: Interval, n: int, simulations: int, seed: int = 0) -> float:
    """Share of simulations whose interval holds the pool's mean, which may be at its end."""
    drawn = np.random.default_rng([seed, n]).choice(pool, (simulations, n))
    low, high = of(drawn)
    return float(np.mean((low <= pool.mean() + 1e-12) & (pool.mean() <= high + 1e-12)))


def error_rate(pool: Array, n: int, simulations: int, test: str, seed: int = 0) -> float:
    """Share of p-values below 0.05 of two learners with the same chance in every episode, 25 decisions each."""
    rng = np.random.default_rng([seed, n, 1])
    chance = rng.choice(pool, (simulations, n))
    one, two = (rng.binomial(25, chance) / 25 for _ in range(2))
    apart = one - two
    if test == "t":
        with np.errstate(invalid="ignore"):
            p = stats.ttest_1samp(apart, 0, axis=1).pvalue
    else:
        p = np.array([stats.wilcoxon(row, method="approx").pvalue if np.any(row) else 1.0 for row in apart])
    return float(np.mean(np.nan_to_num(p, nan=1.0) < 0.05))


def family_rate(pool: Array, n: int, simulations: int, learners: int = 6, seed: int = 0) -> float:
    """Share of simulations in which any of some equal learners differs from the first, by t and Holm's correction."""
    rng = np.random.default_rng([seed, n, 2])
    chance = rng.choice(pool, (simulations, n))
    scores = rng.binomial(25, chance[..., None], (simulations, n, learners + 1)) / 25
    with np.errstate(invalid="ignore"):
        p = np.nan_to_num(stats.ttest_1samp(scores[..., 1:] - scores[..., :1], 0, axis=1).pvalue, nan=1.0)
    return float(np.mean([min(holm(row)) < 0.05 for row in p]))


def episode_scores(model: Any, sampler: Any) -> list[float]:
    report = evaluate_episodes(model, sampler)
    return [round(e[report.metric], 4) for e in report.per_episode]


def pools() -> dict[str, list[float]]:
    """Scores of `N_POOL` episodes of each kind, in [0, 1]."""
    frozen = {
        "name": HUB_NAME,
        "learner": "prototypical",
        "learner_config": {"label_names": 0.0},
        "layers": (-1,),
    }
    found = {}
    texts = FewShotModel.from_pretrained(task="classification", **frozen)
    data = texts.pipeline.task.dataset(rows("banking77", 1200), "banking77")
    found["accuracy"] = episode_scores(texts, NWayKShot(data, 5, 5, 5, n_episodes=N_POOL))
    words = FewShotModel.from_pretrained(task="ner", **frozen)
    data = words.pipeline.task.dataset(rows("bc5cdr", 400), "bc5cdr")
    draw = NWayK2KShot(data, None, 5, 8, n_episodes=N_POOL, query="rows")
    found["entity F1"] = episode_scores(words, draw)
    pipeline = FewShotModel.from_pretrained(task="translation", task_config={"num_beams": 1}).pipeline
    task, model = pipeline.task, pipeline.unadapted()
    assert model is not None
    examples = task.examples(rows("openehr_de_en", 300))
    said = [p["target"] for p in model.predict([e.query for e in examples])]
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(len(said))[:8] for _ in range(N_POOL)]
    scores = [task.metrics([examples[i].target for i in d], [said[i] for i in d], ())["chrf"] for d in drawn]
    return found | {"chrF": [round(score / 100, 4) for score in scores]}


def rows(name: str, n: int) -> list[dict[str, Any]]:
    found = load_rows(name, "test")
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:n]]


def table(pools: dict[str, list[float]]) -> str:
    lines = [
        "| pool | interval | " + " | ".join(f"n = {n}" for n in SIZES) + " |",
        "|---" * (len(SIZES) + 2) + "|",
    ]
    for name, values in pools.items():
        pool = np.array(values)
        for kind, of in CANDIDATES.items():
            many = 1000 if kind in ("percentile", "BCa") else 20_000
            cells = [f"{coverage(pool, of, n, many):.3f}" for n in SIZES]
            lines.append(f"| {name} | {kind} | " + " | ".join(cells) + " |")
    lines += ["", "| pool | test of equal learners | " + " | ".join(f"n = {n}" for n in SIZES) + " |"]
    lines.append("|---" * (len(SIZES) + 2) + "|")
    for name, values in pools.items():
        pool = np.clip(np.array(values), 0, 1)
        for test, many in (("t", 20_000), ("Wilcoxon", 500)):
            cells = [f"{error_rate(pool, n, many, test):.3f}" for n in SIZES]
            lines.append(f"| {name} | {test} | " + " | ".join(cells) + " |")
        cells = [f"{family_rate(pool, n, 2000):.3f}" for n in SIZES]
        lines.append(f"| {name} | any of six, Holm | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["pools", "table"])
    options = parser.parse_args()
    if options.what == "table":
        print(table(json.loads(POOLS.read_text())))
    else:
        POOLS.write_text(json.dumps(pools()))


if __name__ == "__main__":
    main()
