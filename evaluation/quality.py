"""Quality of the defaults beside frozen baselines: support sets drawn from train, scores on the test split.

    FEWSHOT_NLP_DATA=... python evaluation/quality.py ner --seeds 5 --out evaluation/results/ner.jsonl
    python evaluation/quality.py table evaluation/results/ner.jsonl

A record a data set, method and seed is appended as soon as it is there; a run that is started again leaves out
what the file holds. Nothing is chosen on the test splits.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import append_record, block_sums, earlier_records, interval, read_records
from seqeval.metrics.sequence_labeling import get_entities

from fewshot_nlp import FewShotClassifier, FewShotNER
from fewshot_nlp.backbone.cache import FeatureCache
from fewshot_nlp.comparison.auto import best_learner
from fewshot_nlp.episode import Example, TaskDataset
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.sampling import NWayKShot
from fewshot_nlp.sampling.draft import SupportBuilder
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks.label_words import readable

NER_SETS = ["bc5cdr", "ncbi_disease", "sec_filings_fin", "kpi_edgar", "inlegalner"]
CLASSIFICATION_SETS = ["banking77"]
OTHER_CLASSIFICATION_SETS = [
    "covid_q",
    "hallmarks_of_cancer",
    "medical_abstracts",
    "medquad_answer_type",
    "privacyqa_opp",
    "unfair_tos",
    "cfpb_complaints",
    "fomc_stance",
    "stackoverflow20",
    "scicite",
]
"""For `--sets domains`: beyond intents."""
FROZEN = "sentence-transformers/all-MiniLM-L6-v2"
"""The bundled encoder as it is, without what ships."""
LAST, MIDDLE = {"name": FROZEN, "layers": (-1,)}, {"name": FROZEN, "layers": (0.5,)}
DOMAIN_SETS = [
    "cfpb_complaints",
    "unfair_tos",
    "privacyqa_opp",
    "legal_rhetorical_roles",
    "medical_abstracts",
    "medquad_answer_type",
]
"""For `--sets targets`: two sets a domain."""

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "ner": {
        "default": {},
        "frozen, default learner": {"name": FROZEN},
        "default, without the head": {"learner_config": {"head_weight": 0.0}},
        "prototypical": {"learner": "prototypical", **LAST},
        "prototypical, Euclidean": {
            "learner": "prototypical",
            "learner_config": {"metric": "euclidean"},
            **LAST,
        },
        "nearest_neighbour (NNShot)": {
            "learner": "nearest_neighbour",
            "learner_config": {"label_names": 0.0},
            **LAST,
        },
        "linear_probe, last layer": {
            "learner": "linear_probe",
            "learner_config": {"label_names": 0.0},
            **LAST,
        },
        "linear_probe, middle layer": {
            "learner": "linear_probe",
            "learner_config": {"label_names": 0.0},
            **MIDDLE,
        },
        "fine_tune, label-name heads": {
            "learner": "fine_tune",
            "learner_config": {"scope": "adapter", "steps": 100, "lr": 1e-3, "head_lr": 1e-2},
            **LAST,
        },
        "fine_tune from the default": {
            "learner": "fine_tune",
            "learner_config": {
                "scope": "all",
                "steps": 40,
                "lr": 1e-4,
                "batch_size": 10,
                "start": "context_probe",
                "start_config": {"C": 3.0},
            },
            "task_config": {"scheme": "bio"},
            "name": FROZEN,
            "layers": (0.33, 0.67, 1.0),  # of six: 2, 4 and 6
        },
    },
    "classification": {
        "default": {},
        "stacked_probe": {"learner": "stacked_probe", "layers": (0.5, -1)},
        "contrastive": {"learner": "contrastive", "layers": (0.5, -1)},
        "prototypical": {"learner": "prototypical", "learner_config": {"label_names": 0.0}, **LAST},
        "nearest_neighbour": {"learner": "nearest_neighbour", "learner_config": {"label_names": 0.0}, **LAST},
        "linear_probe": {"learner": "linear_probe", "learner_config": {"label_names": 0.0}, **LAST},
        "linear_probe, label names": {"learner": "linear_probe", **LAST},
        "ridge, as tried": {"learner": "ridge"},
        "stacked_probe, as tried": {"learner": "stacked_probe"},
        "nearest_neighbour, as tried": {"learner": "nearest_neighbour"},
        "auto": {},
    },
}
FACADES: dict[str, type[FewShotModel]] = {"ner": FewShotNER, "classification": FewShotClassifier}


def greedy_support(train: TaskDataset, k_shot: int, seed: int) -> tuple[Example, ...]:
    """Sentences in random order, each taken if a type in it is short of K and none passes 2K.

    `NWayK2KShot` enforces K of every type; some sets (kpi_edgar) cannot give that for all of their types, which
    then stay short here.
    """
    pairs = [tuple(counts.items()) for counts in train.label_counts]
    builder = SupportBuilder(pairs, k_shot, {label: 2 * k_shot for counts in pairs for label, _ in counts})
    builder.walk(np.random.default_rng([seed, k_shot]).permutation(len(train)).tolist())
    return tuple(train.examples[row] for row in builder.rows)


def support_set(train: TaskDataset, task: str, k_shot: int, seed: int) -> tuple[Example, ...]:
    if task == "ner":
        return greedy_support(train, k_shot, seed)
    return NWayKShot(train, None, k_shot, 1, seed=seed).episode(0).support


def chosen_rows(name: str, split: str, limit: int | None, sample: int | None) -> list[dict[str, Any]]:
    """The rows that are scored: all, so many at random (files are sorted), or the first ones."""
    rows = load_rows(name, split)
    if sample is not None:
        rows = [rows[i] for i in sorted(np.random.default_rng(0).permutation(len(rows))[:sample])]
    return rows[:limit]


def counts(gold: Any, predicted: Any) -> tuple[float, float]:
    """Numerator and denominator of a row: hits and 1, or twice the entities in common and all entities of both."""
    if isinstance(gold, str):
        return float(gold == predicted), 1.0
    right, found = set(get_entities(list(gold))), set(get_entities(list(predicted)))
    return 2.0 * len(right & found), float(len(right) + len(found))


def described(
    model: FewShotModel,
    name: str,
    test_rows: list[dict[str, Any]],
    support: tuple[Example, ...],
    chooses: bool,
) -> dict[str, Any]:
    """A record of one support set; ``chooses``: the learner is the one that `best_learner` finds on it."""
    task = model.pipeline.task
    labels = task.labels(support)
    start = time.perf_counter()
    if chooses:
        rows = [dict(e.inputs) | {str(task.label_column): e.target} for e in support]
        learner, _ = best_learner(rows, task=task.name)
        model = type(model).from_pretrained(learner=learner)
    adapted = model.pipeline.adapt(support, labels, {label: readable(label) for label in labels})
    seconds = time.perf_counter() - start
    known = {str(dict(e.inputs)) for e in support}
    test = [e for e in model.pipeline.task.examples(test_rows) if str(dict(e.inputs)) not in known]
    predicted = adapted.predict([e.query for e in test])
    wanted = frozenset(labels)
    gold = [model.pipeline.task.restrict(e.target, wanted) for e in test]
    scores = model.pipeline.task.metrics(gold, [p["target"] for p in predicted], labels)
    metric = model.pipeline.task.primary_metric
    return {
        "data": name,
        "blocks": block_sums([counts(g, p["target"]) for g, p in zip(gold, predicted, strict=True)]),
        "n_support": len(support),
        "n_test": len(test),
        "metric": metric,
        "score": scores[metric],
        "seconds": round(seconds, 3),
        "bytes": adapted.adapted.bytes,
        "learner": model.pipeline.learner.name,
    }


def run(
    task: str,
    sets: list[str],
    methods: list[str],
    k_shot: int,
    seeds: int,
    limit: int | None,
    sample: int | None,
    split: str,
    out: Path,
) -> None:
    records = earlier_records(out)
    done = {(r["data"], r["method"], r["k_shot"], r["seed"], r["split"]) for r in records}
    encoders: dict[str, Any] = {}
    caches: dict[str, FeatureCache] = {}
    for name in sets:
        rows = chosen_rows(name, split, limit, sample)
        for method in methods:
            todo = [
                s
                for s in range(seeds * (2 if name == "ncbi_disease" else 1))
                if (name, method, k_shot, s, split) not in done
            ]
            if not todo:
                continue
            if method not in encoders:
                encoders[method] = FACADES[task].from_pretrained(**METHODS[task][method])
            model = encoders[method]
            train = model.pipeline.task.dataset(load_rows(name, "train"), name)
            encoder = model.pipeline.learner.encoder
            if not encoder.adapter:  # methods on the same frozen layers share their features
                encoder.cache = caches.setdefault(encoder.fingerprint, FeatureCache(2**30))
            with encoder.cached(2**30):
                for seed in todo:
                    support = support_set(train, task, k_shot, seed)
                    record = described(model, name, rows, support, method == "auto")
                    record |= {"method": method, "k_shot": k_shot, "seed": seed, "split": split}
                    record["threads"] = torch.get_num_threads()
                    append_record(out, record)
                    print(
                        name, method, seed, f"{record['score']:.4f}", f"{record['seconds']:.2f} s", flush=True
                    )


def table(path: Path) -> str:
    records = read_records(path)
    shots = sorted({(r["k_shot"], r["split"]) for r in records})
    lines = []
    for k, split in shots:
        chosen = [r for r in records if (r["k_shot"], r["split"]) == (k, split)]
        sets = list(dict.fromkeys(r["data"] for r in chosen))
        lines += [f"### {k}-shot, {split} split, {chosen[0]['metric']}", ""]
        lines += [
            "| method | " + " | ".join(sets) + " | median seconds to adapt |",
            "|---" * (len(sets) + 2) + "|",
        ]
        for method in dict.fromkeys(r["method"] for r in chosen):
            cells = []
            for name in sets:
                mine = [r for r in chosen if r["method"] == method and r["data"] == name]
                cells.append(with_interval(*interval(mine), len(mine)) if mine else "")
            seconds = sorted(r["seconds"] for r in chosen if r["method"] == method)
            lines.append(f"| {method} | " + " | ".join(cells) + f" | {seconds[len(seconds) // 2]:.2f} |")
        lines.append("")
    return "\n".join(lines)


def with_interval(mean: float, half: float | None, n: int) -> str:
    return f"{mean:.3f}" + (f" ± {half:.3f}" if half is not None else "") + f" ({n})"


def compared(path: Path, method: str, base: str) -> str:
    """Differences of two methods on the same support sets, a line a set and number of examples."""
    found: dict[tuple[str, int, str], dict[int, dict[str, Any]]] = {}
    for r in read_records(path):
        found.setdefault((r["data"], r["k_shot"], r["method"]), {})[r["seed"]] = r
    lines = [f"| {method} minus {base} | examples | difference |", "|---|---|---|"]
    for (name, k, which), mine in found.items():
        other = found.get((name, k, base), {})
        both = sorted(mine.keys() & other.keys())
        if which == method and both:
            mean, half = interval([mine[s] for s in both], [other[s] for s in both])
            lines.append(
                f"| {name} | {k} | {'+' if mean >= 0 else ''}{with_interval(mean, half, len(both))} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["ner", "classification", "table"])
    parser.add_argument("path", nargs="?", type=Path, help="with table: a file of records")
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--methods", nargs="*", help="with table: two, to compare on the same support sets")
    parser.add_argument("--k-shot", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="ncbi_disease takes twice as many")
    parser.add_argument("--limit", type=int, help="first rows of the split only")
    parser.add_argument(
        "--sample", type=int, help="so many rows of the split at random (seed 0), not the first ones"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.task == "table":
        print(table(options.path))
        if options.methods:
            print(compared(options.path, *options.methods))
        return
    if options.sets == ["domains"]:
        options.sets = OTHER_CLASSIFICATION_SETS
    if options.sets == ["targets"]:
        options.sets = DOMAIN_SETS
    sets = options.sets or (NER_SETS if options.task == "ner" else CLASSIFICATION_SETS)
    methods = options.methods or list(METHODS[options.task])
    out = options.out or Path(f"evaluation/results/{options.task}.jsonl")
    run(
        options.task,
        sets,
        methods,
        options.k_shot,
        options.seeds,
        options.limit,
        options.sample,
        options.split,
        out,
    )


if __name__ == "__main__":
    main()
