"""Cost of one meta-gradient against encoder size, K, inner steps and order: processor time and counted FLOPs.

    export OMP_NUM_THREADS=1 PYTHONPATH=evaluation FEWSHOT_NLP_DATA=...
    python evaluation/speed/meta_scale.py run --out evaluation/results/meta_scale.jsonl
    python evaluation/speed/meta_scale.py table --out evaluation/results/meta_scale.jsonl

Episodes of BANKING77, 5-way, 5 queries a class, LoRA of rank 8 in queries and values, no cache, float32, one thread.
Encoders beside MiniLM are BERT's architecture with random weights and MiniLM's tokenizer: time does not depend on what
the weights are. FLOPs are those of matrix products, counted by torch.utils.flop_counter in one episode; that episode
is then timed three times, or, where the counted pass took over two seconds, that pass is the timing.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from meta_sides import STEPS, Ours, banking
from records import append_record, earlier_records, read_records
from torch.utils.flop_counter import FlopCounterMode

from fewshot_nlp.backbone import Encoder

SIZES = {"6 x 384": None, "6 x 768": (6, 768), "12 x 768": (12, 768), "24 x 1024": (24, 1024)}
"""Layers and width."""

KINDS: list[dict[str, Any]] = [
    {"top": 2, "first": False},
    {"top": 2, "first": True},
    {"top": None, "first": False},
]
GRID: list[dict[str, Any]] = [
    *({"size": size, **kind} for kind in KINDS for size in SIZES),
    *({"size": "6 x 384", **KINDS[0], "k": k} for k in (1, 10)),
    *({"size": "6 x 384", **KINDS[0], "steps": steps} for steps in (1, 10)),
]


def encoder(size: str) -> Encoder:
    """MiniLM, or a BERT of that many layers and that width with random weights."""
    from transformers import BertConfig, BertModel

    mini, shape = Encoder.from_pretrained(), SIZES[size]
    if shape is None:
        return mini
    layers, width = shape
    config = BertConfig(
        vocab_size=mini.model.config.vocab_size,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        attn_implementation="sdpa",
    )
    return Encoder(
        BertModel(config, add_pooling_layer=False), mini.tokenizer.tokenizer, name=size, max_length=256
    )


def measure(size: str, top: int | None, first: bool, k: int = 5, steps: int = STEPS) -> dict[str, float]:
    """Parameters, tokens, FLOPs and processor seconds of one episode."""
    ours = Ours(top, first, steps, encoder=encoder(size))
    episode = banking(1, k)[0]
    ids = ours.encoder.tokenizer.texts([e.inputs["text"] for e in (*episode.support, *episode.query)]).ids
    begin = time.process_time()
    with FlopCounterMode(display=False) as counter:
        ours.gradient(episode)
    seconds = [time.process_time() - begin]
    if seconds[0] <= 2:
        seconds = []
        for _ in range(3):
            begin = time.process_time()
            ours.gradient(episode)
            seconds.append(time.process_time() - begin)
    parameters = sum(p.numel() for p in ours.encoder.model.parameters())
    return {
        "parameters": parameters,
        "tokens": sum(map(len, ids)),
        "flops": counter.get_total_flops(),
        "seconds": statistics.median(seconds),
        "repeats": len(seconds),
    }


def table(out: Path) -> None:
    """Prints the records as a table."""
    print("| layers x width | parameters | LoRA in | order | K | steps | GFLOP | processor s | GFLOP/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for record in read_records(out):
        setting, found = {"k": 5, "steps": STEPS, **record["setting"]}, record["found"]
        flops = found["flops"] / 1e9
        print(
            f"| {setting['size']} | {found['parameters'] / 1e6:.0f}M | {setting['top'] or 'all'} "
            f"| {1 if setting['first'] else 2} | {setting['k']} | {setting['steps']} | {flops:.0f} "
            f"| {found['seconds']:.2f} | {flops / found['seconds']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "run":
        done = [record["setting"] for record in earlier_records(arguments.out)]
        for setting in GRID:
            if setting not in done:
                append_record(arguments.out, {"setting": setting, "found": measure(**setting)})
    table(arguments.out)


if __name__ == "__main__":
    main()
