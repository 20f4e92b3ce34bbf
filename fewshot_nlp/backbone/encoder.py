"""A Hugging Face encoder seen as an extractor of one feature vector a slot."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.backbone.adapters import without_adapter
from fewshot_nlp.backbone.batching import chunks
from fewshot_nlp.backbone.bundled import HUB_NAME, bundled_folder, resolve
from fewshot_nlp.backbone.cache import FeatureCache, spans_by_cache, weight_versions
from fewshot_nlp.backbone.hidden_states import HiddenStates
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.backbone.loading import json_files, layer_numbers, load_model
from fewshot_nlp.backbone.pooling import TextPooling, check_pooling, chunk_spans, join_spans, pool_spans
from fewshot_nlp.backbone.sentence_files import lower_cased, read_hints
from fewshot_nlp.backbone.window_limit import window_limit
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.tokenization.windows import WindowTokenizer


class Encoder(HiddenStates):
    """Features of slots by a Hugging Face encoder, with or without an adapter, packed where the model allows.

    Adapting never changes the encoder's weights: fast weights are passed to `features` and used by
    `torch.func.functional_call`.

    Args:
        model: a Hugging Face encoder.
        tokenizer: its fast tokenizer.
        name: folder or Hub name that it was loaded from.
        revision: Hub revision.
        layers: hidden layers whose outputs are concatenated; 0 is the embeddings, -1 the last layer, and a float
            a share of the depth (0.5 is the middle layer).
        pooling: how a whole text becomes one vector: "mean" or another mode of `pool_spans`.
        max_length: tokens in a window; longer texts are split into overlapping windows. None: ``usual_length``.
        usual_length: window from the model's files, cut to what it can read; None for all of that.
    """

    setting_types = MappingProxyType({"layers": list, "pooling": str, "max_length": int})
    token_budget = 2048
    """Tokens in one forward pass."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        layers: Sequence[int | float] = (-1,),
        pooling: TextPooling = "mean",
        max_length: int | None = None,
        usual_length: int | None = None,
    ) -> None:
        self.pooling = check_pooling(pooling)
        limit = window_limit(model.eval(), tokenizer)
        if max_length is not None and max_length > limit:
            raise FewShotError(f"max_length {max_length} is over the encoder's window of {limit} tokens.")
        windows = WindowTokenizer(tokenizer, max_length or min(usual_length or limit, limit))
        numbers = layer_numbers(layers, model.config.num_hidden_layers)
        super().__init__(model, windows, numbers, name, revision)
        self.cache: FeatureCache | None = None
        self._lasting: tuple[Any, FeatureCache] | None = None
        self._n_caching = 0  # blocks that share the cache, perhaps of several threads

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        revision: str | None = None,
        dtype: Any = None,
        attn_implementation: str | None = None,
        device_map: Any = None,
        layers: Sequence[int | float] = (-1,),
        pooling: TextPooling | None = None,
        max_length: int | None = None,
    ) -> "Encoder":
        """Loads an encoder from a folder or the Hub; without a name the bundled one.

        Args:
            name: folder, Hub name, or None for all-MiniLM-L6-v2 (from the installed `offline` extra, its
                checksum verified, else from the Hub).
            revision: Hub revision (branch, tag or commit).
            dtype: weights' type, e.g. `torch.bfloat16`; default float32.
            attn_implementation: transformers' attention; the default packs windows where the model allows.
            device_map: as in transformers, e.g. "cuda"; default the CPU.
            layers: as for the class.
            pooling: as for the class; default from the model's sentence-transformers files, else mean.
            max_length: as for the class; default from the model's files.

        Raises:
            FewShotError: there is no such model, its files are damaged or unsafe, or there is no network.
        """
        source = resolve(None if name is None else str(name), revision)
        model, tokenizer, numbers = load_model(
            source,
            layers,
            revision=revision,
            dtype=dtype,
            attn_implementation=attn_implementation,
            device_map=device_map,
        )
        hints = read_hints(source, json_files(source, revision), pooling)
        return cls(
            model,
            lower_cased(tokenizer) if hints.lower_case else tokenizer,
            name=source,
            revision=revision,
            layers=numbers,
            pooling=hints.pooling or "mean",
            max_length=max_length,
            usual_length=hints.max_length,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Layers, pooling and window."""
        return {
            "layers": list(self.layers),
            "pooling": self.pooling,
            "max_length": self.tokenizer.max_length,
        }

    @property
    def public_name(self) -> str | None:
        """The Hub name, also of the bundled encoder; None for a folder and for trained weights."""
        if self.trained:
            return None
        if Path(self.name).is_absolute() or Path(self.name).exists():
            bundled = bundled_folder()
            return HUB_NAME if bundled is not None and self.name == str(bundled) else None
        return self.name

    def _identity(self) -> tuple[Any, ...]:
        return self.layers, self.pooling, self.tokenizer.max_length

    def mark_trained(self) -> None:
        """To be called after changing the base weights, so that they are saved with a model."""
        super().mark_trained()
        if self.cache is not None:
            self.cache.clear()

    @contextmanager
    def cached(self, max_bytes: int = 512 * 2**20, *, lasting: bool = False) -> Iterator[FeatureCache]:
        """Context in which features are cached by text, for passes without fast weights and gradients.

        Args:
            max_bytes: bound on the memory; the least recently used entries are dropped.
            lasting: begin with what the last such context held, if neither weights nor settings have changed.
        """
        with self.alone():
            self._n_caching += 1
            self.cache = cache = self.cache or (
                self._lasting_cache(max_bytes) if lasting else FeatureCache(max_bytes)
            )
        try:
            yield cache
        finally:
            with self.alone():
                self._n_caching -= 1
                self.cache = cache if self._n_caching else None

    def _lasting_cache(self, max_bytes: int) -> FeatureCache:
        """The cache that outlives its context; a new one after any change of weights or settings."""
        state = (self._identity(), self._outputs, *weight_versions(self.model))
        if self._lasting is None or self._lasting[0] != state:
            self._lasting = state, FeatureCache(max_bytes)
        return self._lasting[1]

    def features(
        self,
        batch: SlotBatch,
        fast_weights: Mapping[str, Tensor] | None = None,
        *,
        double_backward: bool = False,
    ) -> Float[Tensor, "n_slots dimension"]:
        """One vector a slot; see `Backbone.features`."""
        return self._read(batch, fast_weights, double_backward)[:, : self.dimension]

    def views(
        self, batch: SlotBatch, fast_weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "n_slots dimension"], Float[Tensor, "n_slots hidden"]]:
        """`features`, and the head's input: its layer's output without fast weights. One pass if none are given."""
        if self.head is None:
            return super().views(batch, fast_weights)
        read = self._read(batch, None, False)
        features = self.features(batch, fast_weights) if fast_weights else read[:, : self.dimension]
        return features, self._head_view(read, self.head)

    def choose_layers(self, layers: Sequence[int | float]) -> None:
        """Changes the layers that features are read from; they may be frozen or trained.

        Args:
            layers: as for `from_pretrained`, among the loaded layers.
        """
        self.layers = layer_numbers(layers, int(self.model.config.num_hidden_layers))
        self._fingerprint = None
        if self.cache is not None:
            self.cache.clear()

    @torch.no_grad()
    def name_vectors(self, batch: SlotBatch) -> Float[Tensor, "n_slots hidden"]:
        """Head input for slots of label names: its layer's output, or the features, without the adapter."""
        with self.alone(), without_adapter(self.model):
            vectors = self._spans(batch, range(len(batch.windows)), None, False)
        return join_spans(vectors if self.head is None else self._head_view(vectors, self.head), batch)

    def _head_view(self, read: Float[Tensor, "n wide"], head: LabelNameHead) -> Float[Tensor, "n hidden"]:
        """The output of the head's layer, among all outputs of a pass."""
        width, at = int(self.model.config.hidden_size), self._outputs.index(head.layer)
        return read[:, at * width : (at + 1) * width]

    def _read(
        self, batch: SlotBatch, fast_weights: Mapping[str, Tensor] | None, double_backward: bool
    ) -> Float[Tensor, "n_slots wide"]:
        """One vector a slot, of all outputs of a pass."""
        if double_backward:
            self._second_order()
        with self.alone():
            trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.model.parameters())
            if self.cache is not None and not fast_weights and not trains:
                vectors = spans_by_cache(self.cache, batch, lambda w: self._spans(batch, w, None, False))
            else:
                vectors = self._spans(batch, range(len(batch.windows)), fast_weights, double_backward)
        return join_spans(vectors, batch)

    def _spans(
        self,
        batch: SlotBatch,
        windows: Sequence[int],
        fast_weights: Mapping[str, Tensor] | None,
        double_backward: bool,
    ) -> Tensor:
        """Pooled vectors of the spans of some windows (ascending numbers), in the order of the spans."""
        mode = self.pooling if batch.pooling == "text" else batch.pooling
        rows, order = [], []
        for chunk in chunks([len(batch.windows[i]) for i in windows], self.token_budget):
            numbers = [windows[j] for j in chunk]
            ids = [batch.windows[i] for i in numbers]
            types = None if batch.types is None else [batch.types[i] for i in numbers]
            hidden = self._again(self.hidden_states, ids, types, fast_weights, double_backward)
            spans, chosen = chunk_spans(batch, numbers)
            rows.append(pool_spans(hidden, spans, mode))
            order.append(chosen)
        if not rows:
            wide = int(self.model.config.hidden_size) * len(self._outputs)
            return torch.zeros(0, wide, device=self.device, dtype=self.feature_dtype)
        return torch.cat(rows)[torch.from_numpy(np.argsort(np.concatenate(order))).to(self.device)]
