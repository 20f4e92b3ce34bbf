"""The encoder: families, packing, windows, adapters, caching, threads."""

import threading

import numpy as np
import pytest
import torch
import transformers
from peft import IA3Config, LoraConfig, PromptTuningConfig

from fewshot_nlp.backbone import Encoder, packing
from fewshot_nlp.backbone.batching import chunks, runs
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.tasks import TASKS

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}
FAMILIES = {
    "bert": (transformers.BertConfig, SMALL),
    "roberta": (transformers.RobertaConfig, {**SMALL, "pad_token_id": 1}),
    "xlm-roberta": (transformers.XLMRobertaConfig, {**SMALL, "pad_token_id": 1}),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 66},
    ),
    "deberta-v2": (
        transformers.DebertaV2Config,
        {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
    "modernbert": (
        transformers.ModernBertConfig,
        {**SMALL, "local_attention": 16, "global_attn_every_n_layers": 2},
    ),
}


def make(family, tokenizer, **options):
    config_class, sizes = FAMILIES[family]
    torch.manual_seed(0)
    ids = {"pad_token_id": 1} if "roberta" in family else {"pad_token_id": 0}
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = config_class(vocab_size=len(tokenizer), **{**sizes, **ids, **special})
    return Encoder(transformers.AutoModel.from_config(config), tokenizer, name=family, **options)


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder_folder):
    return transformers.AutoTokenizer.from_pretrained(tiny_encoder_folder)


def texts_batch(encoder, texts):
    task = TASKS.get("classification")()
    return task.collate([task.query(t) for t in texts], ["a", "b"], encoder.tokenizer, with_targets=False)


TEXTS = [
    "the cat",
    "a dog ran to the old house by the river and slept",
    "x",
    "the dog saw the cat",
    "a cat ran",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_same_features_one_by_one_as_in_a_batch(family, tokenizer):
    encoder = make(family, tokenizer)
    assert encoder.packed == (family in packing.FAMILIES)
    together = encoder.features(texts_batch(encoder, TEXTS))
    for text, row in zip(TEXTS, together, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        encoder.model.set_attn_implementation("eager")
        direct = encoder.model(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(row, direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trial_agrees_with_the_families_that_are_known_to_pack(family, tokenizer, monkeypatch):
    assert make(family, tokenizer).packed == (family in packing.FAMILIES)
    monkeypatch.setattr(packing, "known_to_pack", lambda model: False)
    assert make(family, tokenizer).packed == (family in packing.FAMILIES)


def test_a_model_is_tried_where_its_family_does_not_decide(tokenizer, monkeypatch):
    model = make("bert", tokenizer).model
    assert packing.known_to_pack(model)
    for name, value in (("is_decoder", True), ("position_embedding_type", "relative_key")):
        monkeypatch.setattr(model.config, name, value, raising=False)
        assert not packing.known_to_pack(model)
        monkeypatch.undo()
    monkeypatch.setattr(type(model), "__module__", "somebodys.code")
    assert not packing.known_to_pack(model)
    monkeypatch.undo()
    monkeypatch.setattr(packing, "TRIED_WITH", "4.")
    assert not packing.known_to_pack(model)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_packed_and_padded_features_agree_on_long_windows(family, tokenizer):
    packed = make(family, tokenizer, max_length=60)
    padded = make(family, tokenizer, max_length=60)
    padded.packed = False
    padded.model.set_attn_implementation("sdpa")
    texts = [*TEXTS, " ".join(["the dog ran"] * 50)]
    batch = texts_batch(packed, texts)
    assert len(batch.windows) > len(texts)
    torch.testing.assert_close(packed.features(batch), padded.features(batch), rtol=1e-4, atol=1e-5)


def test_windows_cover_every_word_and_a_short_text_is_unchanged_by_long_neighbours(tokenizer):
    encoder = make("bert", tokenizer, max_length=16)
    task = TASKS.get("ner")()
    words = [f"{w}" for w in ["dog", "cat", "house", "river"] * 40]
    long, short = task.query(words), task.query(["the", "cat"])
    both = task.collate([long, short], ["X"], encoder.tokenizer, with_targets=False)
    assert sorted(both.spans[:, 0]) == list(range(162))
    assert max(len(w) for w in both.windows) <= 16
    alone = encoder.features(task.collate([short], ["X"], encoder.tokenizer, with_targets=False))
    torch.testing.assert_close(encoder.features(both)[160:], alone)


def test_a_word_is_read_where_it_has_most_context(tokenizer):
    encoder = make("bert", tokenizer, max_length=16)
    task = TASKS.get("ner")()
    batch = task.collate([task.query(["dog"] * 60)], ["X"], encoder.tokenizer, with_targets=False)
    for slot, window, start, end in batch.spans:
        length = len(batch.windows[window])
        if slot not in (0, 59) and 4 < slot < 55:
            assert min(start, length - end) >= 1 + encoder.tokenizer.stride // 2 - 1


def test_words_without_tokens_and_blank_tokens_keep_their_slots(tokenizer):
    encoder = make("bert", tokenizer)
    task = TASKS.get("ner")()
    batch = task.collate(
        [task.query(["the", "\u200d", "cat", "\x00"])], ["X"], encoder.tokenizer, with_targets=False
    )
    assert sorted(batch.spans[:, 0]) == [0, 1, 2, 3]
    assert torch.isfinite(encoder.features(batch)).all()


def test_layers_are_concatenated_and_checked(tokenizer):
    encoder = make("bert", tokenizer, layers=(0, -1))
    batch = texts_batch(encoder, TEXTS)
    last = make("bert", tokenizer)
    assert encoder.dimension == 64
    torch.testing.assert_close(encoder.features(batch)[:, 32:], last.features(batch))
    with pytest.raises(FewShotError, match=r"layers=\[7\], but the encoder has layers 0 .* to 3"):
        make("bert", tokenizer, layers=(7,))


def test_cached_features_are_equal_and_bounded(tokenizer):
    encoder = make("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)
    plain = encoder.features(batch)
    with encoder.cached() as cache:
        assert torch.equal(encoder.features(batch), plain)
        assert cache.misses == len(TEXTS)
        assert torch.equal(encoder.features(texts_batch(encoder, TEXTS[::-1])), plain.flip(0))
        assert cache.misses == len(TEXTS)
        assert cache.hits == len(TEXTS)
    with encoder.cached(max_bytes=300) as cache:
        assert torch.equal(encoder.features(batch), plain)
        assert 0 < cache.bytes <= 300


def test_adapters_start_as_identity_and_sit_in_the_top_layers(tokenizer):
    encoder = make("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)
    before, fingerprint = encoder.features(batch), encoder.fingerprint
    encoder.attach(LoraConfig(r=2, target_modules=["query", "value"]), top_layers=1)
    assert len(encoder.adapter) == 4
    assert all("layer.2." in name for name in encoder.adapter)
    assert torch.equal(encoder.features(batch), before)
    assert encoder.fingerprint == fingerprint
    assert not any(p.requires_grad for p in encoder.model.parameters())
    changed = {n: p + 0.5 for n, p in encoder.adapter.items()}
    assert not torch.allclose(encoder.features(batch, changed), before)
    assert torch.equal(encoder.features(batch), before)


def test_other_adapters_and_refusals(tokenizer):
    encoder = make("bert", tokenizer)
    encoder.attach(IA3Config(target_modules=["key", "value"], feedforward_modules=[]), top_layers=2)
    assert len(encoder.adapter) == 4
    with pytest.raises(FewShotError, match="virtual tokens"):
        make("bert", tokenizer).attach(
            PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=2)
        )
    with pytest.raises(FewShotError, match="top_layers is 9, but the encoder has 3"):
        make("bert", tokenizer).attach(LoraConfig(target_modules=["query"]), top_layers=9)
    with pytest.raises(FewShotError, match=r"Target modules .*nothing.* not found"):
        make("bert", tokenizer).attach(LoraConfig(target_modules=["nothing"]))


# ModernBERT computes its rotary angles in float32, whatever the weights' type: a larger step, a looser bound.
@pytest.mark.parametrize(
    ("family", "h", "bound"), [("bert", 1e-6, 1e-5), ("deberta-v2", 1e-6, 1e-5), ("modernbert", 1e-5, 1e-3)]
)
def test_second_order_gradients_match_finite_differences(family, h, bound, tokenizer):
    encoder = make(family, tokenizer)
    encoder.attach(LoraConfig(r=2, target_modules="all-linear"), top_layers=1)
    encoder.model.double()
    batch = texts_batch(encoder, TEXTS)
    torch.manual_seed(1)
    start = {n: torch.randn_like(p) * 0.3 for n, p in encoder.adapter.items()}
    direction = {n: torch.randn_like(p) for n, p in start.items()}

    def inner_gradient_norm(shift):
        weights = {n: (p + shift * direction[n]).requires_grad_() for n, p in start.items()}
        loss = encoder.features(batch, weights, double_backward=True).square().mean()
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        return sum(g.square().sum() for g in grads), weights

    value, weights = inner_gradient_norm(0.0)
    exact = sum(
        (g * direction[n]).sum()
        for n, g in zip(weights, torch.autograd.grad(value, list(weights.values())), strict=True)
    )
    numeric = (inner_gradient_norm(h)[0] - inner_gradient_norm(-h)[0]) / (2 * h)
    torch.testing.assert_close(exact, numeric.detach(), rtol=bound, atol=1e-10)


def test_threads_get_their_own_answers(tokenizer):
    encoder = make("bert", tokenizer)
    encoder.attach(LoraConfig(r=2, target_modules=["query"]))
    batch = texts_batch(encoder, TEXTS)
    weights = [{n: torch.full_like(p, 0.1 * i) for n, p in encoder.adapter.items()} for i in range(4)]
    expected = [encoder.features(batch, w) for w in weights]
    wrong = []

    def work(i):
        for _ in range(20):
            again = texts_batch(encoder, TEXTS)
            if not torch.equal(encoder.features(again, weights[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_chunks_and_runs():
    lengths = [5, 3, 3, 9, 3]
    assert list(chunks(lengths, 9)) == [[1, 2, 4], [0], [3]]
    assert [(r.count, r.length) for r in runs([3, 3, 5, 5, 2])] == [(2, 3), (2, 5), (1, 2)]


@pytest.mark.skipif(bundled_folder() is None, reason="the offline extra is not installed")
def test_the_bundled_encoder_gives_the_features_of_a_plain_forward_pass():
    encoder = Encoder.from_pretrained()
    assert (encoder.packed, encoder.dimension, encoder.tokenizer.max_length) == (True, 384, 256)
    text = "A packed row holds real tokens only."
    ids = encoder.tokenizer.tokenizer(text, return_tensors="pt")
    plain = transformers.AutoModel.from_pretrained(bundled_folder())
    with torch.no_grad():
        expected = plain(**ids).last_hidden_state[0].mean(0)
    got = encoder.features(texts_batch(encoder, ["x", text, "a longer text " * 30]))[1]
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-5)


def test_second_order_says_that_attention_is_written_out_and_refuses_what_cannot_be(tokenizer, caplog):
    encoder = make("bert", tokenizer)
    batch = texts_batch(encoder, ["aspirin"])
    caplog.set_level("INFO", "fewshot_nlp")
    for _ in range(2):
        encoder.features(batch, double_backward=True)
    assert caplog.text.count("attention is written out") == 1
    encoder.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(FewShotError, match="attn_implementation='flash_attention_2', which has no second"):
        encoder.features(batch, double_backward=True)
