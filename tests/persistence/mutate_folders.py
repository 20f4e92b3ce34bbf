"""Mutates saved model folders of the four tasks, and says what loading makes of each.

A damaged folder must predict as it was saved, or be refused in one line. A forged one, whose seal is made again, may
predict something else, but numbers. Neither may raise anything else or take memory. As a program:
``python tests/persistence/mutate_folders.py --count 3000 --seed 0`` prints the figures, and a line for each failure.
"""

import argparse
import json
import logging
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.persistence.model_files import seal

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 1.0, 2.5, -0.5, 1e-30, 1e30, float("nan"), float("inf"), 200_000, 2**31, 2**63,
    10**30, "", "a", "card", "../x", "/etc/passwd", "é\ud800", "float16", "float64", "x" * 5000, [], {}, [[]], [0],
    [-1, 9], ["a", "a"], {"a": 1}, {"": {}}, [None], "kernels-community/flash-attn",
)  # fmt: skip
NAMES = (
    "adapter_config.json",
    "modules.json",
    "vocab.txt",
    "added_tokens.json",
    "pytorch_model.bin",
    "modeling.py",
    ".hidden",
)
LINE = 300
MEMORY = 400 * 1024
"""KiB by which a load may raise the process's highest memory."""


@dataclass(frozen=True)
class Original:
    """A saved model, and what it predicts."""

    face: type[FewShotModel]
    folder: Path
    inputs: list[Any]
    expected: Any


def originals(root: Path, encoders: Mapping[str, Path]) -> list[Original]:
    """A tiny saved model of each task, with ``encoder/``, adapters and remembered examples among them.

    Args:
        root: where to.
        encoders: tiny models by backbone, as of the fixture ``tiny_folders``.
    """
    texts = [
        {"text": t, "label": n} for t, n in (("I lost my card", "card"), ("send money to her", "transfer"))
    ]
    tags = [
        {"tokens": ["Give", "aspirin", "to", "him"], "ner_tags": ["O", "B-DRUG", "O", "O"]},
        {"tokens": ["take", "it", "this", "week"], "ner_tags": ["O", "O", "O", "B-TIME"]},
    ]
    answers = [
        {
            "question": "who sells",
            "context": "the bank pays",
            "answers": {"text": ["the bank"], "answer_start": [0]},
        }
    ]
    pairs = [{"translation": {"xx": "drac", "en": "card"}}, {"translation": {"xx": "yenom", "en": "money"}}]
    asked = [{"question": "who pays", "context": "my judge pays the law"}]
    lora = {"adapter": LoraConfig(r=2, target_modules=["query"])}
    few = {"steps": 2, "scope": "adapter"}
    made: list[tuple[type[FewShotModel], str, dict[str, Any], Any, list[Any]]] = [
        (FewShotClassifier, "nearest_neighbour", {}, texts, ["where is my card"]),
        (FewShotNER, "context_probe", {}, tags, ["give aspirin this week"]),
        (FewShotQA, "fine_tune", {"learner_config": few, **lora}, answers, asked),
        (FewShotTranslator, "nearest_neighbour", {}, pairs, ["drac yenom"]),
    ]
    result = []
    for face, learner, options, rows, inputs in made:
        kind = "seq2seq" if face is FewShotTranslator else "encoder"
        model = face.from_pretrained(encoders[kind], learner=learner, **options).adapt(rows)
        folder = model.save_pretrained(root / face.__name__)
        result.append(Original(face, folder, inputs, model.predict(inputs)))
    return result


def mutate(folder: Path, random: random.Random) -> str:
    """Changes something in a folder; what was done, in words."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "README.md")
    path = random.choice([*files, *(p for p in files if p.name == "fewshot_nlp.json")])
    name = path.relative_to(folder)
    kind = random.choice(
        ("bytes", "cut", "zeros", "file", *(["value"] * 3 + ["key"] * 2 if path.suffix == ".json" else []))
    )
    data = path.read_bytes()
    if not data:  # an earlier mutation left nothing
        return f"{name}: nothing"
    if kind == "bytes":
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 4))):
            changed[random.randrange(len(data))] ^= random.randrange(1, 256)
        path.write_bytes(changed)
    elif kind == "cut":
        path.write_bytes(data[: random.randrange(len(data))])
    elif kind == "zeros":
        start = random.randrange(len(data))
        path.write_bytes(data[:start] + bytes(min(64, len(data) - start)) + data[start + 64 :])
    elif kind == "file":
        return _change_files(folder, path, random)
    else:
        try:
            value = json.loads(data)
        except ValueError:
            return f"{name}: nothing"
        what = _change_value(value, random) if kind == "value" else _change_keys(value, random)
        path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")
        return f"{name}: {what}"
    return f"{name}: {kind}"


def _change_files(folder: Path, path: Path, random: random.Random) -> str:
    name, way = path.relative_to(folder), random.randrange(3)
    if way == 0:
        path.unlink()
        return f"{name}: removed"
    if way == 1:
        other = random.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
        if other != path:
            shutil.copyfile(other, path)
        return f"{name}: {other.name} instead"
    place = random.choice((folder, folder / "encoder"))
    place.mkdir(exist_ok=True)
    added = place / random.choice(NAMES)
    added.write_text(random.choice(("", "{}", "[1]", '{"a": "b"}')))
    return f"{added.relative_to(folder)}: added"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(inner):
        yield value, key
        yield from _places(item)


def _change_value(value: Any, random: random.Random) -> str:
    places = list(_places(value))
    if not places:
        return "nothing"
    where, key = random.choice(places)
    if random.random() < 0.2:
        other, place = random.choice(places)
        where[key], other[place] = other[place], where[key]
        return f"{key} and {place} exchanged"
    old = where[key]
    near = (
        [float(old), old + 1, -old, old * 10**6]
        if type(old) is int
        else [old * 2, -old]
        if type(old) is float
        else []
    )
    where[key] = random.choice([*VALUES, *near * 4])
    if random.random() < 0.03:
        for _ in range(300):
            where[key] = [where[key]]
    return f"{key} = {str(where[key])[:40]!r}"


def _change_keys(value: Any, random: random.Random) -> str:
    places = list(_places(value))
    if not places:
        return "nothing"
    where, key = random.choice(places)
    if random.random() < 0.6:
        del where[key]
        return f"without {key}"
    if isinstance(where, dict):
        added = random.choice(
            (
                "a",
                "num_labels",
                "auto_map",
                "quantization_config",
                "attn_implementation",
                "r",
                "alpha_pattern",
            )
        )
        where[added] = random.choice(VALUES)
        return f"with {added} = {str(where[added])[:40]!r}"
    where.append(random.choice(VALUES))
    return "one more item"


def verdict(original: Original, folder: Path, forged: bool) -> tuple[str, str]:
    """What loading and predicting make of a folder: "equal", "refused", "differs", or "FAILED"; and why."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        found = original.face.from_pretrained(folder).predict(original.inputs)
        equal = found == original.expected
        numbers = [v for p in found if isinstance(p, dict) for v in p.values() if isinstance(v, float)]
        if not np.isfinite(numbers).all():
            return "FAILED", "numbers that are not finite"
        result = (
            ("equal", "")
            if equal
            else ("differs", "")
            if forged
            else ("FAILED", f"predicts {str(found)[:100]}")
        )
    except FewShotError as error:
        told = str(error)
        plain = "\n" not in told and len(told) <= LINE
        result = ("refused", told) if plain else ("FAILED", f"{len(told)} characters: {told[:200]!r}")
    except BaseException as error:  # PanicException of the Rust libraries is none of Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        result = "FAILED", f"{type(error).__name__}: {str(error)[:200]}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return ("FAILED", f"{grown >> 10} MiB more memory") if grown > MEMORY else result


def run(root: Path, models: list[Original], count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Mutates ``count`` copies; how many came to which end, and a line for each failure."""
    ends: Counter[str] = Counter()
    failures = []
    for number in range(count):
        random_ = random.Random(f"{seed} {number}")
        original, forged = models[number % len(models)], number // len(models) % 2 == 1
        folder = Path(shutil.copytree(original.folder, root / "mutated"))
        what = "; ".join(mutate(folder, random_) for _ in range(random_.choice((1, 1, 1, 2))))
        if forged:
            try:
                seal(folder)
            except FewShotError:  # no JSON is left
                forged = False
        end, why = verdict(original, folder, forged)
        ends[f"{'forged' if forged else 'damaged'}, {end}"] += 1
        if end == "FAILED":
            failures.append(f"{number}: {original.face.__name__} {'forged' if forged else ''} {what}: {why}")
        shutil.rmtree(folder)
    return ends, failures


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import make_tiny_encoder, make_tiny_translator

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        encoders = {"encoder": make_tiny_encoder(root / "e"), "seq2seq": make_tiny_translator(root / "s")}
        ends, failures = run(root, originals(root / "models", encoders), options.count, options.seed)
    sys.stdout.write(
        "\n".join([*failures, *(f"{end}: {number}" for end, number in sorted(ends.items()))]) + "\n"
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
