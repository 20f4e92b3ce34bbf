"""200,000 keys in LanceDB and in this process: the same neighbours, recall and time of a search.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/vectors.py [--keys 200000]

Keys are words of entity data in the encoder's features, queries words of other sentences. Needs `pip install lancedb`.
Processor time counts LanceDB's own threads. Prints a table of evaluation/results/speed.md.
"""

import argparse
import tempfile
import time

import torch
from common import HEAD, interleaved, line

from fewshot_nlp import FewShotNER
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.memory import Entry, MemoryStore, VectorStore
from fewshot_nlp.sources import load_rows

NEAREST, N_QUERIES = 8, 100


@torch.no_grad()
def word_vectors(count: int) -> torch.Tensor:
    """Features of so many words, a row each."""
    ner = FewShotNER.from_pretrained(bundled_folder(), task_config={"scheme": "io"}, layers=(3,))
    encoder, task, found = ner.pipeline.learner.encoder, ner.pipeline.task, []
    rows = [
        r for name in ("bc5cdr", "bc2gm", "finer_ord") for s in ("test", "train") for r in load_rows(name, s)
    ]
    for begin in range(0, len(rows), 500):
        queries = [task.query(" ".join(row["tokens"])) for row in rows[begin : begin + 500]]
        found.append(encoder.features(task.collate(queries, (), encoder.tokenizer, with_targets=False)))
        if sum(map(len, found)) >= count:
            return torch.cat(found)[:count]
    raise SystemExit(f"only {sum(map(len, found))} words of {count}")


def recall(found: list, wanted: list) -> float:
    """Share of the wanted neighbours that were found."""
    pairs = zip(found, wanted, strict=True)
    return sum(len({n.entry.text for n in f} & {n.entry.text for n in w}) / len(w) for f, w in pairs) / len(
        wanted
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=200_000)
    count = parser.parse_args().keys
    torch.set_num_threads(1)
    vectors = word_vectors(count + N_QUERIES)
    queries, keys = vectors[:N_QUERIES], vectors[N_QUERIES:]
    entries = [Entry(label=str(i % 9), text=f"w{i}") for i in range(count)]
    here = MemoryStore(keys.shape[1])
    here.remember(keys, entries)
    with tempfile.TemporaryDirectory() as folder:
        there = VectorStore(folder, keys.shape[1])
        for name, work in {
            "remember all": lambda: there.remember(keys, entries),
            "index": there.index,
        }.items():
            start = time.process_time()
            work()
            print(f"{name}: {time.process_time() - start:.1f} s of the processor")
        wanted = here.search(queries, NEAREST)
        ways = {"LanceDB, all keys": None} | {f"LanceDB, {n} cells": n for n in (10, 20, 40, 80)}
        calls = {"in this process": lambda: here.search(queries, NEAREST)}
        calls |= {name: lambda n=n: there.search(queries, NEAREST, cells=n) for name, n in ways.items()}
        recalls = {name: recall(call(), wanted) for name, call in calls.items()}
        seconds = interleaved(calls, repeats=5)
    print(f"\n### {count:,} keys of {keys.shape[1]} features, {N_QUERIES} searches for {NEAREST}\n\n{HEAD}")
    print("\n".join(line(f"{name} (recall {recalls[name]:.4f})", values) for name, values in seconds.items()))


if __name__ == "__main__":
    main()
