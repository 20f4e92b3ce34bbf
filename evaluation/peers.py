"""SetFit and spaCy on the very supports and test rows of `quality.py`.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/peers.py setfit --peer-python PEER/bin/python \
        --sets privacyqa_opp --seeds 1 --out evaluation/results/peers.jsonl
    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/peers.py spacy --peer-python PEER/bin/python --seeds 3 \
        --limit 250 --out evaluation/results/peers.jsonl

PEER is an environment of its own, as SetFit needs an older transformers: `pip install torch setfit 'transformers<5'
spacy`. SetFit runs with its defaults on the same encoder; spaCy trains its blank English pipeline's NER for 30
passes, the batches growing from 4 to 32, dropout 0.35. One thread each; the seconds are those of training.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from quality import DOMAIN_SETS, FACADES, NER_SETS, chosen_rows, counts, support_set
from records import append_record, block_sums, earlier_records

from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.sources import load_rows

FROZEN = "sentence-transformers/all-MiniLM-L6-v2"
PEERS = {
    "setfit": """
import json, sys, time, torch
torch.set_num_threads(1)
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
job = json.load(sys.stdin)
rows = [{"text": r["text"], "label": r["target"]} for r in job["support"]]
model = SetFitModel.from_pretrained(job["folder"])
trainer = Trainer(
    model=model, args=TrainingArguments(report_to="none", seed=job["seed"]), train_dataset=Dataset.from_list(rows)
)
start = time.perf_counter()
trainer.train()
seconds = time.perf_counter() - start
predicted = [str(p) for p in model.predict([r["text"] for r in job["test"]])]
print(json.dumps({"seconds": seconds, "predicted": predicted}))
""",
    "spacy": """
import json, sys, time
import spacy, torch
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import compounding, fix_random_seed, minibatch
torch.set_num_threads(1)
job = json.load(sys.stdin)
fix_random_seed(job["seed"])
nlp = spacy.blank("en")
nlp.add_pipe("ner")

def doc(tokens, tags=None):
    made = Doc(nlp.vocab, words=[t or " " for t in tokens])
    spans, start = [], None
    for i, tag in enumerate([*(tags or []), "O"]):
        if start is not None and not tag.startswith("I-"):
            spans.append(Span(made, start, i, label=tags[start][2:]))
            start = None
        if tag.startswith("B-"):
            start = i
    made.ents = spans
    return made

examples = [Example(doc(r["text"]), doc(r["text"], r["target"])) for r in job["support"]]
start = time.perf_counter()
optimizer = nlp.initialize(lambda: examples)
import random
random.seed(job["seed"])
for _ in range(30):
    random.shuffle(examples)
    for batch in minibatch(examples, compounding(4.0, 32.0, 1.001)):
        nlp.update(batch, drop=0.35, sgd=optimizer)
seconds = time.perf_counter() - start
predicted = []
for row in job["test"]:
    found = nlp.get_pipe("ner")(doc(row["text"]))
    tags = ["O"] * len(row["text"])
    for span in found.ents:
        tags[span.start : span.end] = [f"{'B' if i == 0 else 'I'}-{span.label_}" for i in range(len(span))]
    predicted.append(tags)
print(json.dumps({"seconds": seconds, "predicted": predicted}))
""",
}
TASK = {"setfit": "classification", "spacy": "ner"}
COLUMN = {"classification": "text", "ner": "tokens"}


def measured(peer: str, python: str, name: str, k_shot: int, seed: int, rows: list[dict[str, Any]]) -> Any:
    """One support set: the peer's score on the rows that are not in it."""
    kind = TASK[peer]
    task = FACADES[kind].from_pretrained(FROZEN, learner="prototypical").pipeline.task
    train = task.dataset(load_rows(name, "train"), name)
    support = support_set(train, kind, k_shot, seed)
    labels, column = task.labels(support), COLUMN[kind]
    known = {str(dict(e.inputs)) for e in support}
    test = [e for e in task.examples(rows) if str(dict(e.inputs)) not in known]
    job = {
        part: [{"text": e.inputs[column], "target": e.target} for e in examples]
        for part, examples in (("support", support), ("test", test))
    }
    with tempfile.TemporaryDirectory() as scratch:  # SetFit leaves checkpoints where it runs
        done = subprocess.run(
            [python, "-c", PEERS[peer]],
            input=json.dumps({**job, "folder": str(bundled_folder()), "seed": seed}),
            capture_output=True,
            text=True,
            check=True,
            cwd=scratch,
        )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    gold = [task.restrict(e.target, frozenset(labels)) for e in test]
    score = task.metrics(gold, found["predicted"], labels)[task.primary_metric]
    return {
        "blocks": block_sums([counts(g, p) for g, p in zip(gold, found["predicted"], strict=True)]),
        "n_support": len(support),
        "n_test": len(test),
        "metric": task.primary_metric,
        "score": score,
        "seconds": round(found["seconds"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    k_shot = 5 if options.peer == "spacy" else 8
    done = {(r["data"], r["method"], r["seed"]) for r in earlier_records(options.out)}
    for name in options.sets or (NER_SETS if options.peer == "spacy" else DOMAIN_SETS):
        rows = chosen_rows(name, "test", options.limit, options.sample)
        for seed in range(options.seeds):
            if (name, options.peer, seed) in done:
                continue
            record = measured(options.peer, options.peer_python, name, k_shot, seed, rows)
            record |= {"data": name, "method": options.peer, "k_shot": k_shot, "seed": seed, "split": "test"}
            append_record(options.out, record | {"threads": 1})
            print(name, seed, f"{record['score']:.4f}", f"{record['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
