"""Time of one meta-gradient beside learn2learn's: MiniLM, 5-way 5-shot, 25 queries, 5 inner steps, one thread.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... PEER/bin/python evaluation/speed/meta_step.py

PEER is an environment with this package and learn2learn; evaluation/results/speed.md tells how it was made. Before
anything is timed, both sides' gradients of three episodes are compared, and a difference over 1e-5 ends the run. A turn
is three episodes, tokenising included, and each turn takes three others. The cache is warm: it has met the episodes'
texts, as in a long run, which draws its rows again and again.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle

import torch
from meta_sides import Gradient, Learn2Learn, Ours, banking, disagreement

from fewshot_nlp.episode import Episode

TURN = 3
SETTINGS = {
    "LoRA in 6 layers, second order": (None, False, {"this package": 1.4, "bf16": 1.4}),
    "top 2 layers, second order": (2, False, {"this package": 1.8, "cache": 2.3, "cache, bf16": 1.4}),
    "top 2 layers, first order": (2, True, {"this package": 2.0, "cache": 3.1, "cache, bf16": 1.4}),
}
Clocks = tuple[float, float]
Side = Callable[[Episode], Gradient]


def timed(side: Side, episodes: list[Episode]) -> Clocks:
    """Milliseconds an episode, of processor and of wall-clock time."""
    cpu, wall = time.process_time(), time.perf_counter()
    for episode in episodes:
        side(episode)
    each = 1e3 / len(episodes)
    return (time.process_time() - cpu) * each, (time.perf_counter() - wall) * each


def sides(stack: ExitStack, top: int | None, first_order: bool, names: list[str]) -> dict[str, Side]:
    """learn2learn and the variants of this package, by name."""
    chosen: dict[str, Side] = {"learn2learn": Learn2Learn(top, first_order).gradient}
    for name in names:
        ours = Ours(top, first_order, bfloat16="bf16" in name)
        if "cache" in name:
            stack.enter_context(ours.encoder.lower_layers_cached())
        chosen[name] = ours.gradient
    return chosen


def compare(chosen: dict[str, Side], episodes: list[Episode]) -> dict[str, tuple[float, float]]:
    """Greatest relative difference from learn2learn's gradient and least cosine with it."""
    found: dict[str, tuple[float, float]] = {}
    for episode in episodes:
        expected = chosen["learn2learn"](episode)
        for name, side in chosen.items():
            error, cosine = disagreement(expected, side(episode))
            worst = found.get(name, (0.0, 1.0))
            found[name] = (max(error, worst[0]), min(cosine, worst[1]))
            if not ("bf16" in name or error <= 1e-5):
                raise SystemExit(f"{name}: the meta-gradient of {episode.episode_id} differs by {error:.1e}.")
    return found


def setting(name: str, repeats: int, episodes: list[Episode]) -> None:
    """Compares, times and prints the rows of one setting."""
    top, first_order, goals = SETTINGS[name]
    with ExitStack() as stack:
        chosen = sides(stack, top, first_order, list(goals))
        found = compare(chosen, episodes[:TURN])
        for variant, side in chosen.items():
            for episode in episodes if "cache" in variant else []:
                side(episode)  # the cache meets all texts
        turns = cycle([episodes[i : i + TURN] for i in range(0, len(episodes), TURN)])
        clocks: dict[str, list[Clocks]] = {variant: [] for variant in chosen}
        for turn in (next(turns) for _ in range(repeats)):
            for variant, side in chosen.items():
                clocks[variant].append(timed(side, turn))
    for variant, values in clocks.items():
        base = {"bf16": "this package", "cache, bf16": "cache"}.get(variant, "learn2learn")
        pairs = list(zip(clocks[base], values, strict=True))
        cpu, wall = ([b[i] / v[i] for b, v in pairs] for i in (0, 1))
        times = [statistics.median(v[i] for v in values) for i in (0, 1)]
        over = f"{base}: {statistics.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f})"
        print(
            f"| {name}: {variant} | {times[0]:.0f} | {times[1]:.0f} | {over} | {statistics.median(wall):.2f} "
            f"| {goals.get(variant, '')} | {found[variant][0]:.1e} | {found[variant][1]:.6f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    episodes = banking(TURN * arguments.repeats)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f}")
    print(
        "| setting | processor ms | wall ms | ratio over (range) | wall ratio | goal | gradient differs by | cosine |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.settings:
        setting(name, arguments.repeats, episodes)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
