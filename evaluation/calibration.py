"""How far confidences can be trusted: calibration and risk-coverage of learners on the domain classification sets.

    FEWSHOT_NLP_DATA=... python evaluation/calibration.py run --seeds 5
    python evaluation/calibration.py table

Support sets and encoder are those of `quality.py`: drawn from train, the last layer (for stacked_probe its own two).
A record a data set, method and seed is appended as soon as it is there; a run that is started again leaves out what the
file holds. Nothing is chosen on the test splits. ``--model name=folder`` adds a meta-trained model.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from quality import LAST, OTHER_CLASSIFICATION_SETS, support_set
from records import append_record, earlier_records, read_records

from fewshot_nlp import FewShotClassifier
from fewshot_nlp.backbone.cache import FeatureCache
from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.metrics.calibration import classification_calibration, risk_coverage_curve
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks.label_words import readable

RESULTS = Path(__file__).with_name("results") / "calibration.jsonl"
METHODS: dict[str, dict[str, Any]] = {
    "bayesian": {"learner": "bayesian", **LAST},
    "amortized": {"learner": "amortized", **LAST},
    "linear_probe": {"learner": "linear_probe", **LAST},
    "stacked_probe": {"learner": "stacked_probe"},
    "prototypical": {"learner": "prototypical", **LAST},
}
METRICS = ("accuracy", "ece_15_bins", "brier", "aurc", "risk_at_25", "risk_at_50", "risk_at_75")


def described(
    model: FewShotClassifier, rows: list[dict[str, Any]], k_shot: int, seed: int, train: Any
) -> dict[str, Any]:
    """One adapted model's scores on the test rows whose label it knows and whose text is not in the support set."""
    task = model.pipeline.task
    support = support_set(train, "classification", k_shot, seed)
    labels = task.labels(support)
    start = time.perf_counter()
    adapted = model.pipeline.adapt(support, labels, {label: readable(label) for label in labels})
    seconds = time.perf_counter() - start
    known = {str(dict(e.inputs)) for e in support}
    test = [e for e in task.examples(rows) if str(dict(e.inputs)) not in known and e.target in labels]
    probabilities = np.stack([p["probabilities"] for p in adapted.predict([e.query for e in test])])
    gold = np.array([adapted.labels.index(e.target) for e in test])
    scores = classification_calibration(probabilities, gold)
    right = probabilities.argmax(axis=1) == gold
    scores["accuracy"] = float(right.mean())
    _, risk = risk_coverage_curve(probabilities.max(axis=1), right)
    scores |= {f"risk_at_{share}": float(risk[len(risk) * share // 100 - 1]) for share in (25, 50, 75)}
    return {"n_support": len(support), "n_test": len(test), "seconds": round(seconds, 3), **scores}


def run(options: argparse.Namespace) -> None:
    methods = {name: METHODS[name] for name in options.methods or METHODS}
    methods |= {name: {"folder": folder} for name, folder in (pair.split("=", 1) for pair in options.model)}
    records = earlier_records(options.out)
    done = {(r["data"], r["method"], r["k_shot"], r["seed"], r["limit"]) for r in records}
    models: dict[str, FewShotClassifier] = {}
    caches: dict[str, FeatureCache] = {}
    for name in options.sets or OTHER_CLASSIFICATION_SETS:
        keys = [(name, m, options.k_shot, s, options.limit) for m in methods for s in range(options.seeds)]
        if all(key in done for key in keys):
            continue
        rows, train_rows = load_rows(name, "test")[: options.limit], load_rows(name, "train")
        for method, settings in methods.items():
            if method not in models:
                settings = dict(settings)
                folder = [settings.pop("folder")] if "folder" in settings else []
                models[method] = FewShotClassifier.from_pretrained(*folder, **settings)
            model = models[method]
            train = model.pipeline.task.dataset(train_rows, name)
            encoder = model.pipeline.learner.encoder
            if not encoder.adapter:  # methods on the same frozen layers share their features
                encoder.cache = caches.setdefault(encoder.fingerprint, FeatureCache(2**30))
            with encoder.cached(2**30):
                for seed in range(options.seeds):
                    key = (name, method, options.k_shot, seed, options.limit)
                    if key in done:
                        continue
                    record = dict(zip(("data", "method", "k_shot", "seed", "limit"), key, strict=True))
                    record |= described(model, rows, options.k_shot, seed, train)
                    append_record(options.out, record)
                    print(name, method, seed, *(f"{m} {record[m]:.3f}" for m in METRICS), flush=True)


def table(path: Path) -> str:
    """A row a method and data set, and one over the data sets: the mean of their means, without an interval."""
    records = read_records(path)
    lines = []
    for k_shot, limit in sorted({(r["k_shot"], r["limit"]) for r in records}, key=str):
        chosen = [r for r in records if (r["k_shot"], r["limit"]) == (k_shot, limit)]
        part = "whole test split" if limit is None else f"first {limit} rows of the test split"
        lines += [f"### {k_shot}-shot, {part}; mean ± half of the 95 % interval (support sets)", ""]
        lines += ["| data | method | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 2) + "|"]
        methods = list(dict.fromkeys(r["method"] for r in chosen))
        means: dict[str, list[list[float]]] = {method: [] for method in methods}
        for name in dict.fromkeys(r["data"] for r in chosen):
            for method in methods:
                rows = [r for r in chosen if (r["data"], r["method"]) == (name, method)]
                if not rows:
                    continue
                found = [mean_and_interval([r[metric] for r in rows]) for metric in METRICS]
                means[method].append([mean for mean, _ in found])
                cells = [f"{m:.3f}" + (f" ± {h:.3f}" if h is not None else "") for m, h in found]
                lines.append(f"| {name} | {method} ({len(rows)}) | " + " | ".join(cells) + " |")
        for method in methods:
            cells = [f"{value:.3f}" for value in np.mean(means[method], axis=0)]
            lines.append(f"| all {len(means[method])} | {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS))
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--k-shot", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="first rows of the split only")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "table":
        print(table(options.out))
    else:
        run(options)


if __name__ == "__main__":
    main()
