"""The encoder, its adapter, the task and the learner that a configuration names, before any training."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import torch

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.adapters import adapter_from_json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.storage import new_pipeline
from fewshot_nlp.training.config import MetaTrainConfig


def build_pipeline(config: MetaTrainConfig, device: torch.device) -> Pipeline:
    """Task and learner of a configuration, before any training."""
    settings = config.encoder
    encoder = Encoder.from_pretrained(
        settings.name,
        revision=settings.revision,
        dtype=getattr(torch, settings.dtype) if settings.dtype else None,
        layers=settings.layers,
        pooling=settings.pooling,
        max_length=settings.max_length,
    )
    if config.adapter is not None:
        adapter = make_adapter(config.adapter)
        encoder.attach(adapter, config.top_layers, config.seed)
    elif config.top_layers is not None:
        raise FewShotError("top_layers says where the adapter goes, but adapter is not given.")
    pipeline = new_pipeline(config.task, config.task_config, encoder, config.learner, config.learner_config)
    encoder.model.to(device)
    pipeline.learner.to(device)
    return pipeline


def make_adapter(values: Mapping[str, Any]) -> Any:
    """The `peft.PeftConfig` of a mapping; PEFT itself would ignore an unknown key.

    Raises:
        FewShotError: no ``peft_type``, an unknown one, or a setting that it does not have.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {str(kind.value): config_class for kind, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = values.get("peft_type")
    if kind not in kinds:
        raise FewShotError(f"adapter.peft_type is {kind!r}, but must be one of: {', '.join(sorted(kinds))}.")
    settings = [field.name for field in fields(kinds[kind])]
    unknown = next((key for key in values if key not in settings), None)
    if unknown is not None:
        near = get_close_matches(unknown, settings, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FewShotError(f"adapter: {kind} has no setting {unknown!r}.{hint}")
    try:
        return adapter_from_json(values)
    except (TypeError, ValueError) as error:
        raise FewShotError(f"adapter: {' '.join(str(error).split())}.") from error
