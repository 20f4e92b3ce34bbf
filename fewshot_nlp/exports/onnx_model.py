"""Predictions by onnxruntime, from a folder that `export(format="onnx")` wrote; no model of torch is loaded."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.slots import Scores, SlotBatch
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tokenization.windows import WindowTokenizer

GRAPH, CONFIG = "model.onnx", "fewshot_onnx.json"


def sessions() -> Any:
    """The library onnxruntime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise FewShotError('ONNX needs two libraries: pip install "fewshot_nlp[onnx]".') from error
    return onnxruntime


class OnnxModel:
    """An exported model.

    Args:
        folder: what was written.
        providers: of onnxruntime, in order of preference.

    Raises:
        FewShotError: the folder is none, or onnxruntime is missing.
    """

    def __init__(self, folder: str | Path, providers: Iterable[str] = ("CPUExecutionProvider",)) -> None:
        from transformers import AutoTokenizer

        place = user_path(folder)
        if not (place / CONFIG).is_file():
            raise FewShotError(f"{folder} has no {CONFIG}; write it with export(folder, format='onnx').")
        self.config: dict[str, Any] = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        options = sessions().SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        self.session = sessions().InferenceSession(str(place / GRAPH), options, providers=list(providers))
        self.tokenizer = WindowTokenizer(AutoTokenizer.from_pretrained(place), self.config["max_length"])
        self.task = TASKS.get(self.config["task"]).from_dict(self.config["task_config"], "task_config")
        self.labels = tuple(self.config["labels"])
        self._decoding = {
            name: torch.tensor(value, dtype=getattr(torch, kind.removeprefix("torch.")))
            for name, (value, kind) in self.config["decoding"].items()
        }

    def predict(self, inputs: Iterable[Any], batch_size: int = 32) -> list[Any]:
        """A prediction for each input, as `FewShotModel.predict` gives it.

        Args:
            inputs: as there.
            batch_size: inputs that are computed at once.
        """
        return [self.task.shown(p) for p in self.predictions(inputs, batch_size)]

    def predictions(self, inputs: Iterable[Any], batch_size: int = 32) -> list[dict[str, Any]]:
        """All that the task tells of each input, as `FewShotModel.predictions`."""
        queries = self.task.queries(inputs)
        found = [self.task.abstained(self.labels) if q is None else {} for q in queries]
        filled = [i for i, query in enumerate(queries) if query is not None]
        for start in range(0, len(filled), batch_size):
            places = filled[start : start + batch_size]
            some = [q for i in places if (q := queries[i]) is not None]
            batch = self.task.collate(some, self.labels, self.tokenizer, with_targets=False)
            for i, prediction in zip(
                places, self.task.decode(self.scores(batch), batch, self._decoding), strict=True
            ):
                found[i] = prediction
        return found

    def scores(self, batch: SlotBatch) -> Scores:
        """Scores of the slots of a batch."""
        keys = self.config["labelled"]
        labelled = None if keys is None else np.isin(batch.token_keys, np.array(keys, np.int64))
        given = feeds(batch, self.config["pooling"], labelled, self.tokenizer.tokenizer.pad_token_id or 0)
        [found] = self.session.run(None, {name: given[name] for name in self.config["inputs"]})
        result: Tensor = torch.from_numpy(found)
        return result


def feeds(batch: SlotBatch, pooling: str, labelled: np.ndarray | None, pad: int) -> dict[str, np.ndarray]:
    """Inputs of a graph for a batch.

    Args:
        batch: queries.
        pooling: the encoder's, for whole texts.
        labelled: slots whose tokens the support set labels.
        pad: the token that fills windows.
    """
    longest = max(map(len, batch.windows))

    def padded(rows: Any, fill: int) -> np.ndarray:
        return np.array([[*row, *[fill] * (longest - len(row))] for row in rows], np.int64)

    mode = pooling if batch.pooling == "text" else batch.pooling
    slots, windows, first, last = batch.spans.T
    size = batch.spans[:, 3] - batch.spans[:, 2]
    last = first + 1 if mode == "first" else last
    count = last - first
    place = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    of = np.repeat(np.arange(len(count)), count)
    share = {
        "mean": np.ones(len(of)),
        "first": size[of],
        "sqrt_mean": np.sqrt(size[of]),
        "weighted_mean": 2 * (place + 1) / (size[of] + 1),
    }[mode]
    given = {
        "input_ids": padded(batch.windows, pad),
        "attention_mask": padded([[1] * len(w) for w in batch.windows], 0),
        **({} if batch.types is None else {"token_type_ids": padded(batch.types, 0)}),
        "token": windows[of] * longest + first[of] + place,
        "slot": slots[of],
        "weight": share.astype(np.float32),
        "part": (size[of] / count[of]).astype(np.float32),
        "example": batch.groups.numpy().astype(np.int64),
    }
    if batch.hints.word_shape is not None:
        given["word_shape"] = batch.hints.word_shape.numpy().astype(np.float32)
    if labelled is not None:
        given["labelled"] = labelled
    return given
