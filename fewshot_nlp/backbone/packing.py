"""Packed or padded model inputs, and the check that packing does not change hidden states."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewshot_nlp.backbone.batching import (
    PACKED,
    flat_tokens,
    padded_tokens,
    positions,
    register_packed_attention,
    runs,
)
from fewshot_nlp.errors import logger
from fewshot_nlp.tokenization.windows import WindowTokenizer

Windows = Sequence[Sequence[int]]

FAMILIES = frozenset({"bert", "distilbert", "modernbert", "roberta", "xlm-roberta"})
"""Families of transformers whose packed and padded hidden states are equal; tests try each."""
TRIED_WITH = "5."
"""Versions of transformers for which `FAMILIES` holds; with others every model is tried."""


def packed_inputs(
    model: Any, ids: Windows, types: Windows | None, device: torch.device, *, double_backward: bool
) -> dict[str, Any]:
    """Model inputs for windows concatenated into one row."""
    lengths = [len(row) for row in ids]
    inputs: dict[str, Any] = {
        "input_ids": flat_tokens(ids, device)[None],
        "position_ids": positions(lengths, _first_position(model), device)[None],
        "packing": runs(lengths),
        "double_backward": double_backward,
    }
    return inputs if types is None else inputs | {"token_type_ids": flat_tokens(types, device)[None]}


def padded_inputs(ids: Windows, types: Windows | None, pad: int, device: torch.device) -> dict[str, Any]:
    """Model inputs for windows padded to the longest with the token ``pad``."""
    inputs: dict[str, Any] = {
        "input_ids": padded_tokens(ids, pad, device),
        "attention_mask": padded_tokens([[1] * len(row) for row in ids], 0, device),
    }
    return inputs if types is None else inputs | {"token_type_ids": padded_tokens(types, 0, device)}


def trial_windows(tokenizer: WindowTokenizer, vocabulary: int) -> list[list[int]]:
    """Some windows of different lengths, for comparing packed and padded passes.

    Args:
        tokenizer: the encoder's.
        vocabulary: its size.
    """
    limit, special = tokenizer.max_length, set(tokenizer.tokenizer.all_special_ids)
    usual = [i for i in range(min(vocabulary, 4000)) if i not in special]
    lengths = sorted({5, min(9, limit), min(160, limit)})
    return [[usual[(7 * i + n) % len(usual)] for i in range(n)] for n in lengths]


def known_to_pack(model: Any) -> bool:
    """Whether the model's family packs by `FAMILIES`: a class of transformers itself, without causal attention."""
    import transformers

    config = model.config
    return (
        config.model_type in FAMILIES
        and transformers.__version__.startswith(TRIED_WITH)
        and type(model).__module__.startswith("transformers.models.")
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
    )


@torch.no_grad()
def try_packing(model: Any, run: Callable[[bool], Tensor]) -> bool:
    """Enables packed attention if it gives the same hidden states as padding; a known family is not tried.

    Args:
        model: a Hugging Face encoder.
        run: computes hidden states of some windows, packed or not.

    Returns:
        Whether it is enabled; else the reason is logged.
    """
    if model.config._attn_implementation != "sdpa":
        return False
    register_packed_attention()
    if known_to_pack(model):
        model.set_attn_implementation(PACKED)
        return True
    expected = run(False)
    try:
        model.set_attn_implementation(PACKED)
        error = (run(True) - expected).abs().max().item()
        scale = expected.abs().max().item()
        if error <= _tolerance(model) * scale:
            return True
        reason = f"hidden states differ by {error:.1e}"
    except (TypeError, ValueError, RuntimeError, IndexError) as refused:
        reason = str(refused).split("\n")[0]
    logger.info("%s runs with padded batches, not packed ones: %s", model.config.model_type, reason)
    model.set_attn_implementation("sdpa")
    return False


@torch.no_grad()
def pads_soundly(model: Any, tokenizer: WindowTokenizer, run: Callable[[Windows], Tensor]) -> bool:
    """Whether a window has the same hidden states alone and padded in a batch; logged if not.

    Args:
        model: a Hugging Face encoder.
        tokenizer: the encoder's.
        run: computes hidden states of windows in one padded batch.
    """
    windows = trial_windows(tokenizer, model.config.vocab_size)
    padded, alone = run(windows), torch.cat([run([window]) for window in windows])
    error, scale = (padded - alone).abs().max().item(), alone.abs().max().item()
    if error <= _tolerance(model) * scale:
        return True
    kind = model.config.model_type
    logger.info("%s mixes over padding (hidden states differ by %.1e); it runs at equal lengths", kind, error)
    return False


def _tolerance(model: Any) -> float:
    return 1e-4 if model.dtype == torch.float32 else 0.1


def _first_position(model: Any) -> int:
    """Position id of a window's first token: RoBERTa counts from after its padding id."""
    embeddings = getattr(model, "embeddings", None)
    offset = hasattr(embeddings, "create_position_ids_from_input_ids")
    return int(model.config.pad_token_id) + 1 if offset else 0
