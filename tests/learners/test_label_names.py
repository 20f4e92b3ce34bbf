"""The head of label names, the prior that it gives every learner, and the learner that corrects it."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import SIX, SIZE, of_family
from transformers import AutoModel, AutoTokenizer, ElectraConfig, RobertaConfig
from vectors import random_episode, slots

from fewshot_nlp import FewShotClassifier, FewShotNER
from fewshot_nlp.backbone.head import PREFIX
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners.label_names import LabelNames, LabelNamesConfig
from fewshot_nlp.slots import Hints, SlotBatch
from fewshot_nlp.tasks.label_words import readable

HIDDEN = 32
BIO = ([False, True, True, True, True], [0, 1, 1, 2, 2])
IO = ([False, True, True], None)
LABELS = ([True, True, True, True], None)
TYPES = {"law": "a court or judge", "medicine": "a drug", "money": "cash"}
SENTENCES = [
    {"tokens": ["take", "the", "aspirin", "with", "blood"], "ner_tags": ["O", "O", "B-medicine", "O", "O"]},
    {"tokens": ["the", "bank", "card", "was", "lost"], "ner_tags": ["O", "B-money", "I-money", "O", "O"]},
]
QUERY = [["give", "aspirin", "to", "the", "judge"], ["my", "bank", "card", "was", "lost"], ["pay", "cash"]]


def head(hidden=6, width=4, seed=0, layer=1):
    made = LabelNameHead(hidden, layer=layer, width=width, seed=seed).double()
    made.rest_bias.data.fill_(0.7)
    return made


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(head, names, named, coarse, features):
    """Scores class by class, from the head's layers; the sum of exponentials where a class has two rows."""
    slot = head.slot(F.layer_norm(features, features.shape[1:]))
    columns = []
    for c, known in enumerate(named):
        name = names[c] / names[c].norm() * math.sqrt(len(names[c]))
        if not known:
            columns.append(slot @ head.rest / math.sqrt(head.width) + head.rest_bias)
        elif coarse is None:
            ways = [slot @ project(name) / math.sqrt(head.width) for project in (head.first, head.inner)]
            columns.append(torch.log(ways[0].exp() + ways[1].exp()))
        else:
            project = head.inner if coarse[c] in coarse[:c] else head.first
            columns.append(slot @ project(name) / math.sqrt(head.width))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(("named", "coarse"), [BIO, IO, LABELS])
def test_scores_are_those_of_a_loop_over_the_classes(named, coarse):
    made, names, features = head(), random(len(named), 6, seed=1), random(9, 6, seed=2)
    got = made.linear_scores(made.linear_head(names, named, coarse), features)
    torch.testing.assert_close(got, by_hand(made, names, named, coarse, features))


def test_name_and_slot_count_by_direction_only():
    made, names, features = head(), random(3, 6, seed=1), random(9, 6, seed=2)
    plain = made.linear_scores(made.linear_head(names, [True] * 3), features)
    longer = made.linear_scores(made.linear_head(5 * names, [True] * 3), 3 * features + 1)
    torch.testing.assert_close(longer, plain, rtol=1e-4, atol=1e-4)


def test_far_scores_stay_finite():
    made, names = head(), random(3, 6, seed=1)
    state = made.linear_head(names, [False, True, True])
    state["weight"] = 1e4 * state["weight"]
    features = random(9, 6, seed=2).requires_grad_()
    scores = made.linear_scores(state, features)
    scores.logsumexp(dim=1).sum().backward()
    assert torch.isfinite(scores).all()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize(("named", "coarse"), [BIO, IO, LABELS])
def test_gradient_of_the_head_matches_finite_differences(named, coarse):
    made = head()
    keys = [name for name, _ in made.named_parameters()]

    def scores(names, features, *values):
        for key, value in zip(keys, values, strict=True):
            owner = made.get_submodule(key.rpartition(".")[0])
            owner._parameters[key.rpartition(".")[2]] = value
        return made.linear_scores(made.linear_head(names, named, coarse), features)

    values = [p.detach().clone() for p in made.parameters()]
    inputs = [random(len(named), 6, seed=1), random(4, 6, seed=2), *values]
    assert torch.autograd.gradcheck(scores, [t.requires_grad_() for t in inputs])


def test_same_seed_same_head_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = (LabelNameHead(6, layer=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.slot.weight, other.slot.weight)


def batch_of(windows, spans, n_slots, targets=None, label_slots=None, n_classes=3):
    return SlotBatch(
        items=(),
        windows=windows,
        types=None,
        spans=np.array(spans, np.int64).reshape(-1, 4),
        groups=torch.arange(n_slots),
        classes=tuple("abcdef"[:n_classes]),
        pooling="mean",
        normaliser="classes",
        targets=None if targets is None else torch.tensor(targets),
        hints=Hints(label_slots=None if label_slots is None else torch.tensor(label_slots)),
    )


def same_partition(keys, tuples):
    assert [[a == b for b in tuples] for a in tuples] == [
        [a == b for b in keys.tolist()] for a in keys.tolist()
    ]


def test_token_keys_are_equal_where_the_tokens_are():
    generator = np.random.default_rng(0)
    windows = [generator.integers(0, 3, size=n).tolist() for n in (9, 1, 14, 6)]
    spans, tuples = [], []
    for window, row in enumerate(windows):
        for first in range(len(row)):
            for last in range(first + 1, min(first + 4, len(row)) + 1):
                spans.append((len(spans), window, first, last))
                tuples.append(tuple(row[first:last]))
    keys = batch_of(windows, spans, len(spans)).token_keys
    assert 20 < len(set(tuples)) < len(tuples)
    same_partition(keys, tuples)


def test_token_keys_of_slots_of_several_spans():
    words = [(5, 9), (9, 5), (7, 7), (5, 9), (6, 8), (14,), (5, 9, 5), (5, 5, 9)]
    windows = [[1, *word, 2] for word in words]
    token_by_token = [
        (slot, slot, t, t + 1) for slot, word in enumerate(words) for t in range(1, len(word) + 1)
    ]
    same_partition(batch_of(windows, token_by_token, len(words)).token_keys, words)
    whole = [(slot, slot, 1, len(word) + 1) for slot, word in enumerate(words)]
    assert np.array_equal(
        batch_of(windows, whole, len(words)).token_keys,
        batch_of(windows, token_by_token, len(words)).token_keys,
    )


def test_token_keys_of_texts_of_several_windows():
    texts = [[[1, 5, 2], [1, 6, 2]], [[1, 6, 2], [1, 5, 2]], [[1, 5, 2], [1, 6, 2]], [[1, 5, 2]], [[1, 6, 2]]]
    windows = [w for text in texts for w in text]
    owner = [slot for slot, text in enumerate(texts) for _ in text]
    spans = [(slot, number, 0, 3) for number, slot in enumerate(owner)]
    keys = batch_of(windows, spans, len(texts)).token_keys
    same_partition(keys, [tuple(map(tuple, text)) for text in texts])


def test_token_keys_do_not_depend_on_the_rest_of_the_batch():
    windows = [[3, 4, 5, 6], [7, 8], [4, 5]]
    batch = batch_of(windows, [(0, 0, 1, 3), (1, 1, 0, 2), (2, 2, 0, 2)], 3)
    kept = batch.select(torch.tensor([False, True, True]))
    assert np.array_equal(kept.token_keys, batch.token_keys[1:])
    assert len(batch_of([], [], 0).token_keys) == 0


def prior_problem():
    """Support, queries, names of two BIO types, a made-up backbone; the support labels the words of queries 0 and 3."""
    made = head(hidden=6)
    spans = [(i, i, 0, 1) for i in range(4)]
    names = batch_of([[50], [50], [51], [51]], spans, 4, [1, 2, 3, 4], [True] * 4, 5)
    names = replace(names, hints=replace(names.hints, coarse=(0, 1, 1, 2, 2)))
    vectors = random(4, 6, seed=3)
    encoder = SimpleNamespace(head=made, name_vectors=lambda batch: vectors)
    words = [[10, 11], [12], [13], [14]]
    support = batch_of(words, [(i, i, 0, len(w)) for i, w in enumerate(words)], 4, [1, 0, 4, 3], None, 5)
    asked = [[10, 11], [12], [11, 10], [14], [15], [10]]
    query = batch_of(asked, [(i, i, 0, len(w)) for i, w in enumerate(asked)], 6, None, None, 5)
    return encoder, vectors, names, support, query


@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_the_prior_is_mixed_by_its_formula(weight):
    encoder, vectors, names, support, query = prior_problem()
    state = encoder.head.fit(encoder, names, support)
    read, scores = random(6, 6, seed=4), random(6, 5, seed=5)
    theirs = by_hand(encoder.head, torch.cat([torch.ones(1, 6), vectors]), *BIO, read)
    got = encoder.head.join(encoder.head.scores(state, read), lambda _: scores, query, state, weight)
    for row in range(6):
        w = 0 if row in (0, 3) else weight / math.sqrt(2)
        own, head_says = torch.log(scores[row].softmax(0)), torch.log(theirs[row].softmax(0))
        torch.testing.assert_close(got[row], (1 - w) * own + w * head_says)


def test_anchors_and_words_outside_of_entities_are_not_labelled():
    encoder, _, names, support, query = prior_problem()
    support = replace(support, hints=Hints(label_slots=torch.tensor([False, False, False, True])))
    state = encoder.head.fit(encoder, names, support)
    labelled = np.isin(query.token_keys, state[PREFIX + "labelled"].numpy())
    assert labelled.tolist() == [True, False, False, False, False, False]


def test_a_class_is_the_mean_of_its_names():
    made, vectors = head(), random(3, 6, seed=3)
    names = batch_of([[1], [2], [3]], [(i, i, 0, 1) for i in range(3)], 3, [1, 1, 2], [True] * 3, 3)
    means = torch.stack([torch.ones(6).double(), (vectors[0] + vectors[1]) / 2, vectors[2]])
    expected = made.linear_head(means, [False, True, True])
    for key, value in made.named_head(vectors, names).items():
        torch.testing.assert_close(value, expected[key])


def with_head(model, seed=1):
    """Gives a model's encoder a head with values large enough to be seen."""
    encoder = model.pipeline.learner.encoder
    encoder.head = LabelNameHead(HIDDEN, layer=encoder.layers[-1], width=16, seed=seed).requires_grad_(False)
    encoder.head.rest_bias.fill_(0.2)
    learner = model.pipeline.learner
    model.pipeline = replace(model.pipeline, learner=type(learner)(encoder, learner.config))
    return model


def tagger(folder, **options):
    options = {"learner": "prototypical", "task_config": {"scheme": "bio"}, "layers": (1, 2), **options}
    return FewShotNER.from_pretrained(folder, **options)


def reader(folder):
    """The last layer's output for the tokens of one text, by transformers alone."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda text: model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 1:-1].detach()


def query_scores(model):
    task = model.pipeline.task
    batch = model.pipeline.queries([task.query(words) for words in QUERY], model.labels)
    return model._model.adapted.scores(batch), batch


def test_words_that_the_support_labels_are_left_to_the_learner(tiny_encoder_folder):
    plain, _ = query_scores(tagger(tiny_encoder_folder).adapt(SENTENCES, TYPES))
    mixed, _ = query_scores(with_head(tagger(tiny_encoder_folder)).adapt(SENTENCES, TYPES))
    labelled = {
        w for row in SENTENCES for w, t in zip(row["tokens"], row["ner_tags"], strict=True) if t != "O"
    }
    words = [word for sentence in QUERY for word in sentence]
    changed = (mixed.log_softmax(1) - plain.log_softmax(1)).abs().amax(1) > 1e-5
    assert changed.tolist() == [word not in labelled for word in words]
    assert 0 < sum(word in labelled for word in words) < len(words)


@pytest.mark.parametrize("weight", [0.4, 0.9])
def test_a_model_mixes_learner_and_head_sentence_by_sentence(weight, tiny_encoder_folder):
    model = with_head(tagger(tiny_encoder_folder, learner_config={"head_weight": weight})).adapt(
        SENTENCES, TYPES
    )
    mixed, _ = query_scores(model)
    plain, _ = query_scores(tagger(tiny_encoder_folder).adapt(SENTENCES, TYPES))
    encoder = model.pipeline.learner.encoder
    last_layer = reader(tiny_encoder_folder)
    with torch.no_grad():
        vectors = [last_layer(words).mean(0) for words in TYPES.values() for _ in "BI"]
        named, coarse = [False] + [True] * 6, [0, 1, 1, 2, 2, 3, 3]
        names = torch.stack([torch.ones(HIDDEN), *vectors])
        read = torch.cat([last_layer(" ".join(words)) for words in QUERY])  # each word is one token
        theirs = by_hand(encoder.head, names, named, coarse, read).log_softmax(1)
    share = torch.full((len(read), 1), weight / math.sqrt(3))
    words = [word for sentence in QUERY for word in sentence]
    share[[word in {"aspirin", "bank", "card"} for word in words]] = 0
    expected = (1 - share) * plain.log_softmax(1) + share * theirs
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-4)


def test_without_weight_the_head_is_as_if_it_were_not_there(tiny_encoder_folder):
    plain = tagger(tiny_encoder_folder).adapt(SENTENCES, TYPES)
    model = with_head(tagger(tiny_encoder_folder, learner_config={"head_weight": 0})).adapt(SENTENCES, TYPES)
    assert torch.equal(query_scores(model)[0], query_scores(plain)[0])
    assert model.predict(QUERY) == plain.predict(QUERY)
    assert model._model.adapted.state.keys() == plain._model.adapted.state.keys()
    used = with_head(tagger(tiny_encoder_folder)).adapt(SENTENCES, TYPES)
    assert not torch.equal(query_scores(used)[0], query_scores(plain)[0])


@pytest.mark.parametrize("learner", ["prototypical", "context_probe", "nearest_neighbour", "label_names"])
@pytest.mark.parametrize("scheme", ["bio", "io"])
def test_no_example_leaves_the_head_alone(learner, scheme, tiny_encoder_folder):
    options = {"learner": learner, "task_config": {"scheme": scheme}}
    model = with_head(tagger(tiny_encoder_folder, **options)).adapt([], TYPES)
    scores, batch = query_scores(model)
    encoder = model.pipeline.learner.encoder
    classes = model.pipeline.task.classes(sorted(TYPES))
    with torch.no_grad():
        _, read = encoder.views(batch)
        texts = [TYPES[c.removeprefix("B-").removeprefix("I-")] for c in classes[1:]]
        last_layer = reader(tiny_encoder_folder)
        names = [last_layer(text).mean(0) for text in texts]
        named = [False] + [True] * len(names)
        coarse = [0, 1, 1, 2, 2, 3, 3] if scheme == "bio" else None
        expected = by_hand(encoder.head, torch.stack([torch.ones(HIDDEN), *names]), named, coarse, read)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("learner", ["prototypical", "context_probe", "label_names", "maml", "fine_tune"])
@pytest.mark.parametrize("scheme", ["bio", "io"])
def test_without_example_and_head_entities_are_refused(learner, scheme, tiny_encoder_folder):
    model = tagger(tiny_encoder_folder, learner=learner, task_config={"scheme": scheme})
    with pytest.raises(
        FewShotError, match=r"nothing says what is 'O', none of the 3 labels: .* trained head"
    ):
        model.adapt([], TYPES)
    assert not model.is_adapted
    assert model.adapt(SENTENCES, TYPES).is_adapted


@pytest.mark.parametrize(
    "config",
    [
        RobertaConfig(**SIZE, **SIX),
        ElectraConfig(**SIZE, embedding_size=32, max_position_embeddings=66),
    ],
    ids=lambda config: config.model_type,
)
def test_no_family_names_entities_without_example_and_head(config, tiny_encoder_folder, tmp_path):
    model = tagger(of_family(tmp_path, tiny_encoder_folder, config), learner="context_probe")
    with pytest.raises(FewShotError, match=r"nothing says what is 'O', none of the 3 labels"):
        model.adapt([], TYPES)


def test_a_head_that_cannot_be_read_is_told_why(tiny_encoder_folder):
    model = with_head(tagger(tiny_encoder_folder))
    with pytest.raises(FewShotError, match="describe 'Z', whose name says nothing, with labels="):
        model.adapt([], ["PER", "Z"])
    assert model.adapt([], {"PER": "", "Z": "a disease"}).labels == ["PER", "Z"]
    model = with_head(tagger(tiny_encoder_folder, learner_config={"head_weight": 0}))
    with pytest.raises(FewShotError, match="set head_weight above 0"):
        model.adapt([], TYPES)


def test_a_head_of_names_that_the_learner_has_trained_may_stand_alone(tiny_encoder_folder):
    model = tagger(tiny_encoder_folder, learner="label_names")
    assert not model.pipeline.learner.knows_the_rest
    with torch.no_grad():
        model.pipeline.learner.names.rest_bias.add_(1.0)
    assert model.pipeline.learner.knows_the_rest
    assert model.adapt([], TYPES).is_adapted


def test_without_example_words_may_be_outside_of_entities(tiny_encoder_folder):
    found = {}
    for bias in (-20.0, 20.0):
        model = with_head(tagger(tiny_encoder_folder))
        model.pipeline.learner.encoder.head.rest_bias.fill_(bias)
        model.adapt([], labels=TYPES)
        found[bias] = model.predict(QUERY)
        assert {e["entity_group"] for row in found[bias] for e in row} <= set(TYPES)
    assert found[20.0] == [[], [], []]
    assert all(found[-20.0])


def test_without_example_names_and_descriptions_decide(tiny_encoder_folder):
    clf = with_head(FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical"))
    texts = ["the drug", "lost my card"]
    first = clf.adapt([], labels=["bank", "pain"]).predict_proba(texts)
    other = clf.adapt([], labels={"bank": "aspirin", "pain": "court order"}).predict_proba(texts)
    assert np.abs(first - other).max() > 1e-3
    swapped = clf.adapt([], labels={"bank": "pain", "pain": "bank"}).predict_proba(texts)
    np.testing.assert_allclose(swapped, first[:, ::-1], atol=1e-5)


def test_several_labels_at_once_are_not_the_heads(tiny_encoder_folder):
    rows = [{"text": "lost card", "labels": ["card"]}, {"text": "pay cash", "labels": ["cash", "card"]}]
    options = {"learner": "prototypical", "task_config": {"multi_label": True}}
    plain = FewShotClassifier.from_pretrained(tiny_encoder_folder, **options).adapt(rows)
    model = with_head(FewShotClassifier.from_pretrained(tiny_encoder_folder, **options)).adapt(rows)
    np.testing.assert_array_equal(model.predict_proba(["a card"]), plain.predict_proba(["a card"]))


def regression(x, y, penalty):
    """Ridge regression with a free intercept, by its normal equations."""
    wide = np.c_[x, np.ones(len(x))]
    solution = np.linalg.solve(wide.T @ wide + np.diag([penalty] * x.shape[1] + [0]), wide.T @ y)
    return solution[:-1], solution[-1]


@pytest.mark.parametrize("normaliser", ["classes", "independent"])
@pytest.mark.parametrize("names", [True, False])
def test_examples_correct_the_names_by_a_ridge_regression(normaliser, names):
    encoder, support, query = random_episode(normaliser)
    config = LabelNamesConfig(penalty=0.3, step=5.0, width=4, label_names=float(names))
    learner = LabelNames(encoder, config).double()
    rows = encoder.table.numpy()
    x = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    name_scores = torch.zeros(len(rows), 3, dtype=torch.float64)
    if names:
        name_scores = by_hand(learner.names, encoder.table[9:12], [True] * 3, None, encoder.table).detach()
    chance = name_scores[:9].softmax(1) if normaliser == "classes" else name_scores[:9].sigmoid()
    weight, bias = regression(x[:9], support.target_matrix[:9].numpy() - chance.numpy(), 0.3)
    expected = name_scores[12:].numpy() + 5.0 * (x[12:] @ weight + bias)
    got = learner.adapt(support).scores(query)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normaliser", ["classes", "independent"])
def test_meta_gradient_matches_finite_differences(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = LabelNames(encoder, LabelNamesConfig(width=4)).double()
    learner.names.rest.requires_grad_(False)  # no class is without a name here
    learner.names.rest_bias.requires_grad_(False)
    shift = encoder.adapter["shift"].requires_grad_()
    learner.meta_loss(support, query).backward()
    moved = {n: p for n, p in learner.named_parameters() if p.requires_grad} | {"shift": shift}
    assert {"log_penalty", "log_step", "names.slot.weight", "names.first.bias"} < set(moved)
    for number, (name, parameter) in enumerate(moved.items()):
        direction = random(*parameter.shape, seed=number)
        values = []
        for step in (1e-6, -1e-6):
            parameter.data += step * direction
            values.append(float(learner.meta_loss(support, query).detach()))
            parameter.data -= step * direction
        exact = float((parameter.grad * direction).sum())
        assert exact != 0, name
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-9), name


def test_meta_gradient_of_the_rest():
    encoder, support, query = random_episode()
    support = support.select(~support.label_slot_mask | (support.gold > 0))  # class 0 has no name
    learner = LabelNames(encoder, LabelNamesConfig(width=4)).double()
    learner.meta_loss(support, query).backward()
    for parameter in (learner.names.rest, learner.names.rest_bias):
        direction = torch.ones_like(parameter)
        values = []
        for step in (1e-6, -1e-6):
            parameter.data += step * direction
            values.append(float(learner.meta_loss(support, query).detach()))
            parameter.data -= step * direction
        exact = float((parameter.grad * direction).sum())
        assert exact != 0
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_names_alone_suffice_also_where_they_are_to_be_left_out():
    encoder, support, query = random_episode()
    names = support.select(support.label_slot_mask)
    for weight in (1.0, 0.0):
        learner = LabelNames(encoder, LabelNamesConfig(width=4, label_names=weight)).double()
        expected = by_hand(learner.names, encoder.table[9:12], [True] * 3, None, encoder.table[12:])
        torch.testing.assert_close(learner.adapt(names).scores(query), expected.detach())


def test_equal_names_are_told_apart_by_examples_only():
    encoder, support, query = random_episode()
    encoder.table[10] = encoder.table[9]
    learner = LabelNames(encoder, LabelNamesConfig(width=4)).double()
    alone = learner.adapt(support.select(support.label_slot_mask)).scores(query)
    torch.testing.assert_close(alone[:, 0], alone[:, 1])
    scores = learner.adapt(support).scores(query)
    assert torch.isfinite(scores).all()
    assert (scores[:, 0] - scores[:, 1]).abs().min() > 1e-3


def test_equal_rows_and_a_name_of_length_zero_give_numbers():
    encoder, support, query = random_episode()
    encoder.table[:9] = encoder.table[0].clone()
    encoder.table[9] = 0.0
    encoder.table[12] = 0.0
    learner = LabelNames(encoder, LabelNamesConfig(width=4)).double()
    learner.meta_loss(support, query).backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)
    assert torch.isfinite(learner.adapt(support).scores(query)).all()


UNREAD = "\u200d"  # the tokenizer reads nothing of it


@pytest.mark.parametrize("has_head", [False, True])
@pytest.mark.parametrize("rows", [0, 2])
def test_names_of_which_nothing_is_read(rows, has_head, tiny_encoder_folder):
    assert readable(UNREAD).strip()
    model = tagger(tiny_encoder_folder, learner="label_names")
    model = with_head(model) if has_head else model
    with torch.no_grad():
        model.pipeline.learner.names.rest_bias.add_(1.0)  # as if it had been trained
    model.adapt(SENTENCES[:rows], {**TYPES, "money": UNREAD})
    assert torch.isfinite(query_scores(model)[0]).all()
    clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="label_names")
    clf = with_head(clf) if has_head else clf
    texts = [{"text": "my card", "label": "card"}, {"text": "pay", "label": "cash"}][:rows]
    clf.adapt(texts, {"card": UNREAD, "cash": "pay"})
    assert np.isfinite(clf.predict_proba(["the card", "money"])).all()


def test_names_of_equal_words(tiny_encoder_folder):
    clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="label_names")
    alone = clf.adapt([], {"a": "card", "b": "card", "c": "pain"}).predict_proba(["the card", "pay"])
    np.testing.assert_allclose(alone[:, 0], alone[:, 1], rtol=1e-5)
    assert np.abs(alone[:, 0] - alone[:, 2]).min() > 1e-4


def test_label_names_learns_and_predicts_in_float64(tiny_encoder_folder):
    rows = [{"text": "my card", "label": "card"}, {"text": "pay", "label": "cash"}]
    made = {}
    for dtype in (torch.float32, torch.float64):
        clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="label_names", dtype=dtype)
        made[dtype] = clf.adapt(rows).predict_proba(["the card", "pay money"])
    np.testing.assert_allclose(made[torch.float64], made[torch.float32], rtol=1e-3)


def test_no_names_at_all_is_refused_for_positions():
    encoder, support, _ = random_episode("positions")
    with pytest.raises(FewShotError, match="label_names works by the names of labels") as caught:
        LabelNames(encoder).fit(support)
    assert "\n" not in str(caught.value)


def test_one_slot_each_in_a_batch_with_anchors_between():
    encoder, _, query = random_episode()
    learner = LabelNames(encoder, LabelNamesConfig(width=4)).double()
    rows, gold = [0, 9, 1, 10, 2, 11], [0, 0, 1, 1, 2, 2]
    mixed = slots(rows, gold, 3, label_slots=[False, True] * 3)
    order = [0, 2, 4, 1, 3, 5]
    sorted_ = slots(
        [rows[i] for i in order], [gold[i] for i in order], 3, label_slots=[False] * 3 + [True] * 3
    )
    torch.testing.assert_close(learner.adapt(mixed).scores(query), learner.adapt(sorted_).scores(query))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"head_weight": 1.5}, "head_weight is 1.5, but must be a number from 0 to 1"),
        ({"width": 0}, "width is 0"),
        ({"penalty": 0}, "penalty is 0"),
        ({"step": True}, "step is True"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LabelNamesConfig.from_dict(config)
    assert "\n" not in str(caught.value)
