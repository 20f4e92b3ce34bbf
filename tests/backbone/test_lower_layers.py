"""Activations of the layers that nothing moves in: equal to a plain pass, bounded, kept on disk, never stale."""

import pytest
import torch
from peft import LoraConfig
from test_encoder import FAMILIES, make, texts_batch, tokenizer  # noqa: F401 - a fixture

TEXTS = ["the bank lost my card", "aspirin", "pay the judge", "aspirin"]


def adapted(family, tokenizer, **options):  # noqa: F811
    encoder = make(family, tokenizer, **options)
    encoder.attach(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False), top_layers=1)
    return encoder


def gradient(encoder, batch):
    weights = {name: p.detach().clone().requires_grad_() for name, p in encoder.adapter.items()}
    features = encoder.features(batch, weights, double_backward=True)
    grads = torch.autograd.grad(features.square().sum(), list(weights.values()))
    return torch.cat([features.flatten(), *[g.flatten() for g in grads]]).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_gradients_are_those_of_a_whole_pass(family, tokenizer):  # noqa: F811
    encoder = adapted(family, tokenizer)
    batch = texts_batch(encoder, TEXTS)
    expected = gradient(encoder, batch)
    with encoder.cache_frozen_layers() as cache:
        first, again = gradient(encoder, batch), gradient(encoder, batch)
    assert cache is not None
    assert (cache.hits, cache.misses) == (3, 3)  # of 4 texts two are one
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-4)  # rounding: sums in another order
    assert torch.equal(first, again)


def test_what_is_kept_does_not_depend_on_the_batch(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer)
    with encoder.cache_frozen_layers():
        expected = encoder.features(texts_batch(encoder, TEXTS[:1]))
    with encoder.cache_frozen_layers():
        encoder.features(texts_batch(encoder, TEXTS))
        assert torch.equal(encoder.features(texts_batch(encoder, TEXTS[:1])), expected)


def test_lower_layers_run_once_for_a_text(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)
    runs = []
    plain = encoder.model.encoder.layer[0].attention
    plain.register_forward_hook(lambda *_: runs.append(1))
    with encoder.cache_frozen_layers():
        runs.clear()
        for _ in range(3):
            encoder.features(batch)
    assert len(runs) == 3  # texts


def test_moved_layers_are_never_kept(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)
    with encoder.cache_frozen_layers(), torch.no_grad():
        before = encoder.features(batch)
        next(iter(encoder.adapter.values())).add_(1.0)
        assert not torch.equal(encoder.features(batch), before)
        base = dict(encoder.model.named_parameters())["encoder.layer.0.output.LayerNorm.bias"]
        fast = {"encoder.layer.0.output.LayerNorm.bias": base + 1.0}
        assert not torch.allclose(encoder.features(batch, fast), encoder.features(batch))


def test_a_lower_layer_that_is_read_is_not_left_out(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer, layers=(1, -1))
    batch = texts_batch(encoder, TEXTS)
    expected = encoder.features(batch)
    with encoder.cache_frozen_layers():
        torch.testing.assert_close(encoder.features(batch), expected)


def test_memory_is_bounded(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)
    with encoder.cache_frozen_layers(1500) as cache:
        first = encoder.features(batch)
        assert cache.bytes <= 1500
        assert torch.equal(encoder.features(batch), first)
        assert cache.misses > 3
    with encoder.cache_frozen_layers(10**6) as cache:
        for _ in range(2):
            assert torch.equal(encoder.features(batch), first)
        assert cache.misses == 3


def test_recomputed_passes_have_the_same_second_order_gradient(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)

    def meta_gradient():
        weights = {name: p.detach().clone().requires_grad_() for name, p in encoder.adapter.items()}
        inner = encoder.features(batch, weights, double_backward=True).square().sum()
        steps = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
        moved = {n: w - 0.01 * g for (n, w), g in zip(weights.items(), steps, strict=True)}
        outer = encoder.features(batch, moved, double_backward=True).square().sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(outer, list(weights.values()))])

    expected = meta_gradient()
    passes = []
    encoder.model.encoder.layer[0].register_forward_hook(lambda *_: passes.append(1))
    encoder.gradient_checkpointing = True
    torch.testing.assert_close(meta_gradient(), expected, rtol=1e-4, atol=1e-4)
    assert len(passes) > 2


def test_two_passes_over_a_batch_share_the_lower_layers(tokenizer):  # noqa: F811
    encoder = adapted("bert", tokenizer)
    batch = texts_batch(encoder, TEXTS)
    fast = {name: w.detach() + 0.1 for name, w in encoder.adapter.items()}
    with torch.no_grad():
        expected = encoder.features(batch, fast), encoder.features(batch)
        with encoder.sharing_lower_layers():
            pass  # the trial
        runs = []
        encoder.model.encoder.layer[0].attention.register_forward_hook(lambda *_: runs.append(1))
        for max_bytes, times in ((2**20, 1), (0, 2)):
            runs.clear()
            with encoder.sharing_lower_layers(max_bytes):
                found = encoder.features(batch, fast), encoder.features(batch)
            assert len(runs) == times
            assert all(map(torch.equal, found, expected))
        assert torch.equal(encoder.features(batch), expected[1])
    assert len(runs) == 3, "outside nothing is shared"
