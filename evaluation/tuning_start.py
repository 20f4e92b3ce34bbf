"""Where the tuning of texts starts: the fresh adapter beside meta-trained starts, by steps, on validation episodes.

    FEWSHOT_NLP_DATA=... python evaluation/tuning_start.py run --starts reptile=runs/a/final half=runs/a/final:0.5 \\
        rates=runs/b/final:0:1
    python evaluation/tuning_start.py table

An episode is a support set of 8 rows a label from the train split, and 30 rows of the validation split.
All variants see the same episodes; a start may be taken part of the way from the fresh adapter, and so may learned
rates. The head before tuning is that of the frozen encoder in every variant. A record is appended as soon as it is
there; a run that is started again leaves out what the file holds.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import append_record, earlier_records, read_records
from safetensors.torch import load_file

from fewshot_nlp import FewShotClassifier
from fewshot_nlp.episode import Example, TaskDataset
from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.learners.contrastive import Contrastive, ContrastiveConfig
from fewshot_nlp.sampling import NWayKShot
from fewshot_nlp.sources import load_rows

SETS = [
    "trec6",
    "legal_rhetorical_roles",
    "cfpb_complaints",
    "medquad_answer_type",
    "medical_abstracts",
    "hallmarks_of_cancer",
    "csabstruct",
    "privacyqa_opp",
]
FRESH = ("fresh", 20)
"""What the others are compared with."""
KEYS = ("data", "seed", "start", "steps", "batch_size", "longest")


def starting_at(where: str, encoder: Any, **settings: Any) -> Contrastive:
    """The learner with the start of a model or checkpoint: "folder[:share of the way[:share of the rates' change]]"."""
    folder, *shares = where.split(":")
    share, of_rates = float((shares or ["1"])[0]), float((shares or ["1"])[-1])
    (file,) = Path(folder).glob("*.safetensors")
    given = {n.partition("learner.")[2]: t for n, t in load_file(file).items() if "learner." in n}
    rates = any(name.startswith("rates.") for name in given)
    learner = Contrastive(encoder, ContrastiveConfig(start="meta", learned_rates=rates, **settings))
    with torch.no_grad():
        for name, own in learner.state_dict().items():
            own.lerp_(given[name].to(own), of_rates if name.startswith("rates.") else share)
    return learner


def episode(
    train: TaskDataset, rows: list[Any], n_way: int, n_query: int, seed: int
) -> tuple[Any, list[Example]]:
    n_labels = len({label for counts in train.label_counts for label in counts})
    support = NWayKShot(train, min(n_way, n_labels), 8, 1, seed=seed).episode(0).support
    known = {str(dict(e.inputs)) for e in support}
    labels = {e.target for e in support}
    left = [e for e in rows if e.target in labels and str(dict(e.inputs)) not in known]
    order = np.random.default_rng([seed, 8]).permutation(len(left))[:n_query]
    return support, [left[i] for i in order]


def run(options: argparse.Namespace) -> None:
    model = FewShotClassifier.from_pretrained(learner="contrastive", layers=(0.5, -1))
    task, encoder = model.pipeline.task, model.pipeline.learner.encoder
    settings = {"batch_size": options.batch_size, "longest": options.longest}
    variants: dict[tuple[str, int], Contrastive] = {}
    for steps in options.fresh:
        variants["fresh", steps] = Contrastive(encoder, ContrastiveConfig(steps=steps, **settings))
    for start in options.starts:
        name, where = start.split("=", 1)
        for steps in options.steps:
            variants[name, steps] = starting_at(where, encoder, steps=steps, **settings)
    done = {tuple(r[k] for k in KEYS) for r in earlier_records(options.out)}
    data = {}
    for name in options.sets:
        data[name] = (
            task.dataset(load_rows(name, "train"), name),
            task.examples(load_rows(name, "validation")),
        )
    for seed in options.seeds:
        for name, (train, rows) in data.items():
            todo = [v for v in variants if (name, seed, *v, *settings.values()) not in done]
            if not todo:
                continue
            support, query = episode(train, rows, options.n_way, options.n_query, seed)
            labels = sorted({e.target for e in support})
            batch = model.pipeline.support(support, labels)
            asked = task.collate(query, labels, encoder.tokenizer, with_targets=True)
            with encoder.cache_frozen_layers(), encoder.cached():
                frozen = model.pipeline.learner.head.fit(batch)
                for variant in todo:
                    learner = variants[variant]
                    learner.head.fit = lambda _, state=frozen: state  # the same for all
                    began = time.process_time()
                    adapted = learner.adapt(batch)
                    seconds = time.process_time() - began
                    scores = adapted.scores(asked)
                    right = scores.argmax(dim=1) == asked.target_matrix.argmax(dim=1)
                    found = {
                        "accuracy": float(right.float().mean()),
                        "loss": float(asked.loss(scores)),
                        "cpu_seconds": round(seconds, 2),
                    }
                    append_record(
                        options.out,
                        dict(zip(KEYS, (name, seed, *variant, *settings.values()), strict=True)) | found,
                    )
            print(name, seed, flush=True)


def tables(path: Path) -> str:
    """One table for each number of slots in a step and of tokens in a text."""
    records = read_records(path)
    lines = []
    for size, longest in dict.fromkeys((r["batch_size"], r["longest"]) for r in records):
        mine = [r for r in records if (r["batch_size"], r["longest"]) == (size, longest)]
        lines += [f"{size} slots a step, texts of {longest} tokens", "", table(mine), ""]
    return "\n".join(lines)


def table(records: list[dict[str, Any]]) -> str:
    """Means over a row's own episodes; differences to the fresh start are paired, with their 95 % interval."""
    found: dict[tuple[str, int], dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for r in records:
        found[r["start"], r["steps"]][r["data"], r["seed"]] = r
    sets = list(dict.fromkeys(r["data"] for r in records))
    lines = [
        "| start | steps | " + " | ".join(sets) + " | mean | difference | worst set | log-loss | seconds |"
    ]
    lines.append("|---" * (len(sets) + 7) + "|")
    for (start, steps), mine in found.items():
        base = found[FRESH]
        shared = sorted(set(mine) & set(base))
        if {e[0] for e in shared} != set(sets):
            continue  # too few to say anything yet

        def of(key: str, data: str, some: Any = mine, shared: Any = shared) -> float:
            return float(np.mean([some[e][key] for e in shared if e[0] == data]))

        apart = [mine[e]["accuracy"] - base[e]["accuracy"] for e in shared]
        worst = min(of("accuracy", s) - of("accuracy", s, base) for s in sets)
        mean, half = mean_and_interval(apart)
        cells = [start, str(steps), *(f"{of('accuracy', s):.3f}" for s in sets)]
        cells.append(f"{np.mean([of('accuracy', s) for s in sets]):.3f}")
        cells.append(f"{mean:+.3f} ± {half or 0:.3f} ({len(shared)})")
        cells += [f"{worst:+.3f}", f"{np.mean([of('loss', s) for s in sets]):.3f}"]
        cells.append(f"{np.mean([of('cpu_seconds', s) for s in sets]):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--starts", nargs="*", default=[], help="name=folder[:share[:share of the rates]]")
    parser.add_argument("--steps", nargs="*", type=int, default=[5, 10, 20], help="of the starts")
    parser.add_argument("--fresh", nargs="*", type=int, default=[20], help="steps of the fresh start")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(13)))
    parser.add_argument("--n-way", type=int, default=5, help="labels of an episode, at most")
    parser.add_argument("--n-query", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--longest", type=int, default=80)
    parser.add_argument("--out", type=Path, default=Path("evaluation/results/tuning_start.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(tables(options.out)) if options.what == "table" else run(options)


if __name__ == "__main__":
    main()
