"""A PEFT configuration is obeyed as PEFT itself does, or refused in one line."""

import re

import pytest
from peft import (
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoraConfig,
    PrefixTuningConfig,
    VBLoRAConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, MarianConfig, MarianMTModel

from fewshot_nlp import FewShotClassifier, FewShotError
from fewshot_nlp.backbone.adapters import attach

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
QV = ["query", "value"]


def bert():
    return BertModel(BertConfig(vocab_size=20, **SMALL))


def distilbert():
    return DistilBertModel(DistilBertConfig(vocab_size=20, dim=16, n_layers=3, n_heads=2, hidden_dim=16))


def marian():
    return MarianMTModel(
        MarianConfig(
            vocab_size=20, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0,
        )
    )  # fmt: skip


CONFIGS = {
    "one layer": (bert, LoraConfig(r=2, target_modules=QV, layers_to_transform=[2])),
    "a number": (bert, LoraConfig(r=2, target_modules=QV, layers_to_transform=1)),
    "pattern": (bert, LoraConfig(target_modules=QV, layers_to_transform=[0, 3], layers_pattern="layer")),
    "excluded": (bert, LoraConfig(r=2, target_modules=QV, exclude_modules=["layer.0.attention.self.query"])),
    "excluded by a pattern": (bert, LoraConfig(target_modules="all-linear", exclude_modules=r".*output.*")),
    "ranks": (bert, LoraConfig(r=2, target_modules=QV, rank_pattern={"layer.1.attention.self.query": 5})),
    "alphas": (distilbert, LoraConfig(r=2, target_modules=["q_lin"], alpha_pattern={"q_lin": 7})),
    "nothing named": (bert, LoraConfig(r=2)),
    "a regular expression": (marian, LoraConfig(r=2, target_modules=r".*decoder.*q_proj")),
    "all of a translator": (marian, LoraConfig(r=2, target_modules="all-linear")),
    "loha": (bert, LoHaConfig(r=2, target_modules=QV, layers_to_transform=[3])),
    "ia3": (bert, IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"])),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_plain_peft(name):
    make, config = CONFIGS[name]
    found = {n: tuple(p.shape) for n, p in attach(make(), config).items()}
    plain = get_peft_model(make(), config)
    prefix = "base_model.model."
    wanted = {n.removeprefix(prefix): tuple(p.shape) for n, p in plain.named_parameters() if p.requires_grad}
    assert found == wanted


@pytest.mark.parametrize("name", ["one layer", "pattern", "excluded", "loha", "ia3"])
def test_top_layers_are_a_part_of_them(name):
    make, config = CONFIGS[name]
    whole = attach(make(), config)
    top = {n for n in whole if int(re.search(r"layer[.](\d+)[.]", n)[1]) >= 2}
    assert set(attach(make(), config, top_layers=2)) == top


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (LoraConfig(target_modules=QV, bias="all"), "bias='all'"),
        (LoHaConfig(target_modules=QV, modules_to_save=["pooler"]), "modules_to_save"),
        (LoraConfig(target_modules=QV, trainable_token_indices=[1]), "trainable_token_indices"),
        (LoraConfig(target_modules=QV, layer_replication=[(0, 4), (2, 4)]), "layer_replication"),
        (VeraConfig(target_modules=QV), "VeraConfig keeps weights outside"),
        (VBLoRAConfig(target_modules=QV), "VBLoRAConfig keeps weights outside"),
        (PrefixTuningConfig(num_virtual_tokens=2), "virtual tokens"),
        (LoraConfig(target_modules=["nothing"]), "nothing"),
        (LoraConfig(target_modules=["dropout"]), "does not fit the encoder"),
        (LNTuningConfig(target_modules=["nothing"]), "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_settings_are_refused_in_one_line(config, told):
    with pytest.raises(FewShotError, match=re.escape(told)) as caught:
        attach(bert(), config)
    assert "\n" not in str(caught.value)


def test_top_layers_need_an_adapter(tiny_encoder_folder):
    for learner in ("fine_tune", "prototypical", "contrastive"):
        with pytest.raises(FewShotError, match="top_layers says where the adapter goes, but adapter is not"):
            FewShotClassifier.from_pretrained(tiny_encoder_folder, learner=learner, top_layers=1)
