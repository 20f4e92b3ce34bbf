"""One forward pass of a Hugging Face encoder: packed or padded, whole or above layers whose output is kept."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone.base import Backbone
from fewshot_nlp.backbone.cache import FeatureCache
from fewshot_nlp.backbone.frozen_layers import LayerStack, LowerLayers, SharedLayers, frozen_depth
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.backbone.packing import (
    packed_inputs,
    padded_inputs,
    pads_soundly,
    trial_windows,
    try_packing,
)
from fewshot_nlp.errors import logger
from fewshot_nlp.tokenization.windows import WindowTokenizer


class HiddenStates(Backbone):
    """The part of an encoder that runs its layers.

    Args:
        model: a Hugging Face encoder.
        tokenizer: its tokenizer.
        layers: indices of the layers whose outputs are concatenated.
        name: folder or Hub name that it was loaded from.
        revision: Hub revision.
    """

    head: LabelNameHead | None = None
    """A head of label names that was trained with the adapter."""
    lower: LowerLayers | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: WindowTokenizer,
        layers: tuple[int, ...],
        name: str,
        revision: str | None,
    ) -> None:
        super().__init__(model, name, revision)
        self.tokenizer, self.layers = tokenizer, layers
        self._shared: dict[int, SharedLayers] = {}  # by thread
        self._divided: tuple[LayerStack, str | None] | None = None
        self.pads = True
        self.packed = False
        self.packed = try_packing(model, self._trial)
        self.pads = self.packed or pads_soundly(model, tokenizer, self.hidden_states)

    @property
    def dimension(self) -> int:
        """Length of a feature vector."""
        return int(self.model.config.hidden_size) * len(self.layers)

    @property
    def _outputs(self) -> tuple[int, ...]:
        """Layers whose output a pass returns: those of the features, and that of the head of label names."""
        if self.head is None or self.head.layer in self.layers:
            return self.layers
        return (*self.layers, self.head.layer)

    @contextmanager
    def cache_frozen_layers(self, max_bytes: int = 512 * 2**20) -> Iterator[FeatureCache | None]:
        """Context in which the output of the layers below the lowest trainable one is cached by text.

        Passes with gradients or fast weights use it too: they begin at the lowest adapted layer. Training with
        dropout does not.

        Args:
            max_bytes: bound on the memory; the least recently used entries are dropped.

        Yields:
            The cache; None for a model whose layers cannot be run separately, which is logged.
        """
        cache, before = FeatureCache(max_bytes), self.lower
        stack, obstacle = self._divide()
        lower = LowerLayers(stack, self._pass, self.packed, cache)
        if obstacle is not None:
            logger.info("%s keeps no activations: %s.", self.model.config.model_type, obstacle)
        self.lower = None if obstacle else lower
        try:
            yield None if obstacle else cache
        finally:
            self.lower = before

    @contextmanager
    def sharing_lower_layers(self, max_bytes: int = 256 * 2**20) -> Iterator[None]:
        """Context in which two passes of this thread over the same batch run the frozen lower layers once.

        Args:
            max_bytes: bound on the memory; what is over it is computed twice.
        """
        stack, obstacle = self._divide()
        if obstacle is None:
            self._shared[get_ident()] = SharedLayers(stack, self._pass, max_bytes)
        try:
            yield
        finally:
            self._shared.pop(get_ident(), None)

    def _divide(self) -> tuple[LayerStack, str | None]:
        """The stack of layers, and why its lower part cannot be run by itself; tried once."""
        with self.alone():  # layers are left out meanwhile
            if self._divided is None:
                stack = LayerStack(self.model)
                lower = LowerLayers(stack, self._pass, self.packed, FeatureCache(0))
                windows = trial_windows(self.tokenizer, self.model.config.vocab_size)
                self._divided = stack, lower.obstacle(windows)
            return self._divided

    def hidden_states(
        self,
        ids: Sequence[Sequence[int]],
        types: Sequence[Sequence[int]] | None = None,
        fast_weights: Mapping[str, Tensor] | None = None,
        double_backward: bool = False,
    ) -> Float[Tensor, "n_tokens dimension"]:
        """Hidden states of all tokens of some windows, concatenated, in one forward pass."""
        with self.alone():
            lower = self.lower or self._shared.get(get_ident())
            depth = 0 if lower is None or self.model.training else self._frozen_depth(fast_weights)
            if lower is None or not depth:
                return self._pass(ids, types, fast_weights, double_backward)
            below = lower(ids, types, depth, self.device)
            with lower.stack.above(depth, below):
                return self._pass(ids, types, fast_weights, double_backward)

    def _frozen_depth(self, fast_weights: Mapping[str, Tensor] | None) -> int:
        """Number of layers below all trainable ones and below those whose output is read."""
        moving = (*self.adapter, *(fast_weights or ()))
        return min(frozen_depth(self.model, moving, self.model.config.num_hidden_layers), *self._outputs)

    def _trial(self, packed: bool) -> Tensor:
        """Hidden states of the trial windows."""
        self.packed = packed
        return self.hidden_states(trial_windows(self.tokenizer, self.model.config.vocab_size))

    def _pass(
        self,
        ids: Sequence[Sequence[int]],
        types: Sequence[Sequence[int]] | None,
        fast_weights: Mapping[str, Tensor] | None = None,
        double_backward: bool = False,
    ) -> Float[Tensor, "n_tokens dimension"]:
        """One forward pass through the layers that are not skipped."""
        lengths = [len(row) for row in ids]
        if not self.pads and len(set(lengths)) > 1:
            return self._pass_by_length(ids, types, fast_weights, double_backward)
        if self.packed:
            inputs = packed_inputs(self.model, ids, types, self.device, double_backward=double_backward)
        else:
            inputs = padded_inputs(ids, types, self.tokenizer.tokenizer.pad_token_id or 0, self.device)
        only_last = self._outputs == (self.model.config.num_hidden_layers,)
        inputs["output_hidden_states"] = not only_last
        written_out = double_backward and not self.packed
        output = self._call(self.model, fast_weights, math_attention=written_out, **inputs)
        if only_last:
            hidden = output.last_hidden_state
        else:
            hidden = torch.cat([output.hidden_states[layer] for layer in self._outputs], dim=-1)
        hidden = hidden.to(self.feature_dtype)
        tokens: Tensor = hidden[0] if self.packed else hidden[inputs["attention_mask"].bool()]
        return tokens

    def _pass_by_length(
        self,
        ids: Sequence[Sequence[int]],
        types: Sequence[Sequence[int]] | None,
        fast_weights: Mapping[str, Tensor] | None,
        double_backward: bool,
    ) -> Float[Tensor, "n_tokens dimension"]:
        """One pass for each window length, for a model whose output depends on padding."""
        parts: dict[int, Tensor] = {}
        for length in sorted({len(row) for row in ids}):
            chosen = [i for i, row in enumerate(ids) if len(row) == length]
            some = None if types is None else [types[i] for i in chosen]
            found = self._pass([ids[i] for i in chosen], some, fast_weights, double_backward)
            parts |= dict(zip(chosen, torch.split(found, length), strict=True))
        return torch.cat([parts[i] for i in range(len(ids))])
