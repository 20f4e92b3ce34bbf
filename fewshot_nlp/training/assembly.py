"""The encoder, its adapter, the task and the learner that a configuration names, before any training."""

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
        try:
            adapter = adapter_from_json(config.adapter)
        except (TypeError, ValueError, KeyError) as error:
            raise FewShotError(
                f"adapter is no PEFT configuration: {' '.join(str(error).split())}."
            ) from error
        encoder.attach(adapter, config.top_layers, config.seed)
    elif config.top_layers is not None:
        raise FewShotError("top_layers says where the adapter goes, but adapter is not given.")
    pipeline = new_pipeline(config.task, config.task_config, encoder, config.learner, config.learner_config)
    encoder.model.to(device)
    pipeline.learner.to(device)
    return pipeline
