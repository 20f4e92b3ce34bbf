"""Matching networks against equation 1 and the recurrences of full-context embeddings, written out in numpy."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.backbone import VocabularyHead
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, matching
from fewshot_nlp.learners.matching import Matching, MatchingConfig
from fewshot_nlp.modules.order import canonical_order
from fewshot_nlp.slots import DecoderInputs
from fewshot_nlp.training import meta_train

NORMALISERS = ["classes", "independent", "positions"]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(rows):
    rows = np.exp(rows - rows.max(-1, keepdims=True))
    return rows / rows.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def vectors_of(encoder):
    """Support and query of `random_episode`, centred and of length 1."""
    table = encoder.table.numpy()
    centre = table[:12].mean(0)
    return unit(table[:12] - centre), unit(table[12:] - centre)


def probabilities(query, support, y, sharpness):
    """Equation 1: one query and one support slot after the other."""
    result = np.zeros((len(query), y.shape[1]))
    for i, q in enumerate(query):
        attention = softmax(np.array([sharpness * (q @ s) for s in support]))
        for a, row in zip(attention, y, strict=True):
            result[i] += a * row
    return result


@pytest.mark.parametrize("sharpness", [1.0, 20.0])
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_scores_are_equation_one(normaliser, sharpness):
    encoder, support, query = random_episode(normaliser)
    learner = Matching(encoder, MatchingConfig(sharpness=sharpness, balance=0.0))
    s, q = vectors_of(encoder)
    p = probabilities(q, s, support.target_matrix.numpy(), sharpness)
    got = learner.adapt(support).scores(query).numpy()
    expected = np.log(p) if normaliser == "classes" else np.log(p / (1 - p))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_frees_a_class_of_its_number_of_slots_and_names_weigh_as_asked(balance):
    encoder, support, query = random_episode()
    support = support.select((support.gold != 0) | (torch.arange(12) < 4))
    learner = Matching(encoder, MatchingConfig(balance=balance, label_names=0.5))
    table, kept = encoder.table.numpy(), [int(w[0]) for w in support.windows]
    s, q = (unit(rows - table[kept].mean(0)) for rows in (table[kept], table[12:]))
    y = support.target_matrix.numpy() * np.where(np.array(kept) < 9, 1.0, 0.5)[:, None]
    y[support.gold.numpy() == 0] = support.target_matrix.numpy()[support.gold.numpy() == 0]
    expected = np.log(probabilities(q, s, y, 20.0)) - balance * np.log(y.sum(0))
    np.testing.assert_allclose(learner.adapt(support).scores(query).numpy(), expected, rtol=1e-5, atol=1e-5)


def lstm_step(x, h, c, w_x, w_h, b):
    """Gates in torch's order: input, forget, cell, output."""
    i, f, g, o = np.split(w_x @ x + w_h @ h + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def randomised(learner, seed=3):
    generator = torch.Generator().manual_seed(seed)
    for parameter in learner.context.parameters():
        if parameter.dim() > 0:
            parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return learner


def weights(module, suffix):
    ih, hh, b1, b2 = (
        getattr(module, f"{kind}{suffix}").detach().numpy()
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return ih, hh, b1 + b2


def context_by_hand(learner, support, query):
    """g and f of section 2.1.2 and appendix A, slot by slot."""
    c = learner.context
    input_scale, read, processed = (
        c.input_scale,
        c.read.weight.detach().numpy(),
        c.processed.weight.detach().numpy(),
    )
    states = np.zeros((2, len(support), c.hidden))
    for side, (suffix, order) in enumerate(
        [("_l0", range(len(support))), ("_l0_reverse", reversed(range(len(support))))]
    ):
        h = cell = np.zeros(c.hidden)
        for i in order:
            h, cell = lstm_step(input_scale * support[i], h, cell, *weights(c.reader, suffix))
            states[side, i] = h
    g = unit(support + states.sum(0) @ read.T)
    f = np.zeros_like(query)
    for n, x in enumerate(query):
        h = cell = np.zeros(c.hidden)
        now = x
        for _ in range(c.steps):
            attention = softmax(float(c.log_sharpness.detach().exp()) * g @ now)
            given = input_scale * np.concatenate([x, attention @ g])
            h, cell = lstm_step(given, h, cell, *weights(c.cell, ""))
            now = x + processed @ h
        f[n] = now
    return g, unit(f)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_full_context_is_the_recurrences_written_out(normaliser, steps):
    encoder, support, query = random_episode(normaliser)
    config = MatchingConfig(context=True, hidden=4, processing_steps=steps, balance=0.0, sharpness=5.0)
    learner = randomised(Matching(encoder, config))
    s, q = vectors_of(encoder)
    g, f = context_by_hand(learner, s, q)
    p = probabilities(f, g, support.target_matrix.numpy(), 5.0)
    expected = np.log(p) if normaliser == "classes" else np.log(p / (1 - p))
    got = learner.adapt(support).scores(query).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    plain = Matching(encoder, replace(config, context=False)).adapt(support).scores(query).numpy()
    assert np.abs(plain - got).max() > 0.1


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_full_context_starts_as_the_plain_learner(normaliser):
    encoder, support, query = random_episode(normaliser)
    scores = [
        Matching(encoder, MatchingConfig(context=context)).adapt(support).scores(query)
        for context in (False, True)
    ]
    torch.testing.assert_close(*scores)


def shuffled(support, seed=0):
    """The support set in another order."""
    order = torch.randperm(support.n_slots, generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [int(support.windows[i][0]) for i in order]
    return slots(rows, support.gold[order], 3, support.normaliser, label_slots=support.label_slot_mask[order])


@pytest.mark.parametrize("limit", [5, 512])
@pytest.mark.parametrize("normaliser", ["classes", "independent"])
def test_order_of_the_support_set_does_not_matter_with_context_and_limit(normaliser, limit):
    encoder, support, query = random_episode(normaliser, n_support=20)
    learner = randomised(Matching(encoder, MatchingConfig(context=True, hidden=4, context_slots=limit)))
    one, two = (learner.adapt(batch) for batch in (support, shuffled(support)))
    assert len(one.state["keys"]) == min(limit, support.n_slots)
    torch.testing.assert_close(one.scores(query), two.scores(query))


def test_order_is_by_text_then_place_and_knows_sources():
    batch = slots([5, 3, 3, 9], torch.tensor([0, 1, 2, 0]), 3)
    assert canonical_order(batch).tolist() == [1, 2, 0, 3]
    spans = batch.spans.copy()
    spans[1, 2:] = [4, 5]
    assert canonical_order(replace(batch, spans=spans)).tolist() == [2, 1, 0, 3]
    sources = [[1], [9], [2], [0]]
    assert canonical_order(replace(batch, decoder=DecoderInputs(sources=sources))).tolist() == [2, 1, 0, 3]


def test_more_slots_than_the_limit_are_balanced_and_said(caplog):
    targets = torch.tensor([0] * 30 + [1] * 3 + [2])
    generator = torch.Generator().manual_seed(0)
    encoder = Vectors(torch.randn(34, 4, generator=generator, dtype=torch.float64))
    with caplog.at_level(logging.INFO, "fewshot_nlp"):
        state = Matching(encoder, MatchingConfig(max_slots=9)).fit(slots(range(34), targets, 3))
    assert state["values"].sum(dim=0).tolist() == [5.0, 3.0, 1.0]
    assert "matching uses 9 of 34 support slots" in caplog.text


def test_attention_is_computed_in_parts(monkeypatch):
    encoder, support, query = random_episode()
    adapted = Matching(encoder).adapt(support)
    whole = adapted.scores(query)
    monkeypatch.setattr(matching, "CHUNK", 3)
    torch.testing.assert_close(adapted.scores(query), whole)


class LargestComponent(VocabularyHead):
    """Each slot prefers the class of its vector's largest component."""

    def scores(self, state, view, fast_weights=None):
        return (2 * view).log_softmax(dim=1)


@pytest.mark.parametrize("interpolation", [None, 0.3])
def test_mixture_with_the_models_own_distribution_is_brute_force(interpolation):
    generator = torch.Generator().manual_seed(0)
    gold = torch.tensor([0, 3, 3, 5, 0, 3, 5, 0])
    centres = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    table = centres[gold] + 0.3 * torch.randn(8, 6, generator=generator, dtype=torch.float64)
    encoder = Vectors(table)
    encoder.head = LargestComponent(encoder)
    support = slots(range(6), gold[:6], 6, groups=[0, 0, 1, 1, 2, 2])
    query = slots([6, 7], gold[6:], 6)
    adapted = Matching(encoder, MatchingConfig(interpolation=interpolation)).adapt(support)
    share, temperature = (float(adapted.state[name]) for name in ("interpolation", "temperature"))
    assert share > 0.2 if interpolation is None else share == interpolation
    rows = table.numpy()
    s, q = (unit(part - rows[:6].mean(0)) for part in (rows[:6], rows[6:]))
    memory = probabilities(q, s, np.eye(6)[gold[:6]], 1 / temperature)
    expected = share * memory + (1 - share) * softmax(2 * rows[6:])
    np.testing.assert_allclose(adapted.scores(query).exp().numpy(), expected, rtol=1e-6)


def test_share_and_temperature_are_the_likeliest_for_slots_of_other_examples():
    """Searched over a grid in numpy: each slot attends to the slots of the other examples."""
    generator = torch.Generator().manual_seed(1)
    gold, groups = torch.arange(12) % 3, np.arange(12) // 4
    table = torch.randn(3, 5, generator=generator, dtype=torch.float64)[gold]
    table = table + 0.8 * torch.randn(12, 5, generator=generator, dtype=torch.float64)
    encoder = Vectors(table)
    encoder.head = LargestComponent(encoder)
    state = Matching(encoder).adapt(slots(range(12), gold, 5, groups=groups)).state
    rows = table.numpy()
    away = 1 - unit(rows - rows.mean(0)) @ unit(rows - rows.mean(0)).T
    away[groups[:, None] == groups] = np.inf
    own = softmax(2 * rows)[np.arange(12), gold]

    def likelihood(share, temperature):
        found = (softmax(-away / temperature) * (gold[:, None] == gold).numpy()).sum(1)
        return np.log(share * found + (1 - share) * own).mean()

    chosen = likelihood(float(state["interpolation"]), float(state["temperature"]))
    scale = away[np.isfinite(away)].mean()
    grid = [likelihood(s / 20, t * scale) for s in range(19) for t in (0.03, 0.1, 0.2, 0.5, 1, 2)]
    assert chosen == pytest.approx(max(grid))
    assert chosen > likelihood(0.5, 0.1) + 0.01


@pytest.mark.parametrize(("given", "share"), [(None, 0.5), (0.3, 0.3)])
def test_a_single_example_holds_nothing_out(given, share):
    encoder = Vectors(torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    encoder.head = LargestComponent(encoder)
    support = slots(range(4), [0, 1, 2, 1], 5, groups=[0] * 4)
    state = Matching(encoder, MatchingConfig(interpolation=given)).adapt(support).state
    assert [float(state[name]) for name in ("interpolation", "temperature")] == pytest.approx([share, 0.1])


def test_a_class_without_a_slot_is_never_chosen_and_names_alone_suffice():
    encoder, support, _ = random_episode()
    learner = Matching(encoder)
    names = support.select(support.label_slot_mask)
    assert learner.adapt(names).scores(names).argmax(1).tolist() == [0, 1, 2]
    two = names.select(names.gold < 2)
    assert float(learner.adapt(two).scores(names)[:, 2].max()) < -9000


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"context": "yes"}, "context is 'yes', but must be true or false"),
        ({"processing_steps": 0}, "processing_steps is 0, but must be a whole number from 1"),
        ({"hidden": 1.5}, "hidden is 1.5, but must be a whole number"),
        ({"sharpness": 0}, "sharpness is 0"),
        ({"max_slots": 0}, "max_slots is 0"),
        ({"interpolation": 2.0}, "interpolation is 2.0"),
        ({"k": 1}, "MatchingConfig has no setting 'k'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("matching").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("context", [False, True])
def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder, context):
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="matching",
        train="learner" if context else "adapter",
        learner_config={"context": context, "hidden": 16},
        outer__steps=12,
        validation__every=12,
    )
    losses = [r["val_loss"] for r in meta_train(config).history if "val_loss" in r]
    assert losses[-1] < losses[0] - 0.02, losses
