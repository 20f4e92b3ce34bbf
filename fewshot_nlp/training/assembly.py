"""The encoder, its adapter, the task and the learner that a configuration names, before any training."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from fewshot_nlp.backbone import BACKBONES, Backbone
from fewshot_nlp.backbone.adapters import adapter_from_json
from fewshot_nlp.errors import FewShotError, did_you_mean
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training.config import EncoderSettings, MetaTrainConfig


def build_pipeline(config: MetaTrainConfig, device: torch.device) -> Pipeline:
    """Task and learner of a configuration, before any training."""
    encoder = _backbone(config)
    encoder.gradient_checkpointing = config.run.gradient_checkpointing
    if config.adapter is not None:
        adapter = make_adapter(config.adapter)
        encoder.attach(adapter, config.top_layers, config.run.seed)
    elif config.top_layers is not None:
        raise FewShotError("top_layers says where the adapter goes, but adapter is not given.")
    pipeline = new_pipeline(config.task, config.task_config, encoder, config.learner, config.learner_config)
    encoder.model.to(device)
    pipeline.learner.to(device)
    return pipeline


def _backbone(config: MetaTrainConfig) -> Backbone:
    """The kind of model that the task needs, with the settings that differ from their defaults."""
    given = {k: v for k, v in vars(config.encoder).items() if v != getattr(EncoderSettings(), k)}
    if "dtype" in given:
        given["dtype"] = getattr(torch, given["dtype"])
    kind = BACKBONES[TASKS.get(config.task).backbone]
    known = {"name", "revision", "dtype", *kind.setting_types}
    unknown = next((key for key in given if key not in known), None)
    if unknown is not None:
        raise FewShotError(f"encoder.{unknown} is set, but {config.task} takes a model without this setting.")
    encoder: Backbone = kind.from_pretrained(**given)
    return encoder


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
        raise FewShotError(f"adapter: {kind} has no setting {unknown!r}.{did_you_mean(unknown, settings)}")
    try:
        return adapter_from_json(values)
    except (TypeError, ValueError) as error:
        raise FewShotError(f"adapter: {' '.join(str(error).split())}.") from error
