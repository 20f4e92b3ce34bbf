"""Predictions by onnxruntime, from a folder that `export(format="onnx")` wrote; no model of torch is loaded."""

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.exports.graph_inputs import graph_inputs
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.slots import Scores, SlotBatch
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tokenization.windows import WindowTokenizer

GRAPH, CONFIG = "model.onnx", "fewshot_onnx.json"


def library(name: str) -> Any:
    """The library onnx or onnxruntime."""
    try:
        return import_module(name)
    except ImportError as error:
        raise FewShotError('ONNX needs two libraries: pip install "fewshot_nlp[onnx]".') from error


class OnnxModel:
    """An exported model.

    Args:
        folder: what was written.
        providers: of onnxruntime, in order of preference.
        threads: of an operator; 0 for as many as there are cores.

    Raises:
        FewShotError: the folder is none, or onnxruntime is missing.
    """

    def __init__(
        self, folder: str | Path, providers: Iterable[str] = ("CPUExecutionProvider",), threads: int = 0
    ) -> None:
        from transformers import AutoTokenizer

        place = user_path(folder)
        if not (place / CONFIG).is_file():
            raise FewShotError(f"{folder} has no {CONFIG}; write it with export(folder, format='onnx').")
        self.config: dict[str, Any] = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        options.intra_op_num_threads = threads
        self.session = runtime.InferenceSession(str(place / GRAPH), options, providers=list(providers))
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
        sizes = {i: len(str(query.inputs)) for i, query in enumerate(queries) if query is not None}
        filled = sorted(sizes, key=sizes.__getitem__)  # a batch is padded to its longest
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
    """Inputs of a graph for a batch; ``pooling`` is the encoder's, for whole texts."""
    shape = batch.hints.word_shape
    return graph_inputs(
        batch.windows,
        batch.types,
        batch.spans,
        batch.groups.numpy(),
        pooling if batch.pooling == "text" else batch.pooling,
        pad,
        None if shape is None else shape.numpy(),
        labelled,
    )
