"""Time of one meta-gradient beside learn2learn's: MiniLM, 5-way 5-shot, 25 queries, 5 inner steps, one thread.

    export OMP_NUM_THREADS=1 PYTHONPATH=evaluation FEWSHOT_NLP_DATA=...
    PEER/bin/python evaluation/speed/meta_step.py run --out evaluation/results/meta_step.jsonl
    python evaluation/speed/meta_step.py table --out evaluation/results/meta_step.jsonl

PEER is an environment with this package and learn2learn; evaluation/results/speed.md tells how it was made. A turn is
a few episodes, tokenising included, which the alternatives take one after the other; each turn has its own.
Both sides' meta-gradients are compared before anything is timed, and in every timed episode: a difference over 1e-5
ends the run. The cache is warm: it has met the texts, as in a long run, which draws its rows again and again. A
record an alternative and turn is appended as soon as it is there; a run that is started again goes on.
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from meta_sides import Gradient, Learn2Learn, Ours, banking, disagreement
from records import append_record, earlier_records, read_records

from fewshot_nlp.episode import Episode

BOUND = 1e-5
PEER = "learn2learn"
SETTINGS: Mapping[str, tuple[int | None, bool]] = {
    "LoRA in 6 layers, second order": (None, False),
    "top 2 layers, second order": (2, False),
    "top 2 layers, first order": (2, True),
}
GOALS = {
    ("LoRA in 6 layers, second order", "plain"): 1.4,
    ("top 2 layers, second order", "plain"): 1.8,
    ("top 2 layers, second order", "cache"): 2.3,
    ("top 2 layers, first order", "plain"): 2.0,
    ("top 2 layers, first order", "cache"): 3.1,
}
GOAL_BFLOAT16 = 1.4
Side = Ours | Learn2Learn


def sides(stack: ExitStack, top: int | None, first_order: bool) -> dict[str, Side]:
    """learn2learn and the variants of this package, by name; with LoRA in all layers there is nothing to cache."""
    chosen: dict[str, Side] = {PEER: Learn2Learn(top, first_order)}
    for name in ("plain", "plain, bf16", "cache", "cache, bf16")[: 2 if top is None else 4]:
        chosen[name] = ours = Ours(top, first_order, bfloat16="bf16" in name)
        if "cache" in name:
            stack.enter_context(ours.encoder.cache_frozen_layers())
    return chosen


def agreement(name: str, gradient: Gradient, expected: Gradient) -> tuple[float, float]:
    """Relative difference and cosine of a gradient and learn2learn's; too large a difference is an error."""
    error, cosine = disagreement(expected, gradient)
    if "bf16" not in name and error > BOUND:
        raise SystemExit(f"{name}: the meta-gradient differs from learn2learn's by {error:.1e}.")
    return error, cosine


def timed(side: Side, episodes: list[Episode]) -> tuple[list[Gradient], float, float]:
    """Gradients, and milliseconds an episode: of processor and of wall-clock time."""
    cpu, wall = time.process_time(), time.perf_counter()
    gradients = [side.gradient(episode) for episode in episodes]
    each = 1e3 / len(episodes)
    return gradients, (time.process_time() - cpu) * each, (time.perf_counter() - wall) * each


def turn(chosen: Mapping[str, Side], episodes: list[Episode]) -> dict[str, dict[str, float]]:
    """Times and agreement of all alternatives on some episodes, by name."""
    found, expected = {}, list[Gradient]()
    for name, side in chosen.items():
        if isinstance(side, Ours) and "cache" in name:
            for episode in episodes:
                side.meet(episode)
        gradients, cpu, wall = timed(side, episodes)
        expected = expected or gradients
        pairs = [agreement(name, g, e) for g, e in zip(gradients, expected, strict=True)]
        errors, cosines = zip(*pairs, strict=True)
        found[name] = {"cpu": cpu, "wall": wall, "error": max(errors), "cosine": min(cosines)}
    return found


def run(out: Path, turns: int, size: int) -> None:
    """Appends what is missing."""
    torch.set_num_threads(1)
    done = {(r["setting"], r["turn"]) for r in earlier_records(out)}
    episodes = banking(size * (turns + 1))
    for setting, (top, first_order) in SETTINGS.items():
        missing = [n for n in range(turns) if (setting, n) not in done]
        with ExitStack() as stack:
            chosen = sides(stack, top, first_order) if missing else {}
            turn(chosen, episodes[-1:])  # warms up
            for n in missing:
                found = turn(chosen, episodes[size * n : size * (n + 1)])
                about = {
                    "setting": setting,
                    "turn": n,
                    "episodes": size,
                    "load": round(os.getloadavg()[0], 1),
                }
                append_record(out, {**about, "torch": torch.__version__, "found": found})


def table(out: Path) -> None:
    """Prints the records as a table."""
    records = read_records(out)
    print(
        "| setting | processor ms | wall ms | ratio (range) | wall ratio | goal | gradient differs by | cosine |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        found = [r["found"] for r in records if r["setting"] == setting]
        for name in found[0] if found else ():
            print(row(setting, name, found))


def row(setting: str, name: str, found: list[dict[str, Any]]) -> str:
    """One alternative: medians, and the paired ratios to learn2learn; those of bf16 to the same without it."""
    middle = {c: statistics.median(f[name][c] for f in found) for c in ("cpu", "wall")}
    times = f"| {setting}: {name} | {middle['cpu']:.0f} | {middle['wall']:.0f} |"
    if name == PEER:
        return f"{times} | | | | |"
    base = name.removesuffix(", bf16") if "bf16" in name else PEER
    cpu, wall = ([f[base][c] / f[name][c] for f in found] for c in ("cpu", "wall"))
    goal = GOAL_BFLOAT16 if "bf16" in name else GOALS[setting, name]
    return (
        f"{times} {statistics.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) over {base} | "
        f"{statistics.median(wall):.2f} | {goal} | {max(f[name]['error'] for f in found):.1e} | "
        f"{min(f[name]['cosine'] for f in found):.6f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2, help="in a turn")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.out, arguments.turns, arguments.episodes)
    table(arguments.out)


if __name__ == "__main__":
    main()
