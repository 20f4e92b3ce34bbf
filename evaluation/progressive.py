"""Forward and backward transfer of progressive networks over a sequence of domains: general, medical, legal, finance.

    FEWSHOT_NLP_DATA=... python evaluation/progressive.py run ner --seeds 5
    python evaluation/progressive.py table evaluation/results/progressive.jsonl

Each place in the sequence is learned by a new column on top of the earlier ones ("lateral"), by one of the same learner
from scratch ("alone"), and by `linear_probe`; support sets are drawn from train, scores are of the test split. Forward
transfer is "lateral" minus "alone", paired by seed. Backward transfer: with the whole chain, each earlier column scores
its own data again, and the record "backward" has the largest difference of any score, which must be 0. A record is
appended as soon as it is there; a run that is started again learns the columns again where a later one needs them, but
scores nothing twice. Nothing is chosen on the test splits.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import FACADES, support_set
from records import append_record, earlier_records

from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.learners import Adapted
from fewshot_nlp.learners.progressive import Progressive, ProgressiveConfig
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.sources import load_rows

SEQUENCES = {
    "ner": ["wikigold", "bc5cdr", "inlegalner", "sec_filings_fin"],
    "classification": ["trec6", "hallmarks_of_cancer", "unfair_tos", "fomc_stance"],
}
METHODS: dict[str, dict[str, Any]] = {
    "lateral": {"learner": "progressive"},
    "alone": {"learner": "progressive"},
    "linear_probe": {"learner": "linear_probe"},
}
RESULTS = Path(__file__).with_name("results") / "progressive.jsonl"
KEYS = ("task", "data", "place", "method", "k_shot", "seed", "split", "limit", "steps")


def append(path: Path, record: dict[str, Any]) -> None:
    append_record(path, record)
    print(record["data"], record["method"], record["seed"], f"{record['score']:.4f}", flush=True)


def test_queries(model: FewShotModel, name: str, support: Any, options: argparse.Namespace) -> list[Any]:
    """Test examples that are not in the support set: the first of a fixed random order."""
    rows = load_rows(name, options.split)
    order = np.random.default_rng(0).permutation(len(rows))[: options.limit]
    known = {str(dict(e.inputs)) for e in support}
    examples = model.pipeline.task.examples([rows[i] for i in order])
    return [e for e in examples if str(dict(e.inputs)) not in known]


def scored(model: FewShotModel, adapted: Any, test: list[Any]) -> dict[str, Any]:
    task = model.pipeline.task
    predicted = adapted.predict([e.query for e in test])
    gold = [task.restrict(e.target, frozenset(adapted.labels)) for e in test]
    scores = task.metrics(gold, [p["target"] for p in predicted], adapted.labels)
    metric = task.primary_metric
    return {"metric": metric, "score": scores[metric], "n_test": len(test)}


def sequence(options: argparse.Namespace, method: str, seed: int, done: set[tuple[Any, ...]]) -> None:
    """Learns and scores all places of the sequence that are not done."""
    names = options.sets or SEQUENCES[options.task]
    base = {"task": options.task, "method": method, "k_shot": options.k_shot, "seed": seed}
    base |= {"split": options.split, "limit": options.limit, "steps": options.steps}
    places = [{**base, "data": name, "place": place} for place, name in enumerate(names)]
    again = [{**record, "method": "backward"} for record in places[:-1]] if method == "lateral" else []
    todo = [record for record in places + again if tuple(record[k] for k in KEYS) not in done]
    if not todo:
        return
    config = {"steps": options.steps, "seed": seed} if "probe" not in method else {}
    model = FACADES[options.task].from_pretrained(**METHODS[method], learner_config=config)
    task, learner = model.pipeline.task, model.pipeline.learner
    columns = []
    for record in places:
        if record not in todo and method != "lateral":
            continue
        train = task.dataset(load_rows(record["data"], "train"), record["data"])
        support = support_set(train, options.task, options.k_shot, seed)
        start = time.perf_counter()
        adapted = model.pipeline.adapt(support, task.labels(support))
        seconds = round(time.perf_counter() - start, 3)
        test = test_queries(model, record["data"], support, options)
        columns.append((record, adapted, test))
        if record in todo:
            cost = {"seconds": seconds, "bytes": adapted.adapted.bytes, "n_support": len(support)}
            append(
                options.out,
                record | scored(model, adapted, test) | cost | {"threads": torch.get_num_threads()},
            )
        if method == "lateral":
            learner.grow(adapted.adapted.state)
    for record in again:
        if record in todo:
            append(options.out, record | backward(model, columns, record["place"]))


def backward(model: FewShotModel, columns: list[Any], place: int) -> dict[str, Any]:
    """The largest change of any score of an earlier column's test slots, by the whole chain."""
    _, adapted, test = columns[place]
    queries = [e.query for e in test[:200]]
    batch = model.pipeline.queries(queries, adapted.labels)
    config = ProgressiveConfig(**{**model.pipeline.learner.config.to_dict(), "task_id": place})
    chooser = Progressive(model.pipeline.learner.encoder, config)
    now = Adapted(chooser, columns[-1][1].adapted.state).scores(batch)
    change = float((now - adapted.adapted.scores(batch)).abs().max())
    return {"metric": "largest change of a score", "score": change, "n_test": len(queries)}


def table(path: Path) -> str:
    records = earlier_records(path)
    lines = []
    for group in sorted({(r["task"], r["k_shot"], r["split"], str(r["limit"]), r["steps"]) for r in records}):
        chosen = [
            r for r in records if (r["task"], r["k_shot"], r["split"], str(r["limit"]), r["steps"]) == group
        ]
        names = list(dict.fromkeys(r["data"] for r in sorted(chosen, key=lambda r: r["place"])))
        task, k_shot, split, limit, steps = group
        metric = next(r["metric"] for r in chosen if r["method"] != "backward")
        rows = "all rows" if limit == "None" else f"{limit} rows"
        lines += [f"### {task}, {k_shot}-shot, {split} split ({rows}), {steps} steps, {metric}", ""]
        lines += ["| method | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for method in dict.fromkeys(r["method"] for r in chosen):
            cells = [
                _cell([r["score"] for r in chosen if (r["method"], r["data"]) == (method, n)]) for n in names
            ]
            name = "backward transfer, largest change" if method == "backward" else method
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("| forward transfer | " + " | ".join(_cell(_gains(chosen, n)) for n in names) + " |")
        lines.append("")
    return "\n".join(lines)


def _gains(records: list[dict[str, Any]], name: str) -> list[float]:
    """ "lateral" minus "alone" of each seed that has both."""
    by = {(r["method"], r["seed"]): r["score"] for r in records if r["data"] == name}
    return [v - by["alone", seed] for (m, seed), v in by.items() if m == "lateral" and ("alone", seed) in by]


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = mean_and_interval(values)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if half is not None else "") + f" ({len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("task", help="ner or classification; with table: a file of records")
    parser.add_argument("--sets", nargs="*", help="another sequence of data sets")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--k-shot", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="of a column")
    parser.add_argument("--limit", type=int, help="test rows of a fixed random order")
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "table":
        print(table(Path(options.task)))
        return
    if options.task not in SEQUENCES:
        parser.error(f"there is no sequence for {options.task}; there are: {', '.join(SEQUENCES)}")
    for seed in range(options.seeds):
        for method in options.methods:
            done = {tuple(r[k] for k in KEYS) for r in earlier_records(options.out)}
            sequence(options, method, seed, done)


if __name__ == "__main__":
    main()
