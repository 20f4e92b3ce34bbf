"""Devices, types and kernels: each works, or is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import attach_align_device_hook_on_blocks
from peft import LoraConfig
from transformers import AutoModel

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotTranslator
from fewshot_nlp.learners import LEARNERS

ROWS = [
    {"text": "I lost my card", "label": "card"},
    {"text": "my card is not here", "label": "card"},
    {"text": "send money to her", "label": "transfer"},
    {"text": "the money was not paid", "label": "transfer"},
]
PAIRS = [{"translation": {"xx": "drac", "en": "card"}}, {"translation": {"xx": "yenom", "en": "money"}}]
TEXTS = ["where is my card", "pay the bank"]


@pytest.mark.parametrize(
    ("device_map", "told"),
    [
        ("meta", "'meta' holds no weights; leave it out"),
        ({"": "meta"}, "'meta' holds no weights; leave it out"),
        (torch.device("meta"), "holds no weights"),
        ("somewhere", "'somewhere' is not to be had here"),
        pytest.param(
            "cuda",
            "'cuda' is not to be had here .*; leave it out for the CPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["encoder", "seq2seq"])
def test_devices_that_are_not_here(
    kind: str, device_map: Any, told: str, tiny_folders: dict[str, Path]
) -> None:
    face = {"encoder": FewShotClassifier, "seq2seq": FewShotTranslator}[kind]
    with pytest.raises(FewShotError, match=told) as caught:
        face.from_pretrained(tiny_folders[kind], device_map=device_map)
    assert "\n" not in str(caught.value)


def test_a_kernel_from_the_hub_is_refused(tiny_encoder_folder: Path) -> None:
    with pytest.raises(FewShotError, match="whose code would be fetched and run; take 'sdpa'"):
        FewShotClassifier.from_pretrained(
            tiny_encoder_folder, attn_implementation="kernels-community/flash-attn"
        )


@pytest.mark.parametrize("learner", [n for n in LEARNERS.names() if LEARNERS.get(n).head_use != "own"])
def test_autocast_around_changes_nothing(learner: str, tiny_encoder_folder: Path) -> None:
    model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner=learner)
    try:
        expected = model.adapt(ROWS).predict_proba(TEXTS)
    except FewShotError:
        pytest.skip("needs an adapter")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(model.predict_proba(TEXTS), expected)
        np.testing.assert_array_equal(model.adapt(ROWS).predict_proba(TEXTS), expected)


@pytest.mark.parametrize("learner", ["nearest_neighbour", "prototypical", "matching"])
def test_translation_under_autocast(learner: str, tiny_translator_folder: Path) -> None:
    model = FewShotTranslator.from_pretrained(tiny_translator_folder, learner=learner).adapt(PAIRS)
    expected = model.predict(["drac"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.predict(["drac"]) == expected


@pytest.mark.parametrize("learner", ["linear_probe", "nearest_neighbour", "bayesian"])
def test_bfloat16_weights_give_numpy_numbers(learner: str, tiny_encoder_folder: Path) -> None:
    model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner=learner, dtype=torch.bfloat16)
    exact = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner=learner)
    found = model.adapt(ROWS).predict_proba(TEXTS)
    assert found.dtype in (np.float32, np.float64)
    np.testing.assert_allclose(found, exact.adapt(ROWS).predict_proba(TEXTS), atol=0.1)


@pytest.mark.parametrize("learner", ["linear_probe", "fine_tune", "maml", "contrastive"])
@pytest.mark.parametrize("spread", ["auto", "hooks"])
def test_a_model_spread_over_devices_predicts_as_on_one(
    spread: str, learner: str, tiny_encoder_folder: Path
) -> None:
    """Where there is one device, accelerate's hooks between devices are put in by hand: they move inputs to it."""

    def load(**options: Any) -> FewShotClassifier:
        if learner in ("fine_tune", "maml"):
            options["adapter"] = LoraConfig(r=2, target_modules=["query"])
        return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner=learner, **options)

    one, several = load(), load(**({"device_map": "auto"} if spread == "auto" else {}))
    if spread == "hooks":
        model = several.pipeline.learner.encoder.model
        places = {"": "cpu", "embeddings": "cpu", "encoder.layer.0": "cpu", "encoder.layer.1": "cpu"}
        attach_align_device_hook_on_blocks(
            model, execution_device=places, offload=dict.fromkeys(places, False)
        )
        assert hasattr(model.encoder.layer[1], "_hf_hook")
    expected = one.adapt(ROWS).predict_proba(TEXTS)
    np.testing.assert_allclose(several.adapt(ROWS).predict_proba(TEXTS), expected, rtol=1e-5, atol=1e-6)


def test_weights_that_find_no_place_on_a_device_are_refused(
    tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = AutoModel.from_pretrained

    def offloaded(*arguments: Any, **options: Any) -> Any:
        model, found = load(*arguments, **options)
        return cpu_offload(model, execution_device="cpu"), found

    monkeypatch.setattr(AutoModel, "from_pretrained", offloaded)
    with pytest.raises(FewShotError, match=r"finds no place for .* tensors .*dtype=torch.bfloat16"):
        FewShotClassifier.from_pretrained(tiny_encoder_folder, device_map="auto")
