"""Separate passes of the layers below the lowest trainable one, so that their output can be cached by text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fewshot_nlp.backbone.adapters import layer_number
from fewshot_nlp.backbone.cache import FeatureCache
from fewshot_nlp.persistence.disk import first_line

Windows = Sequence[Sequence[int]]


class Pass(Protocol):
    """One forward pass of an encoder."""

    def __call__(self, ids: Windows, types: Windows | None) -> Tensor:
        """Hidden states of all tokens of some windows."""


class LayerStack:
    """The stack of a model's layers, some of which can be skipped in a forward pass.

    A skipped layer returns its input. Layers stay in the model, so that parameter names, hooks and
    attributes do not change.

    Args:
        model: a Hugging Face encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        n_layers = model.config.num_hidden_layers  # type: ignore[union-attr]
        stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
        self.layers: Sequence[nn.Module] = tuple(stacks[0]) if len(stacks) == 1 else ()
        self.returned = 0
        """Length of the tuple that a layer returns; 0 where it returns the hidden states alone."""

    @contextmanager
    def below(self, depth: int) -> Iterator[list[Tensor]]:
        """Context in which a pass runs the first ``depth`` layers only; their output is appended to the list."""
        seen: list[Tensor] = []

        def note(hidden: Tensor) -> Tensor:
            seen.append(hidden)
            return hidden

        if depth == len(self.layers):
            with self._outputs(seen):
                yield seen
        else:
            with self._left_out(range(depth, len(self.layers)), note):
                yield seen

    @contextmanager
    def above(self, depth: int, hidden: Tensor) -> Iterator[None]:
        """Context in which a pass runs the layers from ``depth`` on, with ``hidden`` as input of the first of them."""
        with self._left_out(range(depth), lambda _: hidden):
            yield

    def note_form(self, run: Callable[[], Any]) -> None:
        """Finds by one pass in which form the layers return their output."""
        with self._outputs([]):
            run()

    @contextmanager
    def _outputs(self, seen: list[Tensor]) -> Iterator[None]:
        """Appends the last layer's output to a list."""

        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.returned = len(output) if isinstance(output, tuple) else 0
            seen.append(output[0] if self.returned else output)

        handle = self.layers[-1].register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _left_out(self, numbers: range, first: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Skips the layers with these indices; the first of them returns ``first`` of its input."""

        def instead(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return (hidden_states, *[None] * (self.returned - 1)) if self.returned else hidden_states

        def instead_first(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return instead(first(hidden_states))

        chosen = [self.layers[i] for i in numbers]
        try:
            for layer in chosen:
                layer.forward = instead_first if layer is chosen[0] else instead
            yield
        finally:
            for layer in chosen:
                layer.__dict__.pop("forward", None)


class LowerLayers:
    """Output of a model's lower layers for a window, computed once.

    On a CPU each window is run alone, so that the cached bits do not depend on the batch in which a window first
    appears; in a resumed run these batches differ.

    Args:
        stack: the model's layers.
        run: its forward pass.
        packed: whether that pass takes concatenated windows in one row.
        cache: stores the output.
    """

    def __init__(self, stack: LayerStack, run: Pass, packed: bool, cache: FeatureCache) -> None:
        self.stack, self.cache = stack, cache
        self._run, self._packed = run, packed

    @torch.no_grad()
    def __call__(self, ids: Windows, types: Windows | None, depth: int, device: torch.device) -> Tensor:
        """The output of the first ``depth`` layers, in the form that the next layer takes."""
        half = torch.is_autocast_enabled(device.type)
        keys = [
            np.array([depth, half, len(w), *w, *t], np.int32).tobytes()
            for w, t in zip(ids, types or [()] * len(ids), strict=True)
        ]
        found = {key: value for key in dict.fromkeys(keys) if (value := self.cache.get(key)) is not None}
        missing = list({key: i for i, key in enumerate(keys) if key not in found}.values())
        alone = device.type == "cpu"
        groups = [[i] for i in missing] if alone or not missing else [missing]
        for numbers in groups:
            with self.stack.below(depth) as seen:
                self._run([ids[i] for i in numbers], types and [types[i] for i in numbers])
            lengths = [len(ids[i]) for i in numbers]
            rows = torch.split(seen[0][0], lengths) if self._packed else seen[0]
            for i, row, length in zip(numbers, rows, lengths, strict=True):
                found[keys[i]] = row[:length].clone()
                self.cache.put(keys[i], found[keys[i]])
        below = [found[key].to(device) for key in keys]
        return torch.cat(below)[None] if self._packed else pad_sequence(below, batch_first=True)

    @torch.no_grad()
    def obstacle(self, ids: Windows) -> str | None:
        """Why this model's layers cannot be run separately, found by a trial; None if they can."""
        if not self.stack.layers:
            return "its layers are not in one list"
        depth = max(1, len(self.stack.layers) // 2)
        self.stack.note_form(lambda: self._run(ids, None))
        try:
            with self.stack.below(depth) as seen:
                self._run(ids, None)
            with self.stack.above(depth, seen[0]):
                again = self._run(ids, None)
        except (TypeError, ValueError, RuntimeError, IndexError) as refused:
            return first_line(refused)
        return (
            None if torch.equal(again, self._run(ids, None)) else "run apart, its layers give something else"
        )


class SharedLayers:
    """Output of a model's lower layers for chunks of windows that are read twice, with and without fast weights.

    Args:
        stack: the model's layers.
        run: its forward pass.
        max_bytes: bound on the chunks that wait for their second reading; others are computed again.
    """

    def __init__(self, stack: LayerStack, run: Pass, max_bytes: int) -> None:
        self.stack, self._run, self._max_bytes = stack, run, max_bytes
        self._waiting: dict[bytes, Tensor] = {}

    def __call__(self, ids: Windows, types: Windows | None, depth: int, device: torch.device) -> Tensor:
        """The output of the first ``depth`` layers; at the second call that of the first."""
        rows = [[depth, len(w), *w, *t] for w, t in zip(ids, types or [()] * len(ids), strict=True)]
        key = np.concatenate(rows).astype(np.int32).tobytes()
        if key in self._waiting:
            return self._waiting.pop(key)
        with self.stack.below(depth) as seen:
            self._run(ids, types)
        if sum(value.nbytes for value in self._waiting.values()) + seen[0].nbytes <= self._max_bytes:
            self._waiting[key] = seen[0]
        return seen[0]


def frozen_depth(model: nn.Module, moving: Iterable[str], n_layers: int) -> int:
    """Number of lowest layers without a trainable parameter.

    Args:
        model: its parameters that require gradients are trainable.
        moving: names of further trainable parameters.
        n_layers: number of layers; the result if nothing is trainable.
    """
    trained = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return min((layer_number(name) for name in (*moving, *trained)), default=n_layers)
