"""Other packages on the same supports and rows: SetFit for texts, spaCy's trainable pipeline for entities.

SetFit needs an older transformers than this package, so both run in a Python of their own, which the environment
variable ``FEWSHOT_NLP_PEERS`` names. It runs this file, which therefore imports nothing of this package at the top.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

INSTALL = "python -m venv peers && peers/bin/pip install torch setfit 'transformers<5' spacy"
PEERS = ("setfit", "spacy")
PASSES, DROPOUT = 30, 0.35

Job = dict[str, Any]
"""``support`` and ``query``, pairs of an input and its target; ``encoder``, a folder; ``seed``."""


@cache
def python() -> str | None:
    """The Python that has the peers; None where nothing names one that runs."""
    named = os.environ.get("FEWSHOT_NLP_PEERS", "")
    try:
        subprocess.run([named, "-c", ""], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return named


def predicted(peer: str, job: Job) -> dict[str, Any]:
    """What a peer predicts for the query: ``predicted`` targets, seconds to ``adapt`` and ``predict``, ``bytes``.

    Raises:
        FewShotError: the peer is not installed, or failed; with the last line of what it said.
    """
    from fewshot_nlp.errors import FewShotError

    if (interpreter := python()) is None:
        raise FewShotError(f"{peer} is not here: {INSTALL}, then FEWSHOT_NLP_PEERS=peers/bin/python.")
    with tempfile.TemporaryDirectory() as scratch:  # SetFit leaves checkpoints where it runs
        done = subprocess.run(
            [interpreter, "-P", __file__, peer],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=scratch,
        )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
    if done.returncode != 0:
        raise FewShotError(f"{peer} failed: {lines[-1]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def setfit(job: Job) -> dict[str, Any]:
    """SetFit with its defaults, on the encoder in a folder."""
    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    torch.set_num_threads(1)
    rows = [{"text": text, "label": label} for text, label in job["support"]]
    model = SetFitModel.from_pretrained(job["encoder"])
    options = TrainingArguments(report_to="none", seed=job["seed"])
    begin = time.perf_counter()
    Trainer(model=model, args=options, train_dataset=Dataset.from_list(rows)).train()
    adapted = time.perf_counter()
    found = [str(label) for label in model.predict([text for text, _ in job["query"]])]
    size = sum(p.numel() * p.element_size() for p in model.model_body.parameters())
    return timed(found, begin, adapted, size)


def spacy(job: Job) -> dict[str, Any]:
    """A blank pipeline's entity recogniser: 30 passes in batches that grow from 4 to 32, dropout 0.35."""
    import random

    import torch
    from spacy import blank
    from spacy.tokens import Doc
    from spacy.training import Example
    from spacy.util import compounding, fix_random_seed, minibatch

    torch.set_num_threads(1)
    fix_random_seed(job["seed"])
    pipeline = blank("en")
    pipeline.add_pipe("ner")

    def document(tokens: Sequence[str], tags: Sequence[str] | None = None) -> Doc:
        return Doc(pipeline.vocab, words=[token or " " for token in tokens], ents=tags)

    examples = [Example(document(tokens), document(tokens, tags)) for tokens, tags in job["support"]]
    begin = time.perf_counter()
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(PASSES):
        random.shuffle(examples)
        for batch in minibatch(examples, compounding(4.0, 32.0, 1.001)):
            pipeline.update(batch, drop=DROPOUT, sgd=optimizer)
    adapted = time.perf_counter()
    read = [pipeline(document(tokens)) for tokens, _ in job["query"]]
    found = [[f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in one] for one in read]
    return timed(found, begin, adapted, len(pipeline.to_bytes()))


def timed(found: list[Any], begin: float, adapted: float, size: int) -> dict[str, Any]:
    """Predictions with their cost; prediction ends now."""
    spent = {"adapt": adapted - begin, "predict": time.perf_counter() - adapted}
    return {"predicted": found, "bytes": size, **{name: round(seconds, 4) for name, seconds in spent.items()}}


if __name__ == "__main__":
    print(json.dumps({"setfit": setfit, "spacy": spacy}[sys.argv[1]](json.load(sys.stdin))))
