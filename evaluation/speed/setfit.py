"""Adapting with the default beside a default SetFit run on the same 5-way 8-shot rows, in turn.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/setfit.py --peer-python PEER/bin/python

PEER is an environment of its own, as SetFit needs an older transformers:
`pip install torch setfit 'transformers<5'`. Three repeats: a SetFit run takes a minute and more.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time

import torch

from fewshot_nlp import FewShotClassifier
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.sampling import NWayKShot
from fewshot_nlp.sources import load_rows

PEER = """
import json, sys, time, torch
torch.set_num_threads(1)
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
job = json.load(sys.stdin)
model = SetFitModel.from_pretrained(job["folder"])
trainer = Trainer(model=model, args=TrainingArguments(report_to="none"), train_dataset=Dataset.from_list(job["rows"]))
start = time.perf_counter()
trainer.train()
seconds = time.perf_counter() - start
right = sum(str(p) == r["label"] for p, r in zip(model.predict([r["text"] for r in job["test"]]), job["test"]))
print(json.dumps({"seconds": seconds, "accuracy": right / len(job["test"])}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clf = FewShotClassifier.from_pretrained()
    data = clf.pipeline.task.dataset(load_rows("banking77", "train"), "banking77")
    sampler = NWayKShot(data, 5, 8, 20)
    ratios = []
    for i in range(options.repeats):
        episode = sampler.episode(i)
        rows, test = (
            [{"text": e.inputs["text"], "label": e.target} for e in part]
            for part in (episode.support, episode.query)
        )
        clf.adapt(rows)
        start = time.perf_counter()
        clf.adapt(rows)
        ours = time.perf_counter() - start
        accuracy = clf.evaluate(test)["accuracy"]
        job = json.dumps({"folder": str(bundled_folder()), "rows": rows, "test": test})
        with tempfile.TemporaryDirectory() as scratch:  # SetFit leaves checkpoints where it runs
            done = subprocess.run(
                [options.peer_python, "-c", PEER],
                input=job,
                capture_output=True,
                text=True,
                check=True,
                cwd=scratch,
            )
        peer = json.loads(done.stdout.strip().splitlines()[-1])
        ratios.append(peer["seconds"] / ours)
        print(
            f"episode {i}: adapt {ours:.3f} s (accuracy {accuracy:.2f}), SetFit {peer['seconds']:.1f} s "
            f"(accuracy {peer['accuracy']:.2f}), {ratios[-1]:.0f} x",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.0f} x (goal 50 x), one thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
