"""Question answering before and after a few examples: support sets drawn from train, scores on the test split.

    FEWSHOT_NLP_DATA=... python evaluation/question_answering.py run --k-shot 0 16 128 --seeds 5
    python evaluation/question_answering.py table
    python evaluation/question_answering.py card    # writes them into the card of the model that ships

A record a data set, method, K and seed is appended as soon as it is there; a run that is started again leaves out
what the file holds. No document is in a support set and among the scored questions. Nothing is chosen on the test
splits. ``--limit`` scores the first rows of a fixed random order.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import append_record, block_sums, earlier_records, interval, read_records

from fewshot_nlp import FewShotQA
from fewshot_nlp.backbone.bundled import shipped_folder
from fewshot_nlp.persistence.model_card import model_card
from fewshot_nlp.persistence.storage import save
from fewshot_nlp.sampling import KShot
from fewshot_nlp.sources import load_card, load_rows

SETS = ["squad_v1", "covid_qa", "policy_qa", "tatqa_spans"]
RESULTS = Path(__file__).with_name("results") / "question_answering.jsonl"
COMMAND = """OMP_NUM_THREADS=1 accelerate launch --cpu --num_processes 1 recipes/train_question_answering.py \\
    --output_dir runs/first --mixed_precision bf16
... --config recipes/ship/question_answering.yaml --start runs/first/model --output_dir runs/second --stop_after 1701
... --start runs/second/model --output_dir runs/third --steps 160 --lr 4e-4 --head_lr 1.3e-3 --first_words 110 \\
    --last_words 120 --seed 2"""
STEPS = {
    "scope": "adapter",
    "C": None,
    "steps": 24,
    "epochs": 6,
    "lr": 1e-4,
    "head_lr": 1e-3,
    "batch_size": 16,
    "folds": 2,
    "bfloat16": None,
}
"""The default of before the head was solved for."""
METHODS: dict[str, dict[str, Any]] = {
    "default": {},
    "fine_tune": {"learner_config": STEPS},
    "linear_probe": {"learner": "linear_probe"},
    "prototypical": {"learner": "prototypical"},
    "nearest_neighbour": {"learner": "nearest_neighbour"},
}


def test_rows(name: str, split: str, limit: int | None) -> list[dict[str, Any]]:
    rows = load_rows(name, split)
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:limit]]


def measured(model: FewShotQA, name: str, split: str, k: int, seed: int, limit: int | None) -> dict[str, Any]:
    task = model.pipeline.task
    support = ()
    if k:
        train = task.dataset(load_rows(name, "train"), name, group_column=load_card(name).group_column)
        support = KShot(train, k, 1, seed=seed).episode(0).support
    begin = time.perf_counter()
    adapted = model.pipeline.adapt(support, ())
    seconds = time.perf_counter() - begin
    documents = {e.inputs["context"] for e in support}
    test = [e for e in task.examples(test_rows(name, split, limit)) if e.inputs["context"] not in documents]
    begin = time.perf_counter()
    predicted = adapted.predict([e.query for e in test])
    pairs = [(e.target, p["target"]) for e, p in zip(test, predicted, strict=True)]
    return {
        "data": name,
        "n_support": len(support),
        "n_test": len(test),
        "scores": task.metrics(*map(list, zip(*pairs, strict=True)), ()),
        "blocks": block_sums([(task.metrics([g], [p], ())["squad_f1"], 1.0) for g, p in pairs]),
        "seconds": round(seconds, 3),
        "predict_seconds": round(time.perf_counter() - begin, 3),
        "bytes": adapted.adapted.bytes,
    }


def run(options: argparse.Namespace) -> None:
    out: Path = options.out
    records = earlier_records(out)
    keys = ("data", "method", "k_shot", "seed", "split", "limit", "bfloat16")
    done = {tuple(r[k] for k in keys) for r in records}
    for method in options.methods:
        model = FewShotQA.from_pretrained(**METHODS[method])
        for name in options.sets:
            with model.pipeline.learner.encoder.cached():  # the rows are the same for all support sets
                for k, seed in ((n, s) for n in options.k_shot for s in range(options.seeds if n else 1)):
                    fixed = (name, method, k, seed, options.split, options.limit, options.bfloat16)
                    if fixed in done or (k == 0 and model.pipeline.unadapted() is None):
                        continue
                    with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                        record = measured(model, name, options.split, k, seed, options.limit)
                    record |= dict(zip(keys, fixed, strict=True)) | {"threads": torch.get_num_threads()}
                    append_record(out, record)
                    print(
                        *fixed,
                        f"{record['scores']['squad_f1']:.4f}",
                        f"{record['seconds']:.0f} s",
                        flush=True,
                    )


def table(path: Path, metric: str) -> str:
    """A row a method, number of examples and number of scored questions; in brackets the number of support sets.

    The interval holds the spread of the questions too for squad_f1, where records kept it.
    """
    values: dict[tuple[str, int, int], dict[str, list[dict[str, Any]]]] = {}
    for r in read_records(path):
        key = (r["method"], r["k_shot"], r["limit"] or 0)
        kept = {"blocks": r["blocks"]} if metric == "squad_f1" and "blocks" in r else {}
        values.setdefault(key, {}).setdefault(r["data"], []).append({"score": r["scores"][metric], **kept})
    sets = [name for name in SETS if any(name in found for found in values.values())]
    lines = [
        f"| {metric} | examples | questions | " + " | ".join(sets) + " |",
        "|---" * (len(sets) + 3) + "|",
    ]
    for (method, k, limit), found in sorted(values.items()):
        cells = []
        for name in sets:
            mean, half = interval(found[name]) if name in found else (None, None)
            spread = "" if half is None else f" ± {half:.3f} ({len(found[name])})"
            cells.append("" if mean is None else f"{mean:.3f}{spread}")
        name = method if k else method.replace("default", "no example")
        lines.append(f"| {name} | {k} | {limit or 'all'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


ABOUT = """## Measured

Test splits, {metric}, mean ± half of the 95 % interval over support sets (their number in brackets). `squad_v1` is
near: its train split and others of its protocol were trained on; the other sets are of other domains.

{table}

## Command

Trained on one core in three legs of 1,200, 1,701 and 160 steps, about 2.5 hours (LoRA of rank 64 in all linear
layers, a span head; stretches of 40 to 120 words); "..." is the first line's beginning. The second leg was broken off
before its rate had fallen, which the third did instead:

```bash
{command}
python {script} run && python {script} card
```
"""


def card(path: Path) -> None:
    records = read_records(path)
    wanted = ("default", 0, "squad_v1", None)
    [zero] = [r for r in records if (r["method"], r["k_shot"], r["data"], r["limit"]) == wanted]
    model = FewShotQA.from_pretrained()
    facts = {"dataset": "squad_v1, test split, before any example", "n_rows": zero["n_test"], "seed": "none"}
    model.extra["scores"] = {**facts, **zero["scores"]}
    about = ABOUT.format(
        metric="squad_f1",
        table=table(path, "squad_f1"),
        command=COMMAND,
        script="evaluation/question_answering.py",
    )
    text = model_card(model, "question_answering").replace('("question_answering")', "()")
    head, limits = text.split("## Limits")
    files = {"README.md": f"{head}{about}\n## Limits{limits}"}
    save(shipped_folder("question_answering"), model.pipeline, extra=model.extra, files=files, half=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "table", "card"])
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--methods", nargs="*", default=["default"], choices=list(METHODS))
    parser.add_argument("--k-shot", nargs="*", type=int, default=[0, 16, 128])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--split", default="test")
    parser.add_argument("--bfloat16", action="store_true", help="compute the encoder in bfloat16")
    parser.add_argument("--metric", default="squad_f1")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "table":
        print(table(options.out, options.metric))
    elif options.what == "card":
        card(options.out)
    else:
        run(options)


if __name__ == "__main__":
    main()
