"""Gradient accumulation that accelerate's environment asks for does not change the outer gradient."""

import pytest
import torch
from accelerate import Accelerator
from training_runs import config_of

from fewshot_nlp.training import meta_train
from fewshot_nlp.training.trackers import make_accelerator

NAME = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"


def gradient(accelerator):
    weight = torch.tensor(3.0, requires_grad=True)
    accelerator.backward(weight * 2)
    return float(weight.grad)


@pytest.mark.parametrize("steps", [None, "1", "2", "4"])
def test_a_loss_is_never_divided(tmp_path, monkeypatch, steps):
    monkeypatch.delenv(NAME, raising=False)
    if steps is not None:
        monkeypatch.setenv(NAME, steps)
    accelerator = make_accelerator(config_of(tmp_path, tmp_path))
    assert gradient(accelerator) == 2.0
    assert accelerator.gradient_accumulation_steps == 1
    assert gradient(Accelerator()) == 2.0 / int(steps or 1), "accelerate itself divides"


def test_a_run_has_the_same_gradients(tmp_path, tiny_encoder_folder, monkeypatch):
    found = {}
    for steps in ("1", "4"):
        monkeypatch.setenv(NAME, steps)
        config = config_of(tmp_path / steps, tiny_encoder_folder, outer__steps=2, validation__sources=())
        found[steps] = [record["grad_norm"] for record in meta_train(config).history if "grad_norm" in record]
    assert found["1"] == found["4"]
    assert len(found["1"]) == 2
