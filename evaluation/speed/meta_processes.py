"""Two processes beside one process with two threads: episodes a second of an outer step, top 2 layers, second order.

    export OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true FEWSHOT_NLP_DATA=...
    torchrun --standalone --nproc_per_node 2 evaluation/speed/meta_processes.py

In turn, in one run: both processes share a meta-batch of four episodes, one thread each, and reduce gradients; then
the first takes all four with two threads, while the second waits. What counts is wall-clock time from one barrier to
the next, so the machine should have nothing else to do; the load is printed.
"""

import os
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from meta_sides import Ours, banking

from fewshot_nlp.episode import Episode
from fewshot_nlp.training.outer_step import outer_gradient

META_BATCH, TURNS = 4, 5


class Alone:
    """What an outer step asks of an accelerator, for one process among several that works by itself."""

    num_processes, process_index = 1, 0
    device = torch.device("cpu")
    autocast = staticmethod(nullcontext)

    def backward(self, loss: torch.Tensor) -> None:
        """Plainly."""
        loss.backward()


class Stream:
    """Episodes by number."""

    def __init__(self, episodes: list[Episode]) -> None:
        self.episode = episodes.__getitem__


def main() -> None:
    accelerator = Accelerator(cpu=True)
    if accelerator.num_processes != 2:
        raise SystemExit(f"{accelerator.num_processes} processes, but this needs 2; start it by torchrun.")
    ours, stream = Ours(2, first_order=False), Stream(banking(META_BATCH * (TURNS + 1)))
    gradients: dict[str, torch.Tensor] = {}

    def step(who: Any, threads: int, number: int) -> float:
        torch.set_num_threads(threads)
        accelerator.wait_for_everyone()
        start = time.perf_counter()
        if who is accelerator or accelerator.is_main_process:
            kind: Any = stream
            outer_gradient(who, ours.pipeline, ours.encoder.adapter, kind, step=number, meta_batch=META_BATCH)
        accelerator.wait_for_everyone()
        seconds = time.perf_counter() - start
        gradients[type(who).__name__] = torch.cat([p.grad.flatten() for p in ours.encoder.adapter.values()])
        return seconds

    ratios, times = [], []
    for number in range(TURNS + 1):
        two, one = step(accelerator, 1, number), step(Alone(), 2, number)
        if number:  # the first warms up
            ratios.append(one / two)
            times.append((two, one))
    if accelerator.is_main_process:
        both, alone = gradients["Accelerator"], gradients["Alone"]
        rates = [META_BATCH / statistics.median(t) for t in zip(*times, strict=True)]
        print(f"two processes {rates[0]:.2f}, one process with two threads {rates[1]:.2f} episodes a second")
        print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), goal 0.95")
        print(
            f"gradients differ by {float((both - alone).norm() / alone.norm()):.1e}; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
