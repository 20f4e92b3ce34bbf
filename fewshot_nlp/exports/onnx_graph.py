"""Encoder, adapter and head as one ONNX graph: any learner whose scores can be traced, with one or two encoders.

Inputs are the windows of tokens (``input_ids``, ``attention_mask``, perhaps ``token_type_ids``), which tokens make up
which slot (``token``: places in the flattened windows, ``slot``, ``weight``, ``part``), and each slot's example
(``example``). Where the learner reads them also ``word_shape`` and ``labelled``. ``scores`` has a row a slot.
"""

import copy
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.head import PREFIX, split
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.exports.merging import merged
from fewshot_nlp.exports.one_file import one_file
from fewshot_nlp.exports.onnx_model import CONFIG, GRAPH, OnnxModel, feeds, library
from fewshot_nlp.modules.state import fast_weights
from fewshot_nlp.persistence.disk import first_line
from fewshot_nlp.pipeline import TaskModel
from fewshot_nlp.slots import Hints, SlotBatch

OPSET = 17
READER = "predict.py"
"""Predicts by onnxruntime, tokenizers and numpy alone: `onnx_reader` with what it uses, in one file."""
TRACED = "the task's default learner, stacked_probe, linear_probe, prototypical, ridge, bayesian, fine_tune or maml"
"""Learners whose scores can be traced; docs/exports.md lists all."""
SAME = 1e-3
"""Difference of scores, relative to the largest, up to which a graph counts as the model."""


def write_onnx(model: TaskModel, folder: Path, *, int8: bool = False) -> None:
    """Writes ``model.onnx``, the tokenizer, ``fewshot_onnx.json`` for `OnnxModel`, and a reader that stands alone.

    Args:
        model: an adapted model.
        folder: empty.
        int8: weights of linear layers as 8-bit integers, activations quantised as they come (dynamic quantisation).

    Raises:
        FewShotError: onnx or onnxruntime is missing, or the learner's scores cannot be traced.
    """
    for name in ("onnxruntime", "onnx"):
        library(name)
    encoder, task = model.pipeline.learner.encoder, model.pipeline.task
    assert isinstance(encoder, Encoder)
    if encoder.pooling == "max":
        raise FewShotError("Texts are pooled by 'max', which is not exported; take another pooling.")
    inputs = [task.query(value) for value in task.usage.inputs]
    batch, other = (model.pipeline.queries(some, model.labels) for some in (inputs, inputs * 2))
    graph = _Graph(model, batch, encoder)
    given = feeds(
        batch, encoder.pooling, _labelled(model, batch), encoder.tokenizer.tokenizer.pad_token_id or 0
    )
    names = [n for n in given if n in graph.names]
    axes = {n: {i: f"{n}_{i}" for i in range(2 if n in WINDOWS else 1)} for n in names}
    try:
        _teach_exporter()
        with warnings.catch_warnings(), _inside(graph), _silenced():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                tuple(torch.from_numpy(given[n]) for n in names),
                str(folder / GRAPH),
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=["scores"],
                dynamic_axes=axes,
            )
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise FewShotError(
            f"The scores of {model.pipeline.learner.name} cannot be written as a graph ({first_line(error)[:120]}); "
            f"take {TRACED}."
        ) from error
    if int8:
        _quantise(folder / GRAPH)
    encoder.tokenizer.tokenizer.save_pretrained(folder)
    (folder / CONFIG).write_text(json.dumps(_config(model, encoder, names)), encoding="utf-8")
    (folder / READER).write_text(one_file("fewshot_nlp.exports.onnx_reader"), encoding="utf-8")
    _check(model, other, OnnxModel(folder), loose=int8)


def _teach_exporter() -> None:
    """Two operators that it lacks, or gets wrong: the log of a sum of exponentials, and a sum by index."""

    from torch.onnx import symbolic_helper

    def logaddexp(g: Any, a: Any, b: Any) -> Any:
        top = g.op("Max", a, b)
        parts = [g.op("Exp", g.op("Sub", x, top)) for x in (a, b)]
        return g.op("Add", top, g.op("Log", g.op("Add", *parts)))

    def index_add(g: Any, to: Any, dim: Any, index: Any, source: Any, alpha: Any = None) -> Any:
        helper: Any = symbolic_helper
        axis = helper._get_const(dim, "i", "dim")
        other = g.op("Constant", value_t=torch.tensor([1 - axis]))  # of two dimensions
        rows = g.op("Expand", g.op("Unsqueeze", index, other), g.op("Shape", source))
        return g.op("ScatterElements", to, rows, source, axis_i=axis, reduction_s="add")

    exporter: Any = torch.onnx
    exporter.register_custom_op_symbolic("aten::logaddexp", logaddexp, OPSET)
    exporter.register_custom_op_symbolic("aten::index_add", index_add, OPSET)


WINDOWS = ("input_ids", "attention_mask", "token_type_ids")


class _Encoders:
    """Stands in a learner for its encoder, while the graph is traced: the merged models, and the pass's inputs."""

    def __init__(self, encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
        self.layers, self.vocabulary = encoder.layers, None
        self.model, self.tokenizer = encoder.model, encoder.tokenizer
        self.head: Any = copy.copy(encoder.head)
        self._outputs = encoder._outputs
        self._width = int(encoder.model.config.hidden_size)
        self.before = merged(encoder, {})
        self.tuned = merged(encoder, weights) if weights else self.before
        _share(self.before, self.tuned)
        self.given: dict[str, Tensor] = {}
        self._read: dict[bool, Tensor] = {}

    def take(self, given: dict[str, Tensor]) -> None:
        """The inputs of a pass."""
        self.given, self._read = given, {}
        if self.head is not None and "labelled" in given:
            self.head.labelled = lambda batch, state: given["labelled"]

    def _slots(self, tuned: bool) -> Tensor:
        if tuned not in self._read:
            windows = {name: self.given[name] for name in WINDOWS if name in self.given}
            found = (self.tuned if tuned else self.before)(**windows, output_hidden_states=True).hidden_states
            hidden = torch.cat([found[layer] for layer in self._outputs], dim=-1).flatten(0, 1)
            slot, weight = self.given["slot"], self.given["weight"]
            rows = hidden[self.given["token"]] * weight[:, None]
            n, d = self.given["example"].shape[0], hidden.shape[1]
            total = torch.zeros(n, d).scatter_add(0, slot[:, None].expand(-1, d), rows)
            mass = torch.zeros(n).scatter_add(0, slot, self.given["part"])
            self._read[tuned] = total / mass[:, None]
        return self._read[tuned]

    @contextmanager
    def sharing_lower_layers(self) -> Iterator[None]:
        """As an encoder's; a graph has both passes whole."""
        yield

    def features(self, batch: SlotBatch, fast: Mapping[str, Tensor] | None = None, **_: Any) -> Tensor:
        return self._slots(bool(fast))[:, : self._width * len(self.layers)]

    def views(self, batch: SlotBatch, fast: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        at = self._outputs.index(self.head.layer)
        return self.features(batch, fast), self._slots(False)[:, at * self._width : (at + 1) * self._width]


class _Graph(nn.Module):
    """The scores of an adapted model as a function of tensors."""

    def __init__(self, model: TaskModel, batch: SlotBatch, encoder: Encoder) -> None:
        super().__init__()
        self.learner, self.batch = model.pipeline.learner, batch
        self.state = {name: value.detach().cpu() for name, value in model.adapted.state.items()}
        self.encoders = _Encoders(encoder, fast_weights(self.state))
        self.before, self.tuned = self.encoders.before, self.encoders.tuned
        self.names = [*WINDOWS, "token", "slot", "weight", "part", "example"]
        self.names += ["word_shape"] if batch.hints.word_shape is not None else []
        self.names += ["labelled"] if split(self.state)[0] and split(self.state)[1] else []
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor:
        """Scores of slots, from inputs in the order of ``names`` that the batch has."""
        names = [n for n in self.names if n != "token_type_ids" or self.batch.types is not None]
        given = dict(zip(names, tensors, strict=True))
        self.encoders.take(given)
        hints = Hints(word_shape=given.get("word_shape"), coarse=self.batch.hints.coarse)
        batch = replace(
            self.batch, groups=given["example"], hints=hints, windows=[], spans=self.batch.spans[:0]
        )
        return self.learner.query_scores(self.state, batch)


@contextmanager
def _silenced() -> Iterator[None]:
    """Context without standard output, to which the exporter's C++ prints graphs that fail."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def _inside(graph: _Graph) -> Iterator[None]:
    """Context in which the learner, and any learner inside it, reads the graph's encoders."""
    parts = [m for m in graph.learner.modules() if "encoder" in m.__dict__]
    encoder = graph.learner.encoder
    with encoder.alone(), torch.no_grad():
        try:
            for part in parts:
                part.__dict__["encoder"] = graph.encoders
            yield
        finally:
            for part in parts:
                part.__dict__["encoder"] = encoder


def _share(one: nn.Module, other: nn.Module) -> None:
    """Equal weights of two models become the same, so that a graph holds them once."""
    theirs = dict(one.named_parameters())
    for name, parameter in list(other.named_parameters()):
        if parameter is not theirs[name] and torch.equal(parameter, theirs[name]):
            module, _, leaf = name.rpartition(".")
            setattr(other.get_submodule(module), leaf, theirs[name])


def _labelled(model: TaskModel, batch: SlotBatch) -> np.ndarray | None:
    """Which slots have tokens that the support set labels, where a head of label names is mixed in."""
    keys = model.adapted.state.get(PREFIX + "labelled")
    return None if keys is None else np.isin(batch.token_keys, keys.cpu().numpy())


def _config(model: TaskModel, encoder: Encoder, names: list[str]) -> dict[str, Any]:
    task, keys = model.pipeline.task, model.adapted.state.get(PREFIX + "labelled")
    return {
        "task": task.name,
        "task_config": task.to_dict(),
        "labels": list(model.labels),
        "inputs": names,
        "pooling": encoder.pooling,
        "max_length": encoder.tokenizer.max_length,
        "stride": encoder.tokenizer.stride,
        "pad": encoder.tokenizer.tokenizer.pad_token_id or 0,
        "unknown": encoder.tokenizer.nothing[0],
        "types": encoder.tokenizer.has_types,
        "decoding": {n: [v.tolist(), str(v.dtype)] for n, v in model.decoding_parameters.items()},
        "labelled": None if keys is None else keys.tolist(),
    }


def _quantise(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name("whole.onnx")
    path.rename(whole)

    def nothing(record: logging.LogRecord) -> bool:
        return False

    root = logging.getLogger()
    root.addFilter(nothing)  # it advises a step that graphs of torch do not need
    try:
        quantize_dynamic(whole, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    finally:
        root.removeFilter(nothing)
    whole.unlink()


def _check(model: TaskModel, batch: SlotBatch, written: OnnxModel, *, loose: bool) -> None:
    """Raises `FewShotError` where the graph gives other scores for a batch of another size than it was traced with."""
    wanted = batch.log_probabilities(model.adapted.scores(batch).cpu())
    try:
        found = batch.log_probabilities(written.scores(batch))
    except Exception as failure:
        raise FewShotError(
            f"The graph of {model.pipeline.learner.name} takes one number of slots only; take {TRACED}."
        ) from failure
    error = float((found.exp() - wanted.exp()).abs().max())
    if not error < (1.0 if loose else SAME):
        raise FewShotError(
            f"The graph of {model.pipeline.learner.name} gives other probabilities (by {error:.1e}), so it is not "
            f"kept; take {TRACED}."
        )
