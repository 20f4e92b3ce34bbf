"""Files of sentence-transformers: what they ask for is done, or refused in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from families import SIX, SIZE, of_family

from fewshot_nlp import FewShotError
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.pooling import pool_spans

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


def by_place(states):
    """The mean with weights 1 to n."""
    weights = torch.arange(1.0, len(states) + 1)[:, None]
    return (states * weights).sum(dim=0) / weights.sum()


OLD = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        (OLD | {"pooling_mode_cls_token": True}, lambda h: h[0]),
        (OLD | {"pooling_mode_mean_tokens": True}, lambda h: h.mean(dim=0)),
        ({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}, lambda h: h[0]),
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, lambda h: h.mean(dim=0)),
        ({"embedding_dimension": 32, "pooling_mode": ["cls"]}, lambda h: h[0]),
        (OLD, lambda h: h.mean(dim=0)),
        (OLD | {"pooling_mode_max_tokens": True}, lambda h: h.max(dim=0).values),
        (OLD | {"pooling_mode_mean_sqrt_len_tokens": True}, lambda h: h.sum(dim=0) / len(h) ** 0.5),
        (OLD | {"pooling_mode_weightedmean_tokens": True}, by_place),
        ({"pooling_mode": "max"}, lambda h: h.max(dim=0).values),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, lambda h: h.sum(dim=0) / len(h) ** 0.5),
        ({"pooling_mode": "weightedmean"}, by_place),
    ],
)
def test_both_forms_of_the_pooling_file(folder, config, pool):
    torch.testing.assert_close(
        embedded(write(folder, **{"1_Pooling__config_json": config}))[1], by_hand(folder, pool)
    )


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {
                "1_Pooling__config_json": OLD
                | {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
            },
            "pools by max and mean",
        ),
        ({"1_Pooling__config_json": {"pooling_mode": ["cls", "mean"]}}, "pools by cls and mean"),
        ({"1_Pooling__config_json": {"pooling_mode": "attention"}}, "pools by attention"),
        ({"1_Pooling__config_json": {"pooling_mode": "lasttoken"}}, "pools by lasttoken"),
        ({"1_Pooling__config_json": OLD | {"pooling_mode_lasttoken": True}}, "pools by lasttoken"),
        (
            {"sentence_bert_config_json": {"transformer_task": "fill-mask"}},
            "has transformer_task = 'fill-mask'",
        ),
        ({"sentence_bert_config_json": {"config_args": {"num_hidden_layers": 1}}}, "has config_args"),
        (
            {"sentence_bert_config_json": {"modality_config": {"text": {"method_output_name": "logits"}}}},
            "has modality_config",
        ),
        (
            {"modules_json": [{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": "x.Dense"}]},
            "has a module Dense",
        ),
        (
            {"config_sentence_transformers_json": {"prompts": {"q": "query: "}, "default_prompt_name": "q"}},
            "puts the prompt 'query: '",
        ),
    ],
)
def test_what_is_not_supported_is_refused_unless_pooling_is_named(folder, files, what):
    write(folder, **files)
    with pytest.raises(FewShotError, match=what):
        Encoder.from_pretrained(folder)
    torch.testing.assert_close(embedded(folder, pooling="mean")[1], by_hand(folder, lambda h: h.mean(dim=0)))


@pytest.mark.parametrize(
    "files",
    [
        {"modules_json": {"type": "Transformer"}},
        {"modules_json": ["x.Transformer"]},
        {"sentence_bert_config_json": {"max_seq_length": "long"}},
        {"sentence_bert_config_json": ["max_seq_length"]},
        {"1_Pooling__config_json": ["cls"]},
        {"1_Pooling__config_json": {"pooling_mode": 3}},
        {"config_sentence_transformers_json": [1]},
    ],
)
def test_damaged_files_are_said_in_one_line(folder, files):
    with pytest.raises(FewShotError, match=r"sentence-transformers files of .* are damaged"):
        Encoder.from_pretrained(write(folder, **files))


@pytest.mark.parametrize(
    "config",
    [
        {"prompts": {"query": "", "document": ""}, "default_prompt_name": "query"},
        {"prompts": {"q": "query: "}},
    ],
)
def test_prompts_that_are_empty_or_not_the_default_change_nothing(folder, config):
    write(folder, config_sentence_transformers_json=config)
    torch.testing.assert_close(embedded(folder)[1], by_hand(folder, lambda h: h.mean(dim=0)))


def test_an_unknown_pooling_is_refused(folder):
    with pytest.raises(FewShotError, match="pooling is 'cls', but must be one of: mean, first, max"):
        Encoder.from_pretrained(folder, pooling="cls")


def test_the_transformer_may_stand_in_a_folder_of_its_own(folder, tmp_path):
    outer = tmp_path / "outer"
    shutil.copytree(folder, outer / "0_Transformer")
    modules = [{"path": "0_Transformer", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    write(outer, modules_json=modules, **{"1_Pooling__config_json": {"pooling_mode": "max"}})
    torch.testing.assert_close(embedded(outer)[1], by_hand(folder, lambda h: h.max(dim=0).values))


@pytest.mark.parametrize("mode", ["mean", "first", "max", "sqrt_mean", "weighted_mean"])
def test_pooling_is_saved_and_its_second_derivatives_are_right(mode, folder, tmp_path):
    from fewshot_nlp import FewShotClassifier

    rows = [{"text": "my card", "label": "a"}, {"text": "the judge", "label": "b"}]
    model = FewShotClassifier.from_pretrained(folder, learner="prototypical", pooling=mode).adapt(rows)
    model.save_pretrained(tmp_path / "saved")
    again = FewShotClassifier.from_pretrained(tmp_path / "saved")
    assert again.pipeline.learner.encoder.pooling == mode
    assert (again.predict_proba(TEXTS) == model.predict_proba(TEXTS)).all()
    hidden = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
    spans = np.array([[0, 2], [2, 3], [3, 7]])
    assert torch.autograd.gradgradcheck(lambda h: pool_spans(h, spans, mode), hidden)


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


FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
}
PEER = (
    *({"mode": mode} for mode in FLAGS),
    *({"mode": mode, "old": True} for mode in ("cls", "max", "mean", "weightedmean")),
    {"mode": "mean", "lower": True},
    {"mode": "cls", "length": 40, "family": "roberta"},
    {"mode": "max", "normalize": True},
)
"""Twelve folders of sentence-transformers."""


@pytest.mark.parametrize("form", PEER, ids=lambda form: "-".join(map(str, form.values())))
def test_embeddings_are_those_of_sentence_transformers(form, tiny_encoder_folder, folder, tmp_path):
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Normalize, Pooling, Transformer

    if "family" in form:
        config = transformers.RobertaConfig(**SIZE, **SIX)
        folder = of_family(tmp_path / "family", tiny_encoder_folder, config)
    transformer = Transformer(str(folder), max_seq_length=form.get("length"), do_lower_case="lower" in form)
    modules = [transformer, Pooling(32, pooling_mode=form["mode"]), *[Normalize()] * ("normalize" in form)]
    made = tmp_path / "made"
    peer.SentenceTransformer(modules=modules).save(str(made))
    if "old" in form:
        flags = {flag: mode == form["mode"] for mode, flag in FLAGS.items()}
        write(made, **{"1_Pooling__config_json": {"word_embedding_dimension": 32, **flags}})
        assert peer.SentenceTransformer(str(made))[1].pooling_mode == form["mode"]
    expected = torch.tensor(peer.SentenceTransformer(str(made)).encode(TEXTS))
    found = embedded(made)[1]
    if "normalize" in form:
        found = torch.nn.functional.normalize(found, dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
