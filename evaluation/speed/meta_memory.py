"""Memory of second order: the peak of one meta-gradient beside learn2learn's, and a long run's from step to step.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... PEER/bin/python evaluation/speed/meta_memory.py peak
    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/meta_memory.py long --episodes 2000

PEER: as for meta_step.py. Each peak is of a process of its own, over the same three episodes.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

MIB = 2**20
META_BATCH = 4


def _ours(top: int | None) -> Callable[..., object]:
    from meta_sides import Ours

    return Ours(top, first_order=False).gradient


def _peer(top: int | str | None) -> Callable[..., object]:
    from meta_sides import Learn2Learn

    return Learn2Learn(top, first_order=False).gradient


SIDES: Mapping[str, Callable[[], Callable[..., object]]] = {
    "learn2learn, full model": lambda: _peer("full"),
    "learn2learn, LoRA in the top 2 layers": lambda: _peer(2),
    "this package, LoRA in 6 layers": lambda: _ours(None),
    "this package, LoRA in the top 2 layers": lambda: _ours(2),
}


def resident() -> float:
    """Resident memory of this process now, in MiB."""
    return float(psutil.Process().memory_info().rss / MIB)


def one_side(name: str) -> None:
    """Prints resident memory before the first episode and the peak after three, in MiB."""
    from meta_sides import banking

    torch.set_num_threads(1)
    gradient = SIDES[name]()
    episodes = banking(3)
    before = resident()
    for episode in episodes:
        gradient(episode)
    print(f"{before:.0f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def peak() -> None:
    """The table of all sides."""
    print(
        "| second order, 5-way 5-shot, 5 steps | before, MiB | peak, MiB | peak - before, MiB |\n|---|---|---|---|"
    )
    for name in SIDES:
        command = [sys.executable, __file__, "side", "--side", name]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, most = map(int, shown.split()[-2:])
        print(f"| {name} | {before} | {most} | {most - before} |", flush=True)


def long_run(n_episodes: int, cache_mb: int) -> None:
    """Meta-trains by second order and prints resident memory as it goes."""
    from fewshot_nlp.learners.maml import MAMLConfig
    from fewshot_nlp.training.callbacks import Callback
    from fewshot_nlp.training.config import Data, MetaTrainConfig, OuterLoop, Run, SamplerSettings, Source
    from fewshot_nlp.training.meta_train import meta_train

    torch.set_num_threads(1)
    sizes: dict[int, float] = {}

    class Watch(Callback):
        def on_step(self, record: Mapping[str, Any]) -> None:
            sizes[record["step"] * META_BATCH] = resident()
            if record["step"] % (n_episodes // META_BATCH // 20) == 0:
                print(f"| {record['step'] * META_BATCH} | {resident():.0f} |", flush=True)

    print("| episodes | resident MiB |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        config = MetaTrainConfig(
            task="classification",
            learner="maml",
            learner_config=MAMLConfig(inner_steps=1),
            adapter={"peft_type": "LORA", "r": 8, "target_modules": ["query", "value"]},
            top_layers=1,
            data=Data(
                sources=(Source(name="banking77"),), sampler=SamplerSettings(n_way=2, k_shot=1, n_query=1)
            ),
            outer=OuterLoop(meta_batch=META_BATCH, steps=n_episodes // META_BATCH),
            run=Run(cache_mb=cache_mb, output_dir=str(Path(folder) / "run")),
        )
        meta_train(config, [Watch()])
    after = [size for episodes, size in sizes.items() if episodes > 200]
    growth = max(after) / sizes[200] - 1
    print(f"\nmost after the first 200 episodes over that at 200: {100 * growth:+.2f} % (goal: under 2 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["peak", "side", "long"])
    parser.add_argument("--side", choices=list(SIDES))
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--cache-mb", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "long":
        long_run(arguments.episodes, arguments.cache_mb)
    elif arguments.what == "side":
        one_side(arguments.side)
    else:
        peak()


if __name__ == "__main__":
    main()
