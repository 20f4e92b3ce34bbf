"""The encoder of an adapted model as a plain model of transformers, its adapter folded into the weights."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.loading import first_layers
from fewshot_nlp.backbone.packing import padded_inputs, trial_windows
from fewshot_nlp.errors import FewShotError

TOLERANCE = 1e-3
"""Difference of hidden states, relative to the largest, up to which a merged model is taken as the same."""


@torch.no_grad()
def merged(encoder: Encoder, weights: Mapping[str, Tensor], depth: int | None = None) -> Any:
    """A new model whose last hidden state is the encoder's output of a layer.

    Args:
        encoder: with or without an adapter; it stays as it is.
        weights: fast weights, by the encoder's names.
        depth: the layer, from 1; None for all that are loaded.

    Raises:
        FewShotError: the family has a further step after its last layer, so that an inner layer is no last one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    with encoder.alone(), torch.random.fork_rng(devices=[]):
        full = copy.deepcopy(encoder.model).cpu()
        for name, parameter in full.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
        for module in full.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
        tensors = {name.replace(".base_layer.", "."): value for name, value in full.state_dict().items()}
        attention = "sdpa" if encoder.packed else full.config._attn_implementation
        config = first_layers(full.config, depth or full.config.num_hidden_layers)
        plain = type(full)._from_config(
            copy.deepcopy(config), attn_implementation=attention, dtype=full.dtype
        )
    missing = plain.load_state_dict(
        {n: t for n, t in tensors.items() if n in plain.state_dict()}, strict=False
    )
    if missing.missing_keys:
        raise FewShotError(f"The adapter of {encoder.name} leaves no weight {missing.missing_keys[0]}.")
    plain = plain.eval().requires_grad_(False)
    if depth is not None:
        _check(encoder, weights, plain, depth)
    return plain


def _check(encoder: Encoder, weights: Mapping[str, Tensor], plain: Any, layer: int) -> None:
    windows = trial_windows(encoder.tokenizer, encoder.model.config.vocab_size)[:1]
    width, at = int(encoder.model.config.hidden_size), encoder.layers.index(layer)
    wanted = encoder.hidden_states(windows, None, weights)[:, at * width : (at + 1) * width].cpu()
    found = plain(**padded_inputs(windows, None, 0, torch.device("cpu"))).last_hidden_state[0]
    error = float((found - wanted).abs().max() / wanted.abs().max())
    if error > TOLERANCE:
        raise FewShotError(
            f"{encoder.name} gives other features alone (they differ by {error:.1e}): its family has a step after the "
            "last layer; adapt with layers=(-1,)."
        )
