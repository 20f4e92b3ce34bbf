"""What people wait for, as calls to be timed: loading, adapting, predicting, remembering; run by bench.py.

A benchmark is a context manager that prepares some calls, which then take turns. ``Scale.small`` takes tiny models and
a few made-up rows, so that tests run each benchmark once.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from fewshot_nlp import FewShotClassifier, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.memory import Entry, MemoryStore
from fewshot_nlp.sampling import NWayKShot
from fewshot_nlp.sources import load_rows

Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured.

    Args:
        repeats: turns that count.
        small: folders of a tiny encoder and a tiny translation model; None measures the models that ship.
    """

    repeats: int = 5
    small: dict[str, Path] | None = None

    def of(self, full: int, small: int) -> int:
        """One of two counts."""
        return full if self.small is None else small

    @property
    def encoder(self) -> Path | None:
        """What `from_pretrained` takes."""
        return None if self.small is None else self.small["encoder"]

    def rows(
        self, name: str, split: str, n: int, made_up: Callable[[random.Random], dict[str, Any]]
    ) -> list[Any]:
        """Rows of a data card; at small scale made-up ones."""
        if self.small is None:
            return load_rows(name, split)[:n]
        return [made_up(random.Random(f"{split} {i}")) for i in range(n)]


def words(source: random.Random, n: int = 6) -> list[str]:
    return [
        source.choice(("the", "bank", "lost", "my", "card", "money", "pay", "day", "judge")) for _ in range(n)
    ]


def text_row(source: random.Random) -> dict[str, Any]:
    found = words(source)
    return {"text": " ".join(found), "label": found[0]}


def tagged_row(source: random.Random) -> dict[str, Any]:
    found = words(source)
    return {"tokens": found, "ner_tags": ["B-THING" if w in ("card", "money") else "O" for w in found]}


def question_row(source: random.Random) -> dict[str, Any]:
    context = " ".join(words(source, 12))
    answer = {"text": [context.split()[0]], "answer_start": [0]}
    return {"question": " ".join(words(source, 4)), "context": context, "answers": answer}


def pair_row(source: random.Random) -> dict[str, Any]:
    found = words(source)
    return {"translation": {"xx": " ".join(w[::-1] for w in found), "en": " ".join(found)}}


@contextmanager
def starting(scale: Scale) -> Iterator[Calls]:
    """From the interpreter's start: the import alone, and until a saved model has predicted a first text."""
    with tempfile.TemporaryDirectory() as folder:
        model = FewShotClassifier.from_pretrained(scale.encoder)
        model.adapt(scale.rows("banking77", "train", 16, text_row)).save_pretrained(folder)
        first = (
            "from fewshot_nlp import FewShotClassifier;"
            f"FewShotClassifier.from_pretrained({folder!r}).predict(['where is my card'])"
        )
        programs = {"import": "import fewshot_nlp", "first prediction": first}
        yield {
            name: lambda code=code: subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True
            )
            for name, code in programs.items()
        }


@contextmanager
def loading(scale: Scale) -> Iterator[Calls]:
    """An encoder from its folder: the bundled one, and BERT's two sizes (110M, 335M) with random weights."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    sizes = {"110M": (scale.of(768, 64), scale.of(12, 2)), "335M": (scale.of(1024, 64), scale.of(24, 2))}
    calls: Calls = {"bundled": lambda: Encoder.from_pretrained(scale.encoder)}
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, layers) in sizes.items():
            config = BertConfig(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=width // 64,
                intermediate_size=4 * width,
            )
            path = Path(folder, name)
            BertModel(config).save_pretrained(path)
            AutoTokenizer.from_pretrained(scale.encoder or bundled_folder()).save_pretrained(path)
            calls[name] = lambda path=path: Encoder.from_pretrained(path)
        yield calls


@contextmanager
def classification(scale: Scale) -> Iterator[Calls]:
    """Adapting to 5 x 8 texts and predicting, beside SentenceTransformer.encode and a logistic regression."""
    clf = FewShotClassifier.from_pretrained(scale.encoder)
    rows = scale.rows("banking77", "train", scale.of(10**6, 60), text_row)
    episode = NWayKShot(clf.pipeline.task.dataset(rows, "rows"), scale.of(5, 2), scale.of(8, 2), 1).episode(0)
    model = clf.pipeline.adapt(episode.support, episode.label_names)
    texts = [r["text"] for r in scale.rows("banking77", "test", scale.of(256, 4), text_row)]
    longer = [r["text"] for r in scale.rows("cfpb_complaints", "test", scale.of(128, 2), text_row)]
    tokenizer = clf.pipeline.learner.encoder.tokenizer.tokenizer
    mixed = texts + [t for t in longer if len(tokenizer(t)["input_ids"]) <= 256]  # the peer cuts longer ones
    short_queries, mixed_queries = (clf.pipeline.task.queries(found) for found in (texts, mixed))
    calls: Calls = {
        "adapt 5 x 8": lambda: clf.pipeline.adapt(episode.support, episode.label_names),
        "predict short texts": lambda: model.predict(short_queries),
        "predict mixed texts": lambda: model.predict(mixed_queries),
    }
    yield calls | (peer(episode, texts, mixed) if scale.small is None else {})


def peer(episode: Any, short: list[str], mixed: list[str]) -> Calls:
    """What a user would take instead."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(str(bundled_folder()), device="cpu")
    support = [next(iter(e.inputs.values())) for e in episode.support]
    targets = [str(e.target) for e in episode.support]
    head = LogisticRegression(C=10, max_iter=1000)
    head.fit(encoder.encode(support), targets)
    return {
        "peer adapt": lambda: head.fit(encoder.encode(support), targets),
        "peer predict short": lambda: head.predict_proba(encoder.encode(short)),
        "peer predict mixed": lambda: head.predict_proba(encoder.encode(mixed)),
    }


@contextmanager
def entities(scale: Scale) -> Iterator[Calls]:
    """Adapting to 100 and 1,000 sentences; one long text."""
    ner = FewShotNER.from_pretrained(scale.encoder)
    rows = scale.rows("bc5cdr", "train", scale.of(1000, 8), tagged_row)
    few = rows[: scale.of(100, 4)]
    model = FewShotNER.of(ner.pipeline).adapt(few)
    sentences = [" ".join(r["tokens"]) for r in scale.rows("bc5cdr", "test", scale.of(10**6, 4), tagged_row)]
    text = " ".join(sentences)[: scale.of(200_000, 200)]
    yield {
        "adapt 100": lambda: FewShotNER.of(ner.pipeline).adapt(few),
        "adapt 1,000": lambda: FewShotNER.of(ner.pipeline).adapt(rows),
        "predict 200,000 characters": lambda: model.predict([text]),
    }


@contextmanager
def answers(scale: Scale) -> Iterator[Calls]:
    """Adapting to 64 questions."""
    qa = FewShotQA.from_pretrained(scale.encoder)
    rows = scale.rows("squad_v1", "train", scale.of(64, 4), question_row)
    yield {"adapt 64": lambda: FewShotQA.of(qa.pipeline).adapt(rows)}


@contextmanager
def remembering(scale: Scale) -> Iterator[Calls]:
    """One more example for a memory of 1,600 texts."""
    n = scale.of(1600, 8)
    rows = scale.rows("banking77", "train", n + 100, text_row)
    model = FewShotClassifier.from_pretrained(scale.encoder, learner="nearest_neighbour").adapt(rows[:n])
    more = iter(rows[n:])
    yield {f"one at {n:,}": lambda: model.memory.add([next(more)])}


@contextmanager
def store(scale: Scale) -> Iterator[Calls]:
    """Adding a key to a store of 100,000 and searching it, twenty times."""
    n, width, numbers = scale.of(100_000, 200), scale.of(384, 8), count()
    keys = torch.randn(n + 1000, width, generator=torch.Generator().manual_seed(0))
    memory = MemoryStore(width)
    memory.remember(keys[:n], [Entry(label=str(i % 7), text=f"w{i}") for i in range(n)])

    def add_and_search() -> None:
        for _ in range(20):
            i = next(numbers) % 1000
            memory.remember(keys[n + i : n + i + 1], [Entry(label="new")])
            memory.search(keys[i : i + 1], 8)

    yield {f"20 times add and search at {n:,}": add_and_search}


@contextmanager
def translation(scale: Scale) -> Iterator[Calls]:
    """64 texts with 4 beams, plain and with a memory of 100,000 keys."""
    n_keys, n_texts = scale.of(100_000, 40), scale.of(64, 2)
    pairs = [r["translation"] for r in scale.rows("d365_finance_de_en", "test", n_texts, pair_row)]
    texts = [pair["de" if scale.small is None else "xx"] for pair in pairs]
    rows = scale.rows("d365_finance_de_en", "train", scale.of(n_keys // 16, 12), pair_row)
    source = None if scale.small is None else scale.small["seq2seq"]
    options: dict[str, Any] = {"task_config": {"num_beams": 4}}
    plain = FewShotTranslator.from_pretrained(source, **options)
    memory = FewShotTranslator.from_pretrained(
        source, learner="nearest_neighbour", learner_config={"search": "faiss"}, **options
    ).adapt(rows)
    state = memory._model.adapted.state
    for name in ("keys", "values"):
        state[name] = state[name][:n_keys].clone()
    yield {"4 beams, plain": lambda: plain.predict(texts), "4 beams, memory": lambda: memory.predict(texts)}


BENCHMARKS: dict[str, Callable[[Scale], AbstractContextManager[Calls]]] = {
    "starting": starting,
    "loading": loading,
    "classification": classification,
    "entities": entities,
    "answers": answers,
    "remembering": remembering,
    "store": store,
    "translation": translation,
}
