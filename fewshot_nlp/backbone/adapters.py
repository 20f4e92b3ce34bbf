"""PEFT adapters in all layers of an encoder or the top k; base weights are frozen."""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fewshot_nlp.errors import FewShotError

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


def _targets(model: nn.Module, config: Any) -> list[str]:
    """Full names of the modules that the adapter goes into."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    wanted = config.target_modules
    model_type = getattr(model.config, "model_type", "")
    if wanted is None:
        wanted = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type, "all-linear")
    output: Any = getattr(model, "get_output_embeddings", None)
    head = None if output is None else output()
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    if wanted == "all-linear":
        return linear
    if isinstance(wanted, str):
        return [name for name, _ in model.named_modules() if re.fullmatch(wanted, name)]
    return [
        name for name, _ in model.named_modules() if any(name == w or name.endswith("." + w) for w in wanted)
    ]


def attach(
    model: nn.Module, config: Any, top_layers: int | None = None, seed: int = 0
) -> dict[str, nn.Parameter]:
    """Injects an adapter into a model, in place, and freezes everything else.

    Args:
        model: a Hugging Face encoder.
        config: any `peft.PeftConfig` whose adapter lives inside the layers (LoRA, DoRA, IA3, OFT, VeRA, ...).
        top_layers: the last k layers only; None for all that the config names.
        seed: for the adapter's initial values.

    Returns:
        The adapter's parameters by name.

    Raises:
        FewShotError: the config is prompt learning, or no module matches.
    """
    from peft import inject_adapter_in_model

    if getattr(config, "is_prompt_learning", False):
        raise FewShotError(
            f"{type(config).__name__} puts virtual tokens before the text, so slots would no longer be at their "
            "words; take an adapter that lives inside the layers, such as LoraConfig."
        )
    config = copy.deepcopy(config)
    if hasattr(config, "target_modules"):
        names = _targets(model, config)
        if top_layers is not None:
            n_layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
            if not 1 <= top_layers <= n_layers:
                raise FewShotError(
                    f"top_layers is {top_layers}, but the encoder has {n_layers} layers: 1 to {n_layers}."
                )
            names = [n for n in names if (m := _LAYER.search(n)) and int(m[1]) >= n_layers - top_layers]
        if not names:
            raise FewShotError(f"No module of the encoder matches target_modules={config.target_modules!r}.")
        config.target_modules = names
        if getattr(config, "feedforward_modules", None):
            config.feedforward_modules = [
                n for n in names if any(n == f or n.endswith("." + f) for f in config.feedforward_modules)
            ]
    before = {id(p) for p in model.parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
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
