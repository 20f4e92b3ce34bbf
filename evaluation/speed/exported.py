"""Predicting with PyTorch, and with the exported model by onnxruntime in float32 and int8: processor time and scores.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/exported.py [--timed 60] [--scored 200]

The defaults on the bundled encoder, one thread; needs `pip install "fewshot_nlp[onnx]"`. Prints the table of
evaluation/results/speed.md.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import interleaved, ratio

from fewshot_nlp import FewShotClassifier, FewShotNER
from fewshot_nlp.exports import OnnxModel
from fewshot_nlp.sources import load_rows

sys.path.insert(0, str(Path(__file__).parents[1]))
from quality import chosen_rows, support_set

SETS = {"ner": (FewShotNER, "bc5cdr", 5), "classification": (FewShotClassifier, "medical_abstracts", 8)}


def measured(task: str, n_timed: int, n_scored: int) -> None:
    kind, name, k_shot = SETS[task]
    model: Any = kind.from_pretrained()
    of = model.pipeline.task
    support = support_set(of.dataset(load_rows(name, "train"), name), task, k_shot, 0)
    model.adapt([{**e.inputs, of.label_column: e.target} for e in support])
    examples = of.examples(chosen_rows(name, "test", None, n_scored))
    queries = [e.inputs["tokens"] if task == "ner" else e.inputs["text"] for e in examples]
    with tempfile.TemporaryDirectory() as folder:
        ways = {"PyTorch": model}
        for label, int8 in (("onnxruntime, float32", False), ("onnxruntime, int8", True)):
            ways[label] = OnnxModel(model.export(Path(folder) / label, "onnx", int8=int8), threads=1)
        scores = {way: score(of, examples, queries, read, model.labels) for way, read in ways.items()}
        few = queries[:n_timed]
        seconds = interleaved({way: lambda read=read: read.predict(few) for way, read in ways.items()})
        for way, values in seconds.items():
            per_text = [1e3 * v / len(few) for v in values]
            size = (
                "" if way == "PyTorch" else f"{(Path(folder) / way / 'model.onnx').stat().st_size / 1e6:.0f}"
            )
            print(
                f"| {name} | {way} | {statistics.median(per_text):.1f} ({min(per_text):.1f} to {max(per_text):.1f}) | "
                f"{ratio(seconds['PyTorch'], values):.2f} | {scores[way]:.3f} | {size} |",
                flush=True,
            )


def score(task: Any, examples: Any, queries: Any, read: Any, labels: Any) -> float:
    """The task's primary metric."""
    return float(task.metrics(*task.paired(examples, read.predictions(queries)), labels)[task.primary_metric])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timed", type=int, default=60, help="texts of each timed call")
    parser.add_argument("--scored", type=int, default=200, help="texts that are scored")
    options = parser.parse_args()
    print("| test split | | ms a text (range of 7) | times faster | score | MB |\n|---|---|---|---|---|---|")
    for task in SETS:
        measured(task, options.timed, options.scored)
