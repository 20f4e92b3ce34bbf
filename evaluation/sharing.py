"""Shared or task-specific features: quality against the bytes that a task costs beside the shared encoder.

    FEWSHOT_NLP_DATA=... python evaluation/sharing.py run
    python evaluation/sharing.py figure    # evaluation/results/sharing.png; needs pip install 'fewshot-nlp[plots]'

The same learner, `fine_tune` from a solved logistic regression, with more and more of the encoder adapted to the task:
nothing but the head, LoRA in the top layers, LoRA in all, all weights. Support sets are drawn from train, scores are
of the test split (`--limit` takes the first rows); a record is appended as soon as it is there, and a run that is
started again leaves out what the file holds.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from quality import FACADES, described, support_set
from records import append_record, earlier_records

from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.sources import load_rows

RESULTS = Path(__file__).with_name("results") / "sharing.jsonl"
SETS = {"bc5cdr": "ner", "sec_filings_fin": "ner", "unfair_tos": "classification"}
STEPS = {"steps": 40, "start": "linear_probe"}


def lora(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def methods() -> dict[str, dict[str, Any]]:
    adapters = {
        f"LoRA of rank {rank}, top {top} layers": {"adapter": lora(rank), "top_layers": top}
        for rank, top in ((2, 1), (8, 1), (8, 2), (8, 6))
    }
    return {
        "head": {"learner_config": {**STEPS, "scope": "head"}},
        **{n: {**given, "learner_config": {**STEPS, "lr": 1e-3}} for n, given in adapters.items()},
        "all weights": {"learner_config": {**STEPS, "scope": "all", "lr": 1e-4}},
    }


def run(options: argparse.Namespace) -> None:
    done = {(r["data"], r["method"], r["seed"]) for r in earlier_records(options.out)}
    for name in options.sets:
        rows = load_rows(name, "test")[: options.limit]
        for method, given in methods().items():
            todo = [s for s in range(options.seeds) if (name, method, s) not in done]
            if not todo:
                continue
            model = FACADES[SETS[name]].from_pretrained(learner="fine_tune", **given)
            train = model.pipeline.task.dataset(load_rows(name, "train"), name)
            for seed in todo:
                support = support_set(train, SETS[name], options.k_shot, seed)
                record = described(model, name, rows, support)
                record |= {"method": method, "k_shot": options.k_shot, "seed": seed, "limit": options.limit}
                append_record(options.out, record)
                print(name, method, seed, f"{record['score']:.4f}", record["bytes"], flush=True)


def figure(path: Path) -> None:
    import matplotlib.pyplot as plt

    records = earlier_records(path)
    _, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name in dict.fromkeys(r["data"] for r in records):
        mine = [r for r in records if r["data"] == name]
        points = []
        for method in dict.fromkeys(r["method"] for r in mine):
            chosen = [r for r in mine if r["method"] == method]
            mean, half = mean_and_interval([r["score"] for r in chosen])
            points.append((sum(r["bytes"] for r in chosen) / len(chosen), mean, half or 0.0))
        size, score, half = zip(*sorted(points), strict=True)
        first = mine[0]
        label = f"{name} ({first['metric']}, {first['k_shot']}-shot, {len(chosen)} seeds)"
        axes.errorbar(size, score, yerr=half, marker="o", capsize=3, label=label)
    axes.set(xscale="log", xlabel="bytes a task", ylabel="score, mean and 95 % interval over support sets")
    axes.set_title("Head only, LoRA in more and more layers, all weights", fontsize=10)
    axes.legend(fontsize=8)
    plt.savefig(path.with_suffix(".png"), dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "figure"])
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--k-shot", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figure(options.out) if options.what == "figure" else run(options)


if __name__ == "__main__":
    main()
