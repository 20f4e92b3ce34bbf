"""Gradient accumulation that accelerate's environment or launcher asks for does not change the outer gradient."""

import pytest
import torch

from fewshot_nlp.training.config import Data, MetaTrainConfig, Run, Source
from fewshot_nlp.training.trackers import make_accelerator


@pytest.mark.parametrize("steps", [None, "1", "2", "4"])
def test_a_loss_is_never_divided(tmp_path, monkeypatch, steps):
    name = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
    monkeypatch.delenv(name, raising=False)
    if steps is not None:
        monkeypatch.setenv(name, steps)
    config = MetaTrainConfig(
        task="ner",
        learner="prototypical",
        data=Data(sources=(Source(name="rows.jsonl"),)),
        run=Run(output_dir=str(tmp_path)),
    )
    accelerator = make_accelerator(config)
    weight = torch.tensor(3.0, requires_grad=True)
    accelerator.backward(weight * 2)
    assert float(weight.grad) == 2.0
    assert accelerator.gradient_accumulation_steps == 1
