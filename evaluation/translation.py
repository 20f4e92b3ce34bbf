"""Translation before and after 300 pairs of a domain: support from train, scores on test, and what is forgotten.

    FEWSHOT_NLP_DATA=... python evaluation/translation.py run --seeds 3
    python evaluation/translation.py table

Each record is one data set, method and seed: corpus chrF and BLEU (sacrebleu; signatures in the record) on the test
split, and on general text (`--general`) with the adapted model. A record is appended as soon as it is there; a run that
is started again leaves out what the file holds. The unadapted model is the method "none". ``--limit`` scores the
first rows of a fixed random order. Nothing is chosen on the test splits.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import append_record, earlier_records, read_records

from fewshot_nlp import FewShotTranslator
from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.metrics.translation import paired_bootstrap, signatures
from fewshot_nlp.sampling import KShot
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks.translation import Translation

DOMAINS = ["openehr_de_en", "mozilla_legal_de_en", "d365_finance_de_en"]
GENERAL = "flores101_de_en"
OTHERS = ["tatoeba_de_en", "multi30k_de_en", "cc_legal_de_en", "d365_business_de_en", "wmt_news_de_en"]
RESULTS = Path(__file__).with_name("results") / "translation.jsonl"
MEMORY = Translation.defaults["nearest_neighbour"].learner
METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "default": {},
    "adaptive": {"learner": "nearest_neighbour", "learner_config": {**MEMORY, "mixing": "adaptive"}},
    "fixed": {"learner": "nearest_neighbour", "learner_config": {**MEMORY, "mixing": "fixed"}},
    "prototypical": {"learner": "prototypical", "learner_config": {"metric": "euclidean"}},
    "fine_tune": {"learner": "fine_tune", "learner_config": {"lr": 5e-3, "steps": 50, "bfloat16": None}},
    "fine_tune_all": {
        "learner": "fine_tune",
        "learner_config": {
            **Translation.defaults["fine_tune"].bundled,
            "max_interpolation": 1.0,
            "bfloat16": None,
        },
    },
    "maml": {"learner": "maml"},
}
KEYS = ("data", "method", "k_shot", "seed", "split", "limit", "num_beams")


def chosen_rows(name: str, split: str, limit: int | None) -> list[dict[str, Any]]:
    rows = load_rows(name, split)
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:limit]]


def translated(model: Any, examples: Any) -> list[str]:
    return [p["target"] for p in model.predict([e.query for e in examples])]


def measured(options: argparse.Namespace, method: str, name: str, seed: int) -> dict[str, Any]:
    config = dict(METHODS[method])
    mt = FewShotTranslator.from_pretrained(**config, task_config={"num_beams": options.num_beams})
    task = mt.pipeline.task
    adapted, seconds, n_pairs = mt.pipeline.unadapted(), 0.0, 0
    if method != "none":
        data = task.dataset(load_rows(name, "train"), name)
        support = KShot(data, options.k_shot, 1, seed=seed).episode(0).support
        begin = time.perf_counter()
        adapted = mt.pipeline.adapt(support, ())
        seconds, n_pairs = time.perf_counter() - begin, len(support)
    test = task.examples(chosen_rows(name, options.split, options.limit))
    record: dict[str, Any] = {
        "n_support": n_pairs,
        "n_test": len(test),
        "seconds": round(seconds, 2),
        "bytes": adapted.adapted.bytes,
        "scores": task.metrics([e.target for e in test], translated(adapted, test), ()),
        "signatures": signatures(),
    }
    if method != "none" and options.general:
        general = task.examples(chosen_rows(GENERAL, "test", options.general))
        record["forgotten"] = paired_bootstrap(
            [e.target for e in general], before(options, general), translated(adapted, general)
        ) | {"n_test": len(general)}
    return record


_before: dict[tuple[int, int], list[str]] = {}


def before(options: argparse.Namespace, general: Any) -> list[str]:
    """General text by the unadapted model, once for all."""
    key = (options.general, options.num_beams)
    if key not in _before:
        mt = FewShotTranslator.from_pretrained(task_config={"num_beams": options.num_beams})
        _before[key] = translated(mt.pipeline.unadapted(), general)
    return _before[key]


def run(options: argparse.Namespace) -> None:
    out: Path = options.out
    records = earlier_records(out)
    done = {tuple(r[k] for k in KEYS) for r in records}
    for method in options.methods:
        for seed in range(options.seeds if method != "none" else 1):
            for name in options.sets:
                k = options.k_shot if method != "none" else 0
                fixed = (name, method, k, seed, options.split, options.limit, options.num_beams)
                if fixed in done:
                    continue
                record = dict(zip(KEYS, fixed, strict=True)) | measured(options, method, name, seed)
                append_record(out, record)
                lost = record.get("forgotten", {}).get("difference", 0.0)
                print(
                    *fixed,
                    f"{record['scores']['chrf']:.2f}",
                    f"{lost:+.2f}",
                    f"{record['seconds']} s",
                    flush=True,
                )


def table(path: Path, metric: str) -> str:
    """Mean over seeds with the half-width of its 95 % interval; gains over the unadapted model of the same rows."""
    records = read_records(path)
    base = {r["data"]: r["scores"][metric] for r in records if r["method"] == "none"}
    sets = [n for n in DOMAINS if n in base]
    lines = ["| " + " | ".join([metric, *sets, "change on " + GENERAL, "adapt, s", "bytes"]) + " |"]
    lines.append("|---" * (len(sets) + 4) + "|")
    for method in dict.fromkeys(r["method"] for r in records):
        mine = [r for r in records if r["method"] == method]
        if method == "none":
            lines.append("| unadapted | " + " | ".join(f"{base[n]:.1f}" for n in sets) + " | 0 | 0 | 0 |")
            continue
        cells = []
        for name in sets:
            gains = [r["scores"][metric] - base[name] for r in mine if r["data"] == name]
            cells.append(with_interval(gains) if gains else "")
        lost = [r["forgotten"]["difference"] for r in mine if "forgotten" in r]
        seconds, size = (sorted(r[key] for r in mine)[len(mine) // 2] for key in ("seconds", "bytes"))
        lines.append(
            f"| {method} | " + " | ".join(cells) + f" | {with_interval(lost)} | {seconds:.1f} | {size:,} |"
        )
    others = [n for n in base if n not in DOMAINS]
    if others:
        lines += ["", "| unadapted | sentences | chrF | BLEU |", "|---|---|---|---|"]
        for r in records:
            if r["method"] == "none":
                lines.append(
                    f"| {r['data']} | {r['n_test']} | {r['scores']['chrf']:.1f} | {r['scores']['bleu']:.1f} |"
                )
    return "\n".join(lines)


def with_interval(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = mean_and_interval(values)
    return f"{mean:+.1f}" + ("" if half is None else f" ± {half:.1f} ({len(values)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--sets", nargs="*", default=DOMAINS)
    parser.add_argument(
        "--methods", nargs="*", default=["none", "default", "fine_tune"], choices=list(METHODS)
    )
    parser.add_argument("--k-shot", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="test sentences")
    parser.add_argument("--general", type=int, default=200, help=f"sentences of {GENERAL}; 0 for none")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-beams", type=int, default=4)
    parser.add_argument("--metric", default="chrf", choices=["chrf", "bleu"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(table(options.out, options.metric)) if options.what == "table" else run(options)


if __name__ == "__main__":
    main()
