"""The adapter as PEFT reads it: ``PeftModel.from_pretrained(base, folder)``."""

import copy
import re
from pathlib import Path

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.modules.state import fast_weights
from fewshot_nlp.persistence.disk import write_tensors
from fewshot_nlp.pipeline import TaskModel


def write_peft(model: TaskModel, folder: Path) -> None:
    """Writes ``adapter_config.json`` and ``adapter_model.safetensors``; the head is not part of it.

    Raises:
        FewShotError: there is no adapter, or more than the adapter was trained.
    """
    encoder, weights = model.pipeline.learner.encoder, fast_weights(model.adapted.state)
    assert isinstance(encoder, Encoder)
    others = sorted(set(weights) - set(encoder.adapter))
    if not encoder.adapter or others or encoder.trained:
        what = f"tuned {others[0]}" if others else "trained the encoder's own weights"
        raise FewShotError(
            f"{model.pipeline.learner.name} {what if encoder.adapter else 'has no adapter'}, so an adapter alone is "
            "not the model; take format='sentence-transformers' or 'onnx', or a learner that tunes an adapter: "
            "contrastive, fine_tune."
        )
    tensors = {
        "base_model.model." + re.sub(r"\.default(?=\.|$)", "", name): weights.get(name, own).detach().cpu()
        for name, own in encoder.adapter.items()
    }
    config = copy.deepcopy(encoder.adapter_config)
    config.base_model_name_or_path = encoder.public_name or encoder.name
    config.revision = encoder.revision
    config.inference_mode, config.task_type = True, "FEATURE_EXTRACTION"
    config.save_pretrained(folder)
    write_tensors(
        {n: t.contiguous().clone() for n, t in tensors.items()}, folder / "adapter_model.safetensors"
    )
