"""Families of encoders: windows, padding, layers, encoders of families with decoders."""

import json
import shutil

import pytest
import torch
import transformers
from families import SIX, SIZE, of_family

from fewshot_nlp import FewShotError
from fewshot_nlp.backbone import Encoder

WINDOWS = {
    "MPNet": (lambda: transformers.MPNetConfig(**SIZE, **SIX), 64),
    "Longformer": (lambda: transformers.LongformerConfig(**SIZE, **SIX, attention_window=[16, 16]), 64),
    "Data2VecText": (lambda: transformers.Data2VecTextConfig(**SIZE, **SIX), 64),
    "RobertaPreLayerNorm": (lambda: transformers.RobertaPreLayerNormConfig(**SIZE, **SIX), 64),
    "IBert": (lambda: transformers.IBertConfig(**SIZE, **SIX), 64),
    "Xmod": (lambda: transformers.XmodConfig(**SIZE, **SIX, default_language="en_XX"), 64),
    "Electra": (
        lambda: transformers.ElectraConfig(**SIZE, embedding_size=32, max_position_embeddings=66),
        66,
    ),
    "XLNet": (lambda: transformers.XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=64), 8192),
}


@pytest.mark.parametrize("family", sorted(WINDOWS))
def test_the_window_of_a_family_is_what_it_reads(family, tiny_encoder_folder, tmp_path):
    make, limit = WINDOWS[family]
    encoder = Encoder.from_pretrained(of_family(tmp_path, tiny_encoder_folder, make()))
    assert encoder.tokenizer.max_length == limit
    if limit < 100:
        assert encoder.hidden_states([[7] * limit]).isfinite().all()


@pytest.mark.parametrize(
    "config",
    [
        transformers.FNetConfig(
            hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=64
        ),
        transformers.ConvBertConfig(**SIZE, embedding_size=32, max_position_embeddings=64, head_ratio=2),
        transformers.NystromformerConfig(**SIZE, max_position_embeddings=64),
        transformers.YosoConfig(**SIZE, max_position_embeddings=64),
        transformers.MobileBertConfig(**SIZE, embedding_size=32, max_position_embeddings=64),
        transformers.BigBirdConfig(**SIZE, max_position_embeddings=64, block_size=16),
        transformers.BertConfig(**SIZE, max_position_embeddings=64),
    ],
    ids=lambda config: config.model_type,
)
def test_a_text_has_one_vector_whatever_stands_beside_it(config, tiny_encoder_folder, tmp_path):
    encoder = Encoder.from_pretrained(of_family(tmp_path, tiny_encoder_folder, config))
    windows = [[7, 8, 9], [7] * 20, [9, 8, 7, 6, 5], [11, 12, 13]]
    together = encoder.hidden_states(windows)
    alone = torch.cat([encoder.hidden_states([window]) for window in windows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_family_says_itself_why_it_reads_nothing(tiny_encoder_folder, tmp_path):
    folder = of_family(tmp_path, tiny_encoder_folder, transformers.XmodConfig(**SIZE, **SIX))
    with pytest.raises(FewShotError, match=r"family xmod does not read a text of 8 tokens .*language"):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize("layers", [(1,), (0.5,), (0, -1)])
def test_parts_that_read_all_layers_do_not_hinder_a_lower_one(layers, tiny_encoder_folder, tmp_path):
    config = transformers.EsmConfig(**SIZE, max_position_embeddings=66, pad_token_id=1, mask_token_id=4)
    folder = of_family(tmp_path, tiny_encoder_folder, config)
    encoder = Encoder.from_pretrained(folder, layers=layers)
    model = transformers.AutoModel.from_pretrained(folder)
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        states = model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    expected = torch.cat([states[number][0] for number in encoder.layers], dim=-1)
    torch.testing.assert_close(encoder.hidden_states(ids.tolist()), expected, rtol=1e-4, atol=1e-5)


def test_weights_of_other_sizes_are_said_in_one_line(tiny_encoder_folder, tmp_path):
    folder = shutil.copytree(tiny_encoder_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(FewShotError, match=r"other sizes than its config\.json"):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize("family", ["T5", "MT5", "UMT5"])
def test_an_encoder_alone_of_a_family_with_decoders(family, tiny_encoder_folder, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder_folder)
    tokenizer.model_max_length = 10**6
    config = getattr(transformers, f"{family}Config")(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=len(tokenizer), pad_token_id=0
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{family}EncoderModel")(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = Encoder.from_pretrained(tmp_path)
    assert encoder.tokenizer.max_length >= 512
    windows = [[7, 8, 9], [7] * 20, [9, 8, 7, 6, 5]]
    with torch.no_grad():
        alone = torch.cat([theirs(torch.tensor([window])).last_hidden_state[0] for window in windows])
    torch.testing.assert_close(encoder.hidden_states(windows), alone, rtol=1e-4, atol=1e-5)


def test_a_model_with_a_decoder_is_refused(tiny_encoder_folder, tmp_path):
    config = transformers.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    with pytest.raises(FewShotError, match="a t5 model with a decoder"):
        Encoder.from_pretrained(of_family(tmp_path, tiny_encoder_folder, config))
