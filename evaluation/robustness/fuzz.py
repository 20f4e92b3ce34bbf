"""Random rows, inputs and settings through `adapt` and `predict` of every task, with tiny models.

    export OMP_NUM_THREADS=1 PYTHONPATH=tests
    python evaluation/robustness/fuzz.py --cases 5000 --out fuzz.jsonl
    python evaluation/robustness/fuzz.py --only 17

A case is a function of seed and number. It must end in predictions of the right form (one for each input, offsets that
cut the text, finite probabilities in [0, 1]) or in a `FewShotError` with a message of at most 400 characters, and must
leave every weight of the encoder as it was. Whatever else happens is a failure, and is listed with its number.
"""

import argparse
import json
import logging
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import draws
import numpy as np
import torch
from conftest import make_tiny_encoder, make_tiny_translator

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, FewShotQA, FewShotTranslator
from fewshot_nlp.backbone import BACKBONES
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.rows import REPLACEMENT
from fewshot_nlp.tasks import TASKS

MODELS: Mapping[str, type[FewShotModel]] = {
    "classification": FewShotClassifier,
    "ner": FewShotNER,
    "question_answering": FewShotQA,
    "translation": FewShotTranslator,
}
LONGEST_MESSAGE = 400
T = TypeVar("T")
QUICK = {
    "contrastive": {"steps": 4},
    "fine_tune": {"steps": 4},
    "progressive": {"steps": 4},
    "reptile": {"inner_steps": 2},
}
"""Settings that only shorten a case."""


class WrongError(AssertionError):
    """A result that is not of the right form."""


def need(holds: bool, told: str) -> None:
    """Raises `WrongError` unless something holds."""
    if not holds:
        raise WrongError(told)


def make_folders(root: Path) -> dict[str, Path]:
    """The tiny model of each kind of backbone, in new folders."""
    return {"encoder": make_tiny_encoder(root / "encoder"), "seq2seq": make_tiny_translator(root / "seq2seq")}


class Case:
    """One case: what was refused on its way, and with which messages.

    Args:
        seed: of all cases.
        number: of this one.
        folders: of the tiny models.
    """

    def __init__(self, seed: int, number: int, folders: Mapping[str, Path]) -> None:
        self.draw = np.random.default_rng([seed, number])
        self.folders = folders
        self.task: str = draws.one(self.draw, MODELS)
        own = TASKS.get(self.task).backbone == "seq2seq" and self.draw.random() < 0.9
        names = [n for n in LEARNERS.names() if not own or LEARNERS.get(n).head_use == "built_on"]
        self.learner: str = draws.one(self.draw, names)
        self.form: str = draws.one(self.draw, draws.FORMS.get(self.task, ["usual"]))
        self.refused: list[str] = []
        self.predicted = False

    def run(self) -> None:
        """Makes a model, adapts it and predicts; whatever is refused is tried again with better values."""
        backbone = TASKS.get(self.task).backbone
        encoder = BACKBONES[backbone].from_pretrained(self.folders[backbone])
        weights = [(p, p.detach().clone()) for p in [*encoder.model.parameters(), *encoder.model.buffers()]]
        model = self._try(lambda bad: self._model(encoder, bad))
        if model is not None and self._try(lambda bad: self._adapt(model, bad)) is not None:
            self._try(lambda bad: self._predict(model, bad))
        for now, before in weights:
            need(torch.equal(now, before), "a weight of the encoder has changed")

    def _try(self, step: Callable[[bool], T]) -> T | None:
        for attempt in range(4):
            try:
                return step(attempt == 0)
            except FewShotError as error:
                self.refused.append(str(error)[:LONGEST_MESSAGE])
                longest = max(map(len, str(error).split("\n")))
                need(0 < longest <= LONGEST_MESSAGE, f"a message of {longest} characters: {str(error)[:200]}")
        return None

    def _model(self, encoder: Any, bad: bool) -> FewShotModel:
        draw, options = self.draw, {"multi_label": True} if self.form.endswith("multi") else {}
        settings = QUICK.get(self.learner, {}) | draws.learner_settings(draw, self.learner, bad)
        options = (draws.task_options(draw, self.task) if bad else {}) | options
        return MODELS[self.task].of(new_pipeline(self.task, options, encoder, self.learner, settings))

    def _adapt(self, model: FewShotModel, bad: bool) -> FewShotModel:
        draw, given = self.draw, None
        rows = draws.rows(draw, self.task, self.form, bad)
        if bad and draw.random() < 0.3:
            given = draws.given_labels(draw)
        if not bad or TASKS.get(self.task).has_labels or draw.random() < 0.8:
            model.adapt(draws.contained(draw, rows), given)
        if draw.random() < 0.1:
            model.add(draws.rows(draw, self.task, self.form, bad))
        return model

    def _predict(self, model: FewShotModel, bad: bool) -> bool:
        CHECKS[self.task](self.draw, model, draws.inputs(self.draw, self.task, self.form, bad), bad)
        self.predicted = True
        return True


def run_case(seed: int, number: int, folders: Mapping[str, Path]) -> dict[str, Any]:
    """One case.

    Returns:
        Task, learner, whether it came to predictions, how many calls were refused on the way, seconds; and "error",
        where something else happened.
    """
    begin, case, told = time.perf_counter(), Case(seed, number, folders), {}
    try:
        case.run()
    except Exception as error:  # noqa: BLE001 - whatever else happens is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = {
            "error": f"{type(error).__name__}: {error}"[:400],
            "at": f"{Path(where.filename).name}:{where.lineno}",
        }
    return {
        "case": number,
        "task": case.task,
        "learner": case.learner,
        "predicted": case.predicted,
        "refused": case.refused,
        **told,
        "seconds": round(time.perf_counter() - begin, 2),
    }


def check_classification(draw: draws.Draw, model: FewShotModel, inputs: list[Any], bad: bool) -> None:
    """Known labels, and probabilities."""
    found, table = model.predict(draws.contained(draw, inputs)), model.predict_proba(inputs)
    need(len(found) == len(inputs), f"{len(found)} predictions of {len(inputs)} inputs")
    need(table.shape == (len(inputs), len(model.labels)), f"probabilities of the shape {table.shape}")
    need(
        bool(np.isfinite(table).all() and (table >= 0).all() and (table <= 1).all()), f"probabilities {table}"
    )
    several = model.pipeline.task.to_dict()["multi_label"]
    for labels in found if several else ([] if label is None else [label] for label in found):
        need(all(label in model.labels for label in labels), f"the labels {labels}")
    need(several or np.allclose(table.sum(axis=1), 1, atol=1e-4), f"sums {table.sum(axis=1)}")


def check_ner(draw: draws.Draw, model: FewShotModel, inputs: list[Any], bad: bool) -> None:
    """Entities that stand where they say, in order."""
    found = model.predict(draws.contained(draw, inputs))
    need(len(found) == len(inputs), f"{len(found)} predictions of {len(inputs)} inputs")
    for value, entities in zip(inputs, found, strict=True):
        whole, end = _read(value), 0
        for entity in entities:
            need(end <= entity["start"] < entity["end"], f"places of {entities}")
            end = entity["end"]
            need(whole[entity["start"] : end] == entity["word"], f"{entity} in {whole!r}")
            need(0 <= entity["score"] <= 1 + 1e-5, f"the score of {entity}")
            need(entity["entity_group"] in model.labels, f"the type of {entity}")


def check_question_answering(draw: draws.Draw, model: FewShotModel, inputs: list[Any], bad: bool) -> None:
    """Answers that stand in their contexts."""
    top = draws.one(draw, [None, None, 1, 3, 0, 2000]) if bad else None
    found = model.predict(draws.contained(draw, inputs), top_n=top)
    need(len(found) == len(inputs), f"{len(found)} predictions of {len(inputs)} inputs")
    for value, answer in zip(inputs, found, strict=True):
        context = _whole(value["context"] if isinstance(value, dict) else value[1])
        for each in [answer, *answer.get("n_best", [])]:
            need(context[each["start"] : each["end"]] == each["answer"], f"{each} in {context!r}")
            need(0 <= each["score"] <= 1 + 1e-9, f"the score of {each}")
        need(0 <= answer.get("no_answer_score", 0) <= 1 + 1e-9, f"no answer: {answer}")


def check_translation(draw: draws.Draw, model: FewShotModel, inputs: list[Any], bad: bool) -> None:
    """Texts."""
    terms = {"glossary": draws.glossary(draw, bad)} if draw.random() < 0.3 else {}
    found = model.predict(draws.contained(draw, inputs), **terms)
    need(len(found) == len(inputs), f"{len(found)} predictions of {len(inputs)} inputs")
    need(all(isinstance(each, str) for each in found), f"translations {found}")


CHECKS = {
    "classification": check_classification,
    "ner": check_ner,
    "question_answering": check_question_answering,
    "translation": check_translation,
}


def _read(value: Any) -> str:
    """The text that the offsets of entities count in."""
    if isinstance(value, Mapping):
        value = value["tokens"] if "tokens" in value else value["text"]
    return _whole(value if isinstance(value, str) else " ".join(value))


def _whole(text: str) -> str:
    """The text with the sign for half a surrogate pair."""
    return "".join(REPLACEMENT if "\ud800" <= c <= "\udfff" else c for c in text)


def run(seed: int, numbers: range) -> Iterator[dict[str, Any]]:
    """The records of some cases."""
    logging.getLogger("fewshot_nlp").setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as root:
        warnings.simplefilter("ignore")
        folders = make_folders(Path(root))
        for number in numbers:
            yield run_case(seed, number, folders)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, whose error is shown in full")
    parser.add_argument("--out", type=Path, help="JSON lines: a record of each case")
    given = parser.parse_args()
    numbers = range(given.start, given.start + given.cases)
    if given.only is not None:
        numbers = range(given.only, given.only + 1)
    counts: Counter[str] = Counter()
    for record in run(given.seed, numbers):
        counts["cases"] += 1
        counts["predicted"] += record["predicted"]
        counts["refused calls"] += len(record["refused"])
        counts["failed"] += "error" in record
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
        if given.only is not None or "error" in record or record["seconds"] > 60:
            print(json.dumps(record), flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main()
