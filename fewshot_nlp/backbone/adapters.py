"""PEFT adapters in all layers of an encoder or the top k; base weights are frozen."""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import first_line

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


def layer_name(parameter: str) -> str | None:
    """Name of a parameter's layer, with its stack ("encoder.layer.3"); None for parameters outside of layers."""
    found = _LAYER.search(parameter)
    return None if found is None else parameter[: found.end() - 1]


def layer_number(parameter: str) -> int:
    """Index of a parameter's layer, from 0; 0 for parameters outside of layers, such as embeddings."""
    found = _LAYER.search(parameter)
    return 0 if found is None else int(found[1])


def default_adapter() -> Any:
    """LoRA (Hu et al. 2021) of rank 8 and alpha 16, without dropout, in PEFT's default target modules."""
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0)


def _prepared(model: nn.Module, given: Any) -> Any:
    """A copy of a configuration that says where it goes: as given, else as PEFT knows, else all linear layers.

    Raises:
        FewShotError: a method or a setting that would train or change more than the layers' adapters.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    kind = type(given).__name__
    if getattr(given, "is_prompt_learning", False):
        raise FewShotError(
            f"{kind} puts virtual tokens before the text, so slots would no longer be at their "
            "words; take an adapter that lives inside the layers, such as LoraConfig."
        )
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(given.peft_type)
    if tuner is None or getattr(tuner, "uses_shared_state", False) or not hasattr(given, "target_modules"):
        raise FewShotError(
            f"{kind} keeps weights outside of the layers that it goes into, which is not supported here; take an "
            "adapter that lives inside the layers, such as LoraConfig."
        )
    for name, reason in _REFUSED.items():
        if getattr(given, name, None) not in (None, "none", "None", [], {}, False):
            raise FewShotError(f"{kind} has {name}={getattr(given, name)!r}, which {reason}; leave it out.")
    config = copy.deepcopy(given)
    kind_of_model = getattr(model.config, "model_type", "")
    if config.target_modules is None and kind_of_model not in tuner.target_module_mapping:
        config.target_modules = "all-linear"
    return config


_REFUSED = {
    "bias": "trains weights of the base model, so that it would no longer be the one that other models share",
    "modules_to_save": "trains whole modules of the base model beside the adapter",
    "trainable_token_indices": "trains embeddings of the base model beside the adapter",
    "target_parameters": "puts adapters into single parameters, where fast weights do not reach",
    "megatron_config": "imports a module",
    "layer_replication": "changes how many layers the encoder has",
}
"""Settings of PEFT that are not supported, and why."""


def _in_top(model: nn.Module, config: Any, top_layers: int) -> None:
    """Cuts what a configuration targets, as PEFT reads it, to the last layers, in place."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import _ExcludedModule, _maybe_include_all_linear_layers

    n_layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
    if not 1 <= top_layers <= n_layers:
        raise FewShotError(
            f"top_layers is {top_layers}, but the encoder has {n_layers} layers: 1 to {n_layers}."
        )
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    if config.target_modules is None:
        config.target_modules = tuner.target_module_mapping[model.config.model_type]  # type: ignore[union-attr]
    _maybe_include_all_linear_layers(config, model)
    wanted = config.target_modules
    found = {name: tuner._check_target_module_exists(config, name) for name, _ in model.named_modules()}
    names = [
        name
        for name, hit in found.items()
        if hit and not isinstance(hit, _ExcludedModule)
        if (m := _LAYER.search(name + ".")) and int(m[1]) >= n_layers - top_layers
    ]
    if not names:
        raise FewShotError(
            f"No module of the encoder's last {top_layers} layers matches target_modules={wanted!r}."
        )
    config.target_modules = names
    if getattr(config, "layers_to_transform", None) is not None:
        config.layers_to_transform = config.layers_pattern = None  # the names have obeyed them
    if getattr(config, "feedforward_modules", None):
        config.feedforward_modules = [
            n for n in names if any(n == f or n.endswith("." + f) for f in config.feedforward_modules)
        ]


def attach(
    model: nn.Module, config: Any, top_layers: int | None = None, seed: int = 0
) -> dict[str, nn.Parameter]:
    """Injects an adapter into a model, in place, and freezes everything else.

    Args:
        model: a Hugging Face encoder.
        config: any `peft.PeftConfig` whose adapter lives inside the layers (LoRA, DoRA, IA3, OFT, ...); it is obeyed as
            PEFT itself does, or refused.
        top_layers: the last k layers only; None for all that the config names.
        seed: for the adapter's initial values.

    Returns:
        The adapter's parameters by name.

    Raises:
        FewShotError: a method or a setting that is not supported, and when no module matches.
    """
    from peft import inject_adapter_in_model

    given, config = config, _prepared(model, config)
    if top_layers is not None:
        _in_top(model, config, top_layers)
    before = {id(p) for p in model.parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except (ValueError, TypeError, NotImplementedError) as error:
            reason = first_line(error)
            raise FewShotError(f"{type(given).__name__} does not fit the encoder: {reason}.") from error
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return {name: p for name, p in model.named_parameters() if id(p) not in before}


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Context in which the adapter is disabled."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    wanted = {p: p.requires_grad for p in model.parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, gradient in wanted.items():
            parameter.requires_grad_(gradient)


def adapter_to_json(config: Any) -> dict[str, Any]:
    """A PEFT configuration as JSON."""
    values = config.to_dict()
    return {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in values.items()}


def adapter_from_json(values: Mapping[str, Any]) -> Any:
    """The PEFT configuration that `adapter_to_json` wrote."""
    from peft import PeftConfig

    return PeftConfig.from_peft_type(**dict(values))
