"""What all backbones share: base weights that never change, an adapter, fast weights, a fingerprint."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from fewshot_nlp.backbone.adapters import attach
from fewshot_nlp.backbone.batching import PACKED
from fewshot_nlp.backbone.head import Head
from fewshot_nlp.backbone.vocabulary import VocabularyHead
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.locks import shared_lock
from fewshot_nlp.slots import SlotBatch

_KERNELS = shared_lock()
"""Which attention kernels torch may choose is a setting of the whole process."""


class Backbone(ABC):
    """A Hugging Face model seen as an extractor of one feature vector a slot.

    The model's own weights never change by adapting: fast weights are passed to `features` and used by
    `torch.func.functional_call`. Whatever puts other weights or layers into the model for a while does so `alone`, so
    threads may share a backbone.

    Args:
        model: a Hugging Face model.
        name: folder or Hub name that it came from.
        revision: Hub revision.
    """

    setting_types: ClassVar[Mapping[str, type]]
    """The keys of `settings` and their types."""
    tokenizer: Any
    layers: tuple[int, ...] = (-1,)
    head: Head | None = None
    """Scores of classes that the model has before any example, where it has such a head."""

    def __init__(self, model: Any, name: str, revision: str | None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.name, self.revision = name, revision
        self.adapter: dict[str, nn.Parameter] = {}
        self.adapter_config: Any = None
        self.top_layers: int | None = None
        self.trained = False  # whether the base weights were changed after loading
        self.gradient_checkpointing = False
        """Keep no activations of a pass for its gradient, but run it again then (gradient checkpointing, Chen et al.
        2016): the memory of inner loops of many steps for about a third more time."""
        self._lock = shared_lock()
        self._told_of_attention = False
        self._fingerprint: str | None = None

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a feature vector."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Options of `from_pretrained` that features depend on, as JSON."""

    @property
    @abstractmethod
    def public_name(self) -> str | None:
        """The name under which the base weights can be had again; None for weights of one's own."""

    @abstractmethod
    def features(
        self,
        batch: SlotBatch,
        fast_weights: Mapping[str, Tensor] | None = None,
        *,
        double_backward: bool = False,
    ) -> Float[Tensor, "n_slots dimension"]:
        """One vector a slot; differentiable in the fast weights and in parameters that require gradients.

        Args:
            batch: tokenised windows and spans.
            fast_weights: values used instead of the parameters of the same names.
            double_backward: choose attention that can be differentiated twice (fused kernels cannot).
        """

    def views(
        self, batch: SlotBatch, fast_weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "n_slots dimension"], Float[Tensor, "n_slots hidden"]]:
        """`features`, and what the head reads."""
        features = self.features(batch, fast_weights)
        return features, features

    def name_vectors(self, batch: SlotBatch) -> Float[Tensor, "n_slots hidden"]:
        """What the head reads of slots of label names."""
        return self.features(batch)

    @property
    def vocabulary(self) -> VocabularyHead | None:
        """The head, where its classes are the tokens of a vocabulary and not those of a support set."""
        return self.head if isinstance(self.head, VocabularyHead) else None

    @property
    def device(self) -> torch.device:
        """Device of the model's first parameter."""
        parameter: nn.Parameter = next(self.model.parameters())
        return parameter.device

    @property
    def feature_dtype(self) -> torch.dtype:
        """Type of the features: float32, or float64 for a model in float64."""
        return torch.float64 if self.model.dtype == torch.float64 else torch.float32

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the base weights and whatever else features depend on, without the adapter."""
        if self._fingerprint is None:
            digest = hashlib.sha256(repr(self._identity()).encode())
            for name, parameter in sorted(self.parameters().items()):
                if name not in self.adapter:
                    data = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
                    digest.update(data.numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _identity(self) -> tuple[Any, ...]:
        """Whatever features depend on beside the weights."""
        return tuple(self.settings.values())

    def attach(self, config: Any, top_layers: int | None = None, seed: int = 0) -> None:
        """Puts a PEFT adapter into the model (once); it starts as the identity where its method does.

        Args:
            config: any `peft.PeftConfig` whose adapter lives inside the layers.
            top_layers: the last k layers only; None for all.
            seed: for the adapter's initial values.
        """
        if self.adapter:
            raise FewShotError("This encoder has an adapter already; load the encoder again for another one.")
        self._fingerprint = self.fingerprint
        self.adapter = attach(self.model, config, top_layers, seed)
        self.adapter_config, self.top_layers = config, top_layers

    def mark_trained(self) -> None:
        """To be called when the base weights were changed: they are then saved with a model, not only named."""
        self.trained = True
        self._fingerprint = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """All parameters by name: the base model's and the adapter's."""
        with self.alone():  # in the middle of a pass these would be its fast weights
            return dict(self.model.named_parameters())

    def alone(self) -> AbstractContextManager[Any]:
        """In the block no other thread runs the model, changes it, or reads its parameters; blocks may be nested."""
        lock: AbstractContextManager[Any] = self._lock
        return lock

    def _call(
        self,
        module: nn.Module,
        fast_weights: Mapping[str, Tensor] | None,
        *arguments: Any,
        math_attention: bool = False,
        **inputs: Any,
    ) -> Any:
        """One pass of the model or a module made of it, with other weights where they are given.

        Args:
            module: called with what else is given.
            fast_weights: values used instead of the module's parameters of the same names.
            math_attention: let torch choose the attention that can be differentiated twice.
        """
        kernel = sdpa_kernel(SDPBackend.MATH) if math_attention else nullcontext()
        with self.alone(), _KERNELS if math_attention else nullcontext(), kernel:
            if not fast_weights:
                return module(*arguments, **inputs)
            return torch.func.functional_call(module, dict(fast_weights), arguments, inputs)

    @contextmanager
    def cached(self, max_bytes: int = 512 * 2**20) -> Iterator[Any]:
        """Keeps features by text while the block runs, where the backbone can."""
        yield None

    @contextmanager
    def cache_frozen_layers(self, max_bytes: int = 512 * 2**20) -> Iterator[Any]:
        """Keeps, by text, what the layers give that nothing moves in, while the block runs, where the backbone can."""
        yield None

    def _second_order(self) -> None:
        """To be called before a pass that will be differentiated twice: says once that its attention is another one.

        Raises:
            FewShotError: attention that is neither written out nor replaced by one that is.
        """
        kind = str(self.model.config._attn_implementation)
        if kind not in ("eager", "sdpa", PACKED):
            raise FewShotError(
                f"The model was loaded with attn_implementation={kind!r}, which has no second derivative; leave it out "
                "or take 'eager', or set first_order in the learner's settings."
            )
        if kind != "eager" and not self._told_of_attention:
            self._told_of_attention = True
            logger.info(
                "Second derivatives are asked for: attention is written out, since the fused one has none."
            )

    def _again(self, run: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """One pass, to be run again for its gradient where `gradient_checkpointing` is set."""
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return run(*arguments)
        result: Tensor = checkpoint(run, *arguments, use_reentrant=False)
        return result
