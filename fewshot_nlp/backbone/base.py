"""Common base of backbones: frozen base weights, an adapter, fast weights, a fingerprint."""

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
from fewshot_nlp.backbone.loading import check_devices
from fewshot_nlp.backbone.vocabulary import VocabularyHead
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.locks import shared_lock
from fewshot_nlp.persistence.disk import first_line
from fewshot_nlp.slots import SlotBatch

_KERNELS = shared_lock()
"""The choice of attention kernels is a setting of the whole process, so changing it needs a lock."""


class Backbone(ABC):
    """A Hugging Face model seen as an extractor of one feature vector a slot.

    Adapting never changes the model's weights: fast weights are passed to `features` and used by
    `torch.func.functional_call`. Temporary changes of weights or layers hold the lock `alone`, so threads may share a
    backbone.

    Args:
        model: a Hugging Face model.
        name: folder or Hub name that it was loaded from.
        revision: Hub revision.
    """

    setting_types: ClassVar[Mapping[str, type]]
    """The keys of `settings` and their types."""
    tokenizer: Any
    layers: tuple[int, ...] = (-1,)
    head: Head | None = None
    """The model's own head, which scores classes before any example; None where it has none."""
    lower: Any = None
    """What keeps the output of the frozen lower layers, inside of `cache_frozen_layers`."""

    def __init__(self, model: Any, name: str, revision: str | None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.name, self.revision = name, revision
        self.adapter: dict[str, nn.Parameter] = {}
        self.adapter_config: Any = None
        self.top_layers: int | None = None
        self.trained = False  # whether the base weights were changed after loading
        self.gradient_checkpointing = False
        """Recompute activations in the backward pass (gradient checkpointing, Chen et al. 2016): less memory in inner
        loops of many steps, about a third more time."""
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
        """The options of `from_pretrained` that features depend on, as JSON."""

    @property
    @abstractmethod
    def public_name(self) -> str | None:
        """Hub name from which the base weights can be loaded again; None for a folder or trained weights."""

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
            double_backward: use attention with a second derivative, which fused kernels do not have.
        """

    def views(
        self, batch: SlotBatch, fast_weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "n_slots dimension"], Float[Tensor, "n_slots hidden"]]:
        """`features`, and the input of the head."""
        features = self.features(batch, fast_weights)
        return features, features

    def name_vectors(self, batch: SlotBatch) -> Float[Tensor, "n_slots hidden"]:
        """Input of the head for slots of label names."""
        return self.features(batch)

    @property
    def vocabulary(self) -> VocabularyHead | None:
        """The head if its classes are the tokens of a vocabulary; else None."""
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
        """SHA-256 of the base weights and all settings that features depend on, without the adapter."""
        if self._fingerprint is None:
            digest = hashlib.sha256(repr(self._identity()).encode())
            for name, parameter in sorted(self.parameters().items()):
                if name not in self.adapter:
                    data = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
                    digest.update(data.numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _identity(self) -> tuple[Any, ...]:
        """All that features depend on except weights."""
        return tuple(self.settings.values())

    def attach(self, config: Any, top_layers: int | None = None, seed: int = 0) -> None:
        """Injects a PEFT adapter into the model, once. Initial values are its method's (LoRA: no change).

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
        """To be called after changing the base weights, so that they are saved with a model."""
        self.trained = True
        self._fingerprint = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """All parameters by name: the base model's and the adapter's."""
        with self.alone():  # in the middle of a pass these would be its fast weights
            return dict(self.model.named_parameters())

    def moving_parameters(self) -> dict[str, nn.Parameter]:
        """Those of `parameters` that training may move: all but sinusoidal positions, which are fixed by formula."""
        config, modules = self.model.config, list(self.model.named_modules())
        fixed = [n for n, m in modules if "Sinusoidal" in type(m).__name__]
        if getattr(config, "sinusoidal_pos_embds", False) or getattr(config, "sinusoidal_embeddings", False):
            fixed += [n for n, _ in modules if n.endswith("position_embeddings")]
        places = tuple(f"{name}." for name in fixed)
        return {name: p for name, p in self.parameters().items() if not name.startswith(places)}

    def to(self, device: Any) -> None:
        """Moves all weights to a device.

        Raises:
            FewShotError: it is not here, or the model is spread over several devices.
        """
        check_devices(device, "device")
        try:
            with self.alone():
                self.model.to(device)
                if isinstance(self.head, nn.Module):
                    self.head.to(device)
        except RuntimeError as error:
            raise FewShotError(f"The model cannot be moved to {device!r}: {first_line(error)}.") from error

    def as_loaded(self) -> AbstractContextManager[Any]:
        """Context that shuts out a user's `torch.autocast`: weights compute in the type that they were loaded in."""
        context: AbstractContextManager[Any] = torch.autocast(self.device.type, enabled=False)
        return context

    def alone(self) -> AbstractContextManager[Any]:
        """Lock for running the model, changing it, or reading its parameters; reentrant."""
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
        """One pass of the model, or of a module made of it, with fast weights if given.

        Args:
            module: called with the further arguments.
            fast_weights: values used instead of the module's parameters of the same names.
            math_attention: use torch's math kernel for attention, which has a second derivative.
        """
        kernel = sdpa_kernel(SDPBackend.MATH) if math_attention else nullcontext()
        with self.alone(), _KERNELS if math_attention else nullcontext(), kernel:
            if not fast_weights:
                return module(*arguments, **inputs)
            return torch.func.functional_call(module, dict(fast_weights), arguments, inputs)

    @contextmanager
    def cached(self, max_bytes: int = 512 * 2**20, *, lasting: bool = False) -> Iterator[Any]:
        """Context in which features are cached by text, if the backbone supports it."""
        yield None

    @contextmanager
    def cache_frozen_layers(self, max_bytes: int = 512 * 2**20) -> Iterator[Any]:
        """Context in which the output of the frozen lower layers is cached by text, if the backbone supports it."""
        yield None

    @contextmanager
    def sharing_lower_layers(self, max_bytes: int = 256 * 2**20) -> Iterator[None]:
        """Context in which two passes over a batch run its frozen lower layers once, if the backbone supports it."""
        yield

    def _second_order(self) -> None:
        """To be called before a pass with a second derivative: logs once that attention is not fused.

        Raises:
            FewShotError: the model's attention has no second derivative.
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
        """One pass; with `gradient_checkpointing` its activations are recomputed in the backward pass."""
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return run(*arguments)
        result: Tensor = checkpoint(run, *arguments, use_reentrant=False)
        return result
