"""Views: the layers that a pass gives, frozen and trained ones, with another learner on a folder that was trained."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoModel, AutoTokenizer

from fewshot_nlp import FewShotClassifier, FewShotNER
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.adapters import without_adapter
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.backbone.loading import layer_numbers
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.model_files import seal
from fewshot_nlp.tasks.ner import NER

WIDTH = 32
SENTENCES = [
    {"tokens": ["take", "the", "aspirin", "with", "blood"], "ner_tags": ["O", "O", "B-medicine", "O", "O"]},
    {"tokens": ["the", "bank", "card", "was", "lost"], "ner_tags": ["O", "B-money", "I-money", "O", "O"]},
]
TEXTS = ["give aspirin to the judge", "my bank card was lost", "pay", "the order of the court " * 20]
LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["query", "value", "output.dense"]}


def move(encoder: Encoder) -> Encoder:
    """Gives adapter and head values as training does."""
    generator = torch.Generator().manual_seed(1)
    for parameter in encoder.adapter.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    encoder.head = LabelNameHead(WIDTH, layer=2, width=16, seed=1).requires_grad_(False)
    encoder.head.rest_bias.fill_(0.2)
    return encoder


def make(folder: Path, layers: tuple[int, ...] = (2,), learner: str = "prototypical") -> FewShotNER:
    """A model whose encoder has an adapter in its upper layer, and a head."""
    model = FewShotNER.from_pretrained(
        folder,
        learner=learner,
        task_config={"scheme": "bio"},
        layers=(*layers, 2) if 2 not in layers else layers,
        adapter=LoraConfig(**LORA),
        top_layers=1,
    )
    move(model.pipeline.learner.encoder).choose_layers(layers)
    return model


@pytest.fixture(scope="module")
def trained(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is trained, not adapted. Do not write into it."""
    return make(tiny_encoder_folder).save_pretrained(tmp_path_factory.mktemp("views") / "trained")


def encoder_of(model):
    return model.pipeline.learner.encoder


def batch_of(encoder, texts=TEXTS):
    task = NER(scheme="bio")
    return task.collate([task.query(t) for t in texts], ["a"], encoder.tokenizer, with_targets=False)


def names_of(encoder, names):
    task = NER(scheme="bio")
    return task.collate((), sorted(names), encoder.tokenizer, with_targets=True, descriptions=names)


def count_passes(encoder):
    passes = []
    encoder.model.register_forward_hook(lambda *_: passes.append(1))
    return passes


def refusal(call):
    with pytest.raises(FewShotError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_one_pass_gives_the_frozen_layer_as_it_was_and_the_trained_one(trained, tiny_encoder_folder):
    model = FewShotNER.from_pretrained(trained, learner="ridge", layers=(1, 2))
    encoder = encoder_of(model)
    plain = Encoder.from_pretrained(tiny_encoder_folder, layers=(1, 2))
    batch = batch_of(encoder)
    passes = count_passes(encoder)
    both = encoder.features(batch)
    assert len(passes) == 1
    assert len(batch.windows) > len(TEXTS)  # one text is longer than a window
    frozen = plain.features(batch)
    assert torch.equal(both[:, :WIDTH], frozen[:, :WIDTH])
    assert (both[:, WIDTH:] - frozen[:, WIDTH:]).abs().mean() > 0.01
    full = make(tiny_encoder_folder)  # reads the last layer only
    torch.testing.assert_close(both[:, WIDTH:], encoder_of(full).features(batch))


def test_layers_are_those_of_transformers_word_by_word(trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="ridge", layers=(2, 0, 1)))
    tokenizer, model = AutoTokenizer.from_pretrained(trained / "encoder"), encoder.model
    rows = encoder.features(batch_of(encoder, TEXTS[:3]))
    encoder.model.set_attn_implementation("eager")
    expected = []
    for text in TEXTS[:3]:  # each word is one token
        states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected.append(torch.cat([states[layer][0, 1:-1] for layer in (2, 0, 1)], dim=1))
    torch.testing.assert_close(rows, torch.cat(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [(1,), (2,), (0, 1), (1, 2), (2, 1)])
def test_views_are_features_and_the_heads_layer_out_of_one_pass(layers, trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="ridge", layers=layers))
    batch = batch_of(encoder)
    features = encoder.features(batch)
    passes = count_passes(encoder)
    seen, read = encoder.views(batch)
    assert len(passes) == 1
    assert seen.shape == (batch.n_slots, WIDTH * len(layers)) == (batch.n_slots, encoder.dimension)
    assert torch.equal(seen, features)
    encoder.choose_layers((encoder.head.layer,))
    torch.testing.assert_close(read, encoder.features(batch))
    encoder.head = None
    assert torch.equal(*encoder.views(batch))


def test_cached_views_are_equal_and_other_layers_are_not_taken_from_the_cache(trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="ridge", layers=(1,)))
    batch = batch_of(encoder)
    lower, read = encoder.views(batch)
    with encoder.cached() as cache:
        for _ in range(2):
            again = encoder.views(batch)
            assert torch.equal(again[0], lower)
            assert torch.equal(again[1], read)
        assert cache.hits == len(batch.windows)
        encoder.choose_layers((0, 1))
        assert torch.equal(encoder.features(batch)[:, WIDTH:], lower)


def test_views_with_lower_layers_kept(trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="ridge", layers=(1, 2)))
    batch = batch_of(encoder)
    names = names_of(encoder, {"drug": "a drug", "cash": "cash"})
    seen, read, vectors = *encoder.views(batch), encoder.name_vectors(names)
    with encoder.cache_frozen_layers() as cache:
        assert cache is not None
        for _ in range(2):
            for got, expected in zip(encoder.views(batch), (seen, read), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(encoder.name_vectors(names), vectors, rtol=1e-4, atol=1e-5)
        assert cache.hits > 0


def adapted_layers(encoder):
    return {name.split(".lora_")[0] for name in encoder.adapter}


@pytest.mark.parametrize("layers", [(1,), (1, 2), (0.5, -1)])
def test_the_adapter_stays_where_it_was_trained(layers, trained, tiny_encoder_folder):
    expected = encoder_of(make(tiny_encoder_folder))
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="context_probe", layers=layers))
    assert adapted_layers(encoder) == adapted_layers(expected)
    assert all(".1." in name and ".0." not in name for name in adapted_layers(encoder))
    assert encoder.top_layers == 1
    for name, value in expected.adapter.items():
        assert torch.equal(encoder.adapter[name], value)
    for name, value in expected.head.state_dict().items():
        assert torch.equal(encoder.head.state_dict()[name], value)
    assert not any(p.requires_grad for p in encoder.head.parameters())


def places(predictions):
    return [[(e["entity_group"], e["start"], e["end"]) for e in row] for row in predictions]


@pytest.mark.parametrize("learner", ["ridge", "context_probe", "label_names", "maml"])
@pytest.mark.parametrize("layers", [(1, 2), (1,)])
def test_another_learner_on_a_trained_folder_is_saved_and_loaded(learner, layers, trained, tmp_path):
    config = {"inner_steps": 2} if learner == "maml" else {}
    model = FewShotNER.from_pretrained(trained, learner=learner, learner_config=config, layers=layers)
    model.save_pretrained(tmp_path / "not adapted")
    model.adapt(SENTENCES, {"law": "a court", "medicine": "drug", "money": "cash"})
    model.save_pretrained(tmp_path / "adapted")
    loaded = FewShotNER.from_pretrained(tmp_path / "adapted")
    batch = model.pipeline.queries([model.pipeline.task.query(t) for t in TEXTS], model.labels)
    expected = model._model.adapted.scores(batch)
    torch.testing.assert_close(loaded._model.adapted.scores(batch), expected, rtol=1e-5, atol=1e-5)
    assert places(loaded.predict(TEXTS)) == places(model.predict(TEXTS))
    state, same = model._model.adapted.state, loaded._model.adapted.state
    assert state.keys() == same.keys()
    assert all(torch.equal(value, same[key]) for key, value in state.items())
    has_prior = any(key.startswith("prior.") for key in state)
    assert has_prior == (learner != "label_names")  # which is the head already
    again = FewShotNER.from_pretrained(tmp_path / "not adapted")
    assert encoder_of(again).layers == encoder_of(model).layers
    assert encoder_of(again).fingerprint == encoder_of(model).fingerprint
    again.adapt(SENTENCES, {"law": "a court", "medicine": "drug", "money": "cash"})
    torch.testing.assert_close(again._model.adapted.scores(batch), expected, rtol=1e-4, atol=1e-4)


def test_another_learner_has_its_own_settings_and_the_tasks_stay(trained):
    model = FewShotNER.from_pretrained(trained, learner="ridge", learner_config={"penalty": 3.0})
    assert model.pipeline.learner.name == "ridge"
    assert model.pipeline.learner.config.penalty == 3.0
    assert model.pipeline.task.scheme == "bio"
    assert encoder_of(model).layers == (2,)
    message = refusal(lambda: FewShotNER.from_pretrained(trained, learner="ridge", learner_config={"C": 1.0}))
    assert "learner_config has no setting 'C'" in message


def test_label_names_reads_the_layer_of_the_encoders_head(trained):
    one = FewShotNER.from_pretrained(trained, learner="label_names", layers=(1,))
    two = FewShotNER.from_pretrained(trained, learner="label_names", layers=(2,))
    assert one.pipeline.learner.names is encoder_of(one).head
    for model in (one, two):
        model.adapt(SENTENCES)
    batch = one.pipeline.queries([one.pipeline.task.query(t) for t in TEXTS], one.labels)
    torch.testing.assert_close(one._model.adapted.scores(batch), two._model.adapted.scores(batch))


@pytest.mark.parametrize(
    "option", [{"learner": "ridge"}, {"layers": (1,)}, {"learner_config": {"scale": 2.0}}]
)
def test_an_adapted_folder_keeps_learner_layers_and_settings(option, trained, tmp_path):
    FewShotNER.from_pretrained(trained).adapt(SENTENCES).save_pretrained(tmp_path / "adapted")
    message = refusal(lambda: FewShotNER.from_pretrained(tmp_path / "adapted", **option))
    assert "is adapted to 2 labels by prototypical on layers [2]" in message
    FewShotNER.from_pretrained(tmp_path / "adapted", learner="prototypical")  # its own


def test_a_trained_part_of_the_learner_keeps_its_layers(tiny_encoder_folder, tmp_path):
    folder = make(tiny_encoder_folder, learner="ridge").save_pretrained(tmp_path / "ridge")
    message = refusal(lambda: FewShotNER.from_pretrained(folder, layers=(1,)))
    assert "has a trained part of ridge that reads layers [2]" in message
    assert encoder_of(FewShotNER.from_pretrained(folder, learner="prototypical", layers=(1,))).layers == (1,)


@pytest.mark.parametrize("layers", [(3,), (1, 7), (-4,)])
def test_layers_that_do_not_exist_are_refused(layers, trained):
    message = refusal(lambda: FewShotNER.from_pretrained(trained, learner="ridge", layers=layers))
    assert f"layers={list(layers)}, but the encoder has layers 0 (embeddings) to 2" in message
    encoder = encoder_of(FewShotNER.from_pretrained(trained))
    refusal(lambda: encoder.choose_layers(layers))
    assert encoder.layers == (2,)


def test_layers_above_those_that_were_loaded_are_refused(tiny_encoder_folder, tmp_path):
    model = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe", layers=(1,))
    folder = model.save_pretrained(tmp_path / "lower")
    assert encoder_of(FewShotClassifier.from_pretrained(folder, layers=(0, 1))).layers == (0, 1)
    message = refusal(lambda: FewShotClassifier.from_pretrained(folder, layers=(2,)))
    assert "layers 0 (embeddings) to 1" in message


def test_a_damaged_head_is_refused(trained, tmp_path):
    model = FewShotNER.from_pretrained(trained)
    folder = model.save_pretrained(tmp_path / "model")
    text = (folder / "fewshot_nlp.json").read_text()
    for good, bad, part in (
        ('"layer": 2', '"layer": 9', "its head reads layer 9"),
        ('"layer": 2', '"layer": "2"', "layer is a str"),
        ('"width": 16', '"width": 17', "does not fit"),
    ):
        assert good in text
        (folder / "fewshot_nlp.json").write_text(text.replace(good, bad))
        seal(folder)
        assert part in refusal(lambda: FewShotNER.from_pretrained(folder))


def test_a_float64_encoder_has_a_float64_head(trained):
    scores = {}
    for dtype in (torch.float32, torch.float64):
        model = FewShotNER.from_pretrained(trained, dtype=dtype).adapt(SENTENCES)
        batch = model.pipeline.queries([model.pipeline.task.query(t) for t in TEXTS], model.labels)
        scores[dtype] = model._model.adapted.scores(batch)
    assert scores[torch.float64].dtype == torch.float64
    torch.testing.assert_close(scores[torch.float32].double(), scores[torch.float64], rtol=1e-3, atol=1e-4)


NAMES = {"drug": "a drug for pain", "law": "court", "long": "the order of the judge " * 20}


def without_anything(folder, names):
    """Means of the last layer's tokens, by transformers alone and window by window."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for name in sorted(names):
        ids = tokenizer(
            [names[name]],
            truncation=True,
            max_length=64,
            stride=16,
            return_overflowing_tokens=True,
        )["input_ids"]
        with torch.no_grad():
            tokens = [model(torch.tensor([row])).last_hidden_state[0, 1:-1] for row in ids]
        rows += [torch.cat(tokens).mean(0)] * 2  # B and I
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [(2,), (1,), (0, 1)])
def test_name_vectors_are_those_without_the_adapter(layers, trained, tiny_encoder_folder):
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="ridge", layers=layers))
    names = names_of(encoder, NAMES)
    assert len(names.windows) > 2 * len(NAMES)
    vectors = encoder.name_vectors(names)
    torch.testing.assert_close(vectors, without_anything(tiny_encoder_folder, NAMES), rtol=1e-4, atol=1e-5)
    assert (vectors - encoder.views(names)[1]).abs().mean() > 0.01
    assert encoder.layers == layers


def test_name_vectors_change_nothing(trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained))
    some = [p for n, p in encoder.model.named_parameters() if "lora_A" in n or "LayerNorm" in n]
    for parameter in some:
        parameter.requires_grad_()
    flags = {n: p.requires_grad for n, p in encoder.model.named_parameters()}
    values = {n: t.clone() for n, t in encoder.model.state_dict().items()}
    assert 0 < sum(flags.values()) < len(flags)
    batch = batch_of(encoder)
    before = encoder.features(batch)
    vectors = encoder.name_vectors(names_of(encoder, NAMES))
    assert not vectors.requires_grad
    assert {n: p.requires_grad for n, p in encoder.model.named_parameters()} == flags
    assert all(torch.equal(t, values[n]) for n, t in encoder.model.state_dict().items())
    assert torch.equal(encoder.features(batch), before)
    encoder.features(batch).sum().backward()
    assert all(p.grad is not None for n, p in encoder.model.named_parameters() if flags[n] and ".1." in n)


def test_flags_and_adapter_come_back_after_an_error(trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained))
    flags = {n: p.requires_grad for n, p in encoder.model.named_parameters()}
    batch = batch_of(encoder)
    before = encoder.features(batch)
    with without_adapter(encoder.model):
        assert not torch.equal(encoder.features(batch), before)
    encoder.model.embeddings.register_forward_pre_hook(lambda *_: 1 / 0, prepend=True)
    with pytest.raises(ZeroDivisionError):
        encoder.name_vectors(batch)
    encoder.model.embeddings._forward_pre_hooks.clear()
    assert torch.equal(encoder.features(batch), before)
    assert {n: p.requires_grad for n, p in encoder.model.named_parameters()} == flags


def test_a_model_without_adapter_runs_as_it_is():
    model = nn.Linear(3, 2)
    with without_adapter(model):
        assert model.weight.requires_grad
    assert model.weight.requires_grad


def test_an_encoder_without_adapter_has_name_vectors_too(tiny_encoder_folder):
    encoder = Encoder.from_pretrained(tiny_encoder_folder)
    encoder.head = LabelNameHead(WIDTH, layer=2, width=16)
    names = names_of(encoder, NAMES)
    assert torch.equal(encoder.name_vectors(names), encoder.features(names))


def test_threads_read_names_and_texts_of_one_encoder(trained):
    encoder = encoder_of(FewShotNER.from_pretrained(trained, learner="ridge", layers=(1,)))
    batch, names = batch_of(encoder, TEXTS[:3]), names_of(encoder, {"drug": "drug", "law": "court"})
    seen, vectors = encoder.views(batch), encoder.name_vectors(names)
    problems = []

    def work(number):
        try:
            for _ in range(15):
                if number % 2:
                    assert torch.equal(encoder.name_vectors(names), vectors)
                else:
                    assert all(torch.equal(a, b) for a, b in zip(encoder.views(batch), seen, strict=True))
        except Exception as error:  # noqa: BLE001 - told below
            problems.append(repr(error))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert encoder.layers == (1,)


def test_a_folder_of_another_task_is_refused_with_learner_and_layers_too(trained):
    message = refusal(lambda: FewShotClassifier.from_pretrained(trained, learner="ridge", layers=(1,)))
    assert "is a model for ner, not for classification" in message


def test_probabilities_of_a_classifier_on_a_trained_folder(tiny_encoder_folder, tmp_path):
    rows = [{"text": "I lost my card", "label": "card"}, {"text": "send money to her", "label": "cash"}]
    model = FewShotClassifier.from_pretrained(
        tiny_encoder_folder, learner="maml", adapter=LoraConfig(**LORA), top_layers=1
    )
    move(encoder_of(model))
    folder = model.save_pretrained(tmp_path / "trained")
    loaded = FewShotClassifier.from_pretrained(folder, learner="linear_probe", layers=(1, 2)).adapt(rows)
    expected = loaded.predict_proba(TEXTS)
    loaded.save_pretrained(tmp_path / "adapted")
    again = FewShotClassifier.from_pretrained(tmp_path / "adapted")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)


@pytest.mark.parametrize("layers", [1, "x", [True], ["3"], None])
def test_layers_that_are_no_list_of_numbers_are_refused_in_one_line(layers):
    with pytest.raises(FewShotError, match="must be a list of numbers"):
        layer_numbers(layers, 6)
