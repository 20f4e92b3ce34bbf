"""Files of sentence-transformers: what they ask for is done, or refused in one line; windows and padding by family."""

import json
import shutil

import pytest
import torch
import transformers

from fewshot_nlp import FewShotError
from fewshot_nlp.backbone import Encoder

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXTS = ["Give the patient aspirin.", "The Judge", "pay"]


@pytest.fixture
def folder(tiny_encoder_folder, tmp_path):
    return shutil.copytree(tiny_encoder_folder, tmp_path / "model")


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def embedded(folder, **options):
    """The texts' vectors as the encoder gives them to classification."""
    from fewshot_nlp.tasks import TASKS

    encoder = Encoder.from_pretrained(folder, **options)
    task = TASKS.get("classification")()
    batch = task.collate([task.query(t) for t in TEXTS], ("a", "b"), encoder.tokenizer, with_targets=False)
    return encoder, encoder.features(batch)


def by_hand(folder, pool, texts=TEXTS):
    """Transformers' own hidden states, pooled by a function of one text's states."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        return torch.stack(
            [pool(model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0]) for t in texts]
        )


OLD = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        (OLD | {"pooling_mode_cls_token": True}, lambda h: h[0]),
        (OLD | {"pooling_mode_mean_tokens": True}, lambda h: h.mean(dim=0)),
        ({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}, lambda h: h[0]),
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, lambda h: h.mean(dim=0)),
        ({"embedding_dimension": 32, "pooling_mode": ["cls"]}, lambda h: h[0]),
    ],
)
def test_both_forms_of_the_pooling_file(folder, config, pool):
    torch.testing.assert_close(
        embedded(write(folder, **{"1_Pooling__config_json": config}))[1], by_hand(folder, pool)
    )


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"1_Pooling__config_json": OLD | {"pooling_mode_lasttoken": True}}, "pools by lasttoken"),
        ({"1_Pooling__config_json": OLD | {"pooling_mode_max_tokens": True}}, "pools by max"),
        ({"1_Pooling__config_json": {"pooling_mode": ["cls", "mean"]}}, "pools by cls and mean"),
        ({"1_Pooling__config_json": {"pooling_mode": "weightedmean"}}, "pools by weightedmean"),
        (
            {"modules_json": [{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": "x.Dense"}]},
            "has a module Dense",
        ),
        (
            {"config_sentence_transformers_json": {"prompts": {"q": "query: "}, "default_prompt_name": "q"}},
            "puts the prompt 'q'",
        ),
    ],
)
def test_what_is_not_supported_is_refused_unless_pooling_is_named(folder, files, what):
    write(folder, **files)
    with pytest.raises(FewShotError, match=what):
        Encoder.from_pretrained(folder)
    torch.testing.assert_close(embedded(folder, pooling="mean")[1], by_hand(folder, lambda h: h.mean(dim=0)))


@pytest.mark.parametrize("name", ["sentence_bert_config", "sentence_roberta_config", "sentence_xlnet_config"])
def test_every_name_of_the_length_file(folder, name):
    write(folder, **{f"{name}_json": {"max_seq_length": 20, "do_lower_case": False}})
    assert Encoder.from_pretrained(folder).tokenizer.max_length == 20


def test_a_length_over_the_models_own_is_the_models_own(folder):
    write(folder, sentence_bert_config_json={"max_seq_length": 5000})
    assert Encoder.from_pretrained(folder).tokenizer.max_length == 64


def test_modules_may_stand_in_other_folders(folder):
    modules = [
        {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"path": "pool", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    write(folder, modules_json=modules, pool__config_json={"pooling_mode": "cls"})
    write(folder, **{"0_Transformer__sentence_bert_config_json": {"max_seq_length": 16}})
    encoder = Encoder.from_pretrained(folder)
    assert (encoder.pooling, encoder.tokenizer.max_length) == ("first", 16)


def test_letters_are_made_small_where_the_file_says_so(folder):
    cased = json.loads((folder / "tokenizer.json").read_text())
    cased["normalizer"] = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": False,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(cased))
    write(folder, sentence_bert_config_json={"max_seq_length": 60, "do_lower_case": True})
    expected = by_hand(folder, lambda h: h.mean(dim=0), [t.lower() for t in TEXTS])
    torch.testing.assert_close(embedded(folder)[1], expected)
    assert not torch.allclose(by_hand(folder, lambda h: h.mean(dim=0)), expected)


def of_family(folder, tokenizer_folder, config):
    """A random model of a family, with the tiny tokenizer."""
    config.vocab_size = len(transformers.AutoTokenizer.from_pretrained(tokenizer_folder))
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.model_max_length = 10**6
    tokenizer.save_pretrained(folder)
    return folder


SIX = {"max_position_embeddings": 66, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
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


def test_weights_of_other_sizes_are_said_in_one_line(folder):
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
