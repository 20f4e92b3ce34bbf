"""Longest window of an encoder: from its files, its position table, and a trial."""

from typing import Any

import torch
from torch import nn

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import first_line

USUAL = 512
"""Tokens, where neither configuration nor tokenizer has a limit, as with relative positions."""
LARGEST = 8192
TRIED = 1024
"""Windows up to this length are tried; longer limits belong to families without a position table."""
SURE = ("bert", "distilbert", "roberta", "xlm-roberta", "electra", "modernbert", "deberta-v2")
"""Families whose files are known to be right."""


def window_limit(model: Any, tokenizer: Any) -> int:
    """The longest usable window in tokens, special ones included.

    Args:
        model: an encoder of transformers.
        tokenizer: its tokenizer, whose ``model_max_length`` is a limit too.

    Raises:
        FewShotError: the model fails on every window.
    """
    stated = int(min(getattr(tokenizer, "model_max_length", None) or LARGEST, 10**6))
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    limit = min(stated, positions if positions > 0 else max(USUAL, min(stated, LARGEST)), LARGEST)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limit = min(limit, module.num_embeddings - first)
    limit = max(8, limit)
    if model.config.model_type in SURE or limit > TRIED or model.device.type != "cpu":
        return limit
    refused = _refusal(model, limit)
    if refused is None:
        return limit
    low, high = 1, limit  # ``low`` may be possible, ``high`` is not
    while high - low > 1:
        middle = (low + high) // 2
        refused = (found := _refusal(model, middle)) or refused
        low, high = (middle, high) if found is None else (low, middle)
    if low < 8:
        raise FewShotError(
            f"A model of the family {model.config.model_type} does not read a text of 8 tokens "
            f"({refused}); take an encoder such as BERT or RoBERTa."
        )
    return low


@torch.no_grad()
def _refusal(model: Any, length: int) -> str | None:
    """Error message of a window of some length; None when the model reads it."""
    used = {model.config.pad_token_id, getattr(model.config, "bos_token_id", None)}
    token = next(i for i in range(model.config.vocab_size) if i not in used)
    ids = torch.full((1, length), token)
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (TypeError, IndexError, RuntimeError, ValueError, AssertionError) as refused:
        return first_line(refused) or type(refused).__name__
    return None
