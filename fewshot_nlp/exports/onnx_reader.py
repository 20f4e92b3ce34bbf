"""Reads an exported model with onnxruntime, tokenizers, numpy and, for entities, regex; nothing else is needed.

python predict.py "a text" "another"
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from fewshot_nlp.exports.graph_inputs import graph_inputs
from fewshot_nlp.slots import hashed_tokens
from fewshot_nlp.tasks.answers import best_answer, context_slots
from fewshot_nlp.tasks.entities import decoded_tags
from fewshot_nlp.tasks.tags import word_shapes
from fewshot_nlp.tokenization.segmentation import split_words
from fewshot_nlp.tokenization.windows import Windows
from fewshot_nlp.tokenization.words import place_words, word_slots


class Reader:
    """An exported model: ``Reader(folder)(inputs)``.

    Args:
        folder: with ``model.onnx``, ``tokenizer.json`` and ``fewshot_onnx.json``.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.config = json.loads((folder / "fewshot_onnx.json").read_text(encoding="utf-8"))
        self.task = self.config["task_config"]
        self.labels = self.config["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Iterable[Any], batch_size: int = 32) -> list[Any]:
        """Predictions, in order, in the form of the package's own.

        Args:
            inputs: texts or pairs of texts for labels; texts or lists of words for entities; pairs of a question and
                its context, or dictionaries with both, for answers. None may be empty.
            batch_size: inputs that are computed at once.
        """
        read = getattr(self, f"_{self.config['task']}")
        given = list(inputs)
        sizes = [len(str(one)) for one in given]  # a batch is padded to its longest
        order = sorted(range(len(given)), key=sizes.__getitem__)
        found: list[Any] = [None] * len(given)
        for start in range(0, len(given), batch_size):
            places = order[start : start + batch_size]
            predicted = read([given[i] for i in places])
            for place, prediction in zip(places, predicted, strict=True):
                found[place] = prediction
        return found

    def texts(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Windows:
        """Windows of tokens; of pairs the first text is whole in each."""
        limit, stride = self.config["max_length"], self.config["stride"]
        if pairs is not None:
            self.tokenizer.no_truncation()
            longest = max(len(e.ids) for e in self.tokenizer.encode_batch(list(texts)))
            if longest > limit // 2:
                raise ValueError(f"The first text of a pair has {longest} tokens, but may have {limit // 2}.")
        strategy = "longest_first" if pairs is None else "only_second"
        self.tokenizer.enable_truncation(limit, stride=stride, strategy=strategy)
        asked = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        encoded = [[e, *e.overflowing] for e in self.tokenizer.encode_batch(asked)]
        windows = [e for parts in encoded for e in parts]
        return Windows(
            ids=[e.ids or [self.config["unknown"]] for e in windows],
            types=[e.type_ids for e in windows] if self.config["types"] and pairs is not None else None,
            owner=np.repeat(np.arange(len(encoded)), [len(parts) for parts in encoded]),
            encodings=windows,
            stride=stride,
        )

    def _scores(self, windows: Any, types: Any, spans: Any, groups: Any, mode: str, shape: Any = None) -> Any:
        keys = self.config["labelled"]
        found = None if keys is None else np.isin(hashed_tokens(windows, spans, len(groups)), keys)
        given = graph_inputs(windows, types, spans, groups, mode, self.config["pad"], shape, found)
        return self.session.run(None, {name: given[name] for name in self.config["inputs"]})[0]

    def _classification(self, inputs: Sequence[Any]) -> list[Any]:
        paired = not isinstance(inputs[0], str)
        cut = self.texts(*zip(*inputs, strict=True)) if paired else self.texts(inputs)
        index = np.arange(len(cut.ids))
        spans = np.stack([cut.owner, index, index * 0, np.array([len(row) for row in cut.ids])], axis=1)
        scores = self._scores(cut.ids, cut.types, spans, np.arange(len(inputs)), self.config["pooling"])
        if self.task["multi_label"]:
            chances = 1 / (1 + np.exp(-scores))
            return [
                [label for label, p in zip(self.labels, row, strict=True) if p >= self.task["threshold"]]
                for row in chances
            ]
        return [self.labels[i] for i in scores.argmax(axis=1)]

    def _ner(self, inputs: Sequence[Any]) -> list[Any]:
        cuts = self.task["cuts"]
        texts = [
            ([i[a:b] for a, b in split_words(i, cuts)], i) if isinstance(i, str) else (list(i), None)
            for i in inputs
        ]
        cutter: Any = self
        slots = word_slots(cutter, [place_words(*text) for text in texts])
        shapes = word_shapes([words for words, _ in texts])
        scores = self._scores(slots.windows, None, slots.spans, slots.groups, self.task["pooling"], shapes)
        top = scores.max(axis=1, keepdims=True)
        log = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        per_type = 1 if self.task["scheme"] == "io" else 2
        classes = self.labels if per_type == 1 else [f"{p}-{name}" for name in self.labels for p in "BI"]
        rule = {name: np.array(value, np.float32) for name, (value, _) in self.config["decoding"].items()}
        found = decoded_tags(texts, log, slots.groups, ["O", *classes], per_type, rule)
        return [entities for _, entities in found]

    def _question_answering(self, inputs: Sequence[Any]) -> list[Any]:
        asked = [(i["question"], i["context"]) if isinstance(i, dict) else tuple(i) for i in inputs]
        cut = self.texts([q for q, _ in asked], [context for _, context in asked])
        spans, characters, n_slots = context_slots(cut, len(asked))
        groups = np.repeat(np.arange(len(asked)), n_slots)
        scores = self._scores(cut.ids, cut.types, spans, groups, "mean").astype(np.float64)
        decoding = {name: value for name, (value, _) in self.config["decoding"].items()}
        longest = int(decoding.get("max_answer_tokens", self.task["max_answer_tokens"]))
        fixed = self.task["null_threshold"]
        threshold = decoding.get("null_threshold", np.inf if fixed is None else fixed)
        ends = np.cumsum(n_slots)
        found = [
            best_answer(context, scores[a:b], characters[a:b], longest, threshold, self.task["n_best"])
            for (_, context), a, b in zip(asked, [0, *ends[:-1]], ends, strict=True)
        ]
        return [{key: answer[key] for key in ("answer", "score", "start", "end")} for answer in found]


if __name__ == "__main__":
    for prediction in Reader(Path(__file__).parent)(sys.argv[1:]):
        print(json.dumps(prediction, ensure_ascii=False))
