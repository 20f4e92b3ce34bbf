"""Adapting and predicting beside the encoder's bare forward pass and sentence-transformers.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/inference.py [PART ...]

Without a part (see `PARTS`) all are run; `classifying` needs `pip install sentence-transformers`. Prints the tables of
evaluation/results/speed.md.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import HEAD, interleaved, line, ratio

from fewshot_nlp import FewShotClassifier, FewShotNER, FewShotQA
from fewshot_nlp.backbone.batching import chunks
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.sampling import NWayK2KShot, NWayKShot
from fewshot_nlp.sources import load_rows


def adapting() -> None:
    clf = FewShotClassifier.from_pretrained()
    data = clf.pipeline.task.dataset(load_rows("banking77", "train"), "banking77")
    episode = NWayKShot(data, 5, 8, 1).episode(0)
    encoder, task = clf.pipeline.learner.encoder, clf.pipeline.task

    def encode() -> None:
        encoder.features(
            task.collate(episode.support, episode.label_names, encoder.tokenizer, with_targets=False)
        )

    seconds = interleaved(
        {
            "one encoder pass over the support set": encode,
            "adapt": lambda: clf.pipeline.adapt(episode.support, episode.label_names),
        }
    )
    one, adapt = seconds.values()
    print("\n### Classification: adapt with the default, 5-way 8-shot (40 texts of BANKING77)\n")
    print(HEAD)
    print("\n".join(line(name, values) for name, values in seconds.items()))
    beyond = sorted(a - 1.3 * b for a, b in zip(adapt, one, strict=True))[len(one) // 2]
    print(
        f"\nadapt / pass = {ratio(adapt, one):.2f}; adapt - 1.3 x pass = {beyond * 1e3:.1f} ms (bound: 50 ms)"
    )


def classifying() -> None:
    from sentence_transformers import SentenceTransformer

    rows = load_rows("banking77", "test")[:256] + load_rows("cfpb_complaints", "test")[:128]
    texts = [r["text"] for r in rows]
    clf = FewShotClassifier.from_pretrained()
    clf.adapt([{**r, "label": str(i % 5)} for i, r in enumerate(load_rows("banking77", "train")[:40])])
    peer = SentenceTransformer(str(bundled_folder()), device="cpu")
    fits = [t for t in texts if len(clf.pipeline.learner.encoder.tokenizer.tokenizer(t)["input_ids"]) <= 256]
    seconds = interleaved(
        {
            "SentenceTransformer.encode": lambda: peer.encode(fits),
            "predict_proba": lambda: clf.predict_proba(fits),
        }
    )
    theirs, ours = seconds.values()
    print(f"\n### Classification: predict, {len(fits)} texts of mixed length (none over 256 tokens)\n")
    print(HEAD)
    print("\n".join(line(name, values) for name, values in seconds.items()))
    print(f"\nthroughput over SentenceTransformer.encode: {ratio(theirs, ours):.2f} x (goal 1.3)")


def tagging() -> None:
    ner = FewShotNER.from_pretrained()
    data = ner.pipeline.task.dataset(load_rows("bc5cdr", "train"), "bc5cdr")
    ner.adapt([{**e.inputs, "ner_tags": e.target} for e in NWayK2KShot(data, None, 5, 1).episode(0).support])
    texts = [" ".join(r["tokens"]) for r in load_rows("bc5cdr", "test")[:300]]
    task, encoder = ner.pipeline.task, ner.pipeline.learner.encoder

    def windows() -> Any:
        return encoder.tokenizer.words([task.query(text).inputs["tokens"] for text in texts])

    title = f"NER: predict, {len(texts)} sentences of bc5cdr"
    beyond_the_pass(title, encoder, windows, lambda: ner.predict(texts), goal=5)


def answering(name: str, n: int) -> None:
    qa = FewShotQA.from_pretrained()
    encoder, task = qa.pipeline.learner.encoder, qa.pipeline.task
    rows = load_rows(name, "test")[:n]
    queries = [task.query(row) for row in rows]
    texts = [[q.inputs[side] for q in queries] for side in ("question", "context")]

    def windows() -> Any:
        return encoder.tokenizer.texts(*texts)

    title = f"Question answering: predict, {n} questions of {name} ({len(windows().ids)} windows)"
    beyond_the_pass(title, encoder, windows, lambda: qa.predict(rows), goal=10)


def beyond_the_pass(
    title: str, encoder: Any, windows: Callable[[], Any], predict: Callable[[], object], goal: int
) -> None:
    """What predicting costs beyond tokenising and running the encoder; the goal is in per cent."""

    @torch.no_grad()
    def bare() -> None:
        found = windows()
        for chunk in chunks([len(row) for row in found.ids], encoder.token_budget):
            types = None if found.types is None else [found.types[i] for i in chunk]
            encoder.hidden_states([found.ids[i] for i in chunk], types)

    seconds = interleaved({"tokenising and forward pass": bare, "predict": predict})
    base, ours = seconds.values()
    print(f"\n### {title}\n")
    print(HEAD)
    print("\n".join(line(name, values) for name, values in seconds.items()))
    print(
        f"\npredict beyond tokenising and forward pass: {100 * (ratio(ours, base) - 1):.1f} % (goal {goal} %)"
    )


def importing() -> None:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    seconds = interleaved(
        {"python": lambda: run("pass"), "import fewshot_nlp": lambda: run("import fewshot_nlp")}
    )
    print("\n### Importing the package\n")
    print(HEAD)
    print("\n".join(line(name, values) for name, values in seconds.items()))


PARTS = {
    "importing": importing,
    "adapting": adapting,
    "classifying": classifying,
    "tagging": tagging,
    "answering": partial(answering, "squad_v1", 120),
    "answering_long": partial(answering, "covid_qa", 30),
}


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, medians of 7 interleaved repeats")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
