"""Contrastive tuning against losses written out by hand, finite differences, and counts of pairs."""

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.contrastive import Contrastive, ContrastiveConfig
from fewshot_nlp.learners.linear_probe import LinearProbe
from fewshot_nlp.modules.slot_pairs import draws
from fewshot_nlp.persistence.storage import load, new_pipeline, save
from fewshot_nlp.training import meta_train

X = np.array([[1.0, 0.2, 0.0], [0.8, -0.4, 0.3], [-0.5, 1.0, 0.1], [0.1, 0.9, -0.7], [0.3, 0.2, 1.0]])
Y = [0, 0, 1, 1, 2]


def hand_loss(shift, kind, temperature=0.1):
    """Both losses of all pairs of X, by loops."""
    z = X + X @ shift
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    if kind == "cosine":
        like = [(1 - u[i] @ u[j]) ** 2 for i, j in pairs if Y[i] == Y[j]]
        unlike = [(u[i] @ u[j]) ** 2 for i, j in pairs if Y[i] != Y[j]]
        return (np.mean(like) + np.mean(unlike)) / 2
    rows = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        total = np.log(sum(np.exp(u[i] @ u[j] / temperature) for j in others))
        like = [total - u[i] @ u[j] / temperature for j in others if Y[i] == Y[j]]
        rows += [np.mean(like)] if like else []
    return np.mean(rows)


def problem(**config):
    encoder = Vectors(torch.from_numpy(X))
    config = ContrastiveConfig(label_names=0.0, head="linear_probe", **config)
    return Contrastive(encoder, config), slots(range(5), Y, 3)


@pytest.mark.parametrize(
    ("labels", "shot", "encoded", "pairs", "setfit"), [(2, 8, 320, 2400, 40), (4, 16, 640, 9920, 160)]
)
def test_what_tuning_spends_beside_setfit(labels, shot, encoded, pairs, setfit):
    """The figures of the header; SetFit's are 2 R pairs a text, 16 a step (its sampler, counted)."""
    n, config = labels * shot, ContrastiveConfig()
    support = slots(range(n), np.arange(n) % labels, labels)
    steps = draws(support, config.steps, config.batch_size, 0)
    assert len(steps) == 20
    assert sum(len(draw.slots) for draw in steps) == encoded
    assert sum(draw.n_pairs for draw in steps) == pairs
    assert 2 * 20 * n / 16 == setfit == 2.5 * n


@pytest.mark.parametrize("loss", ["cosine", "supervised"])
def test_one_step_is_adamw_on_the_loss_written_out(loss):
    learner, support = problem(loss=loss, steps=1, batch_size=6, lr=0.01, weight_decay=0.0)
    (draw,) = draws(support, 1, 6, 0)
    assert int((draw.alike | draw.different).sum()) == 20  # ten pairs, in both orders
    theta = np.random.default_rng(0).normal(size=(3, 3)) * 0.1
    learner.encoder.adapter["shift"].data = torch.from_numpy(theta)
    value = learner.pair_loss(support, draw, {"fast.shift": torch.from_numpy(theta)})
    assert float(value) == pytest.approx(hand_loss(theta, loss), rel=1e-12)
    gradient = np.zeros((3, 3))
    for place in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[place] = 1e-6
        gradient[place] = (hand_loss(theta + step, loss) - hand_loss(theta - step, loss)) / 2e-6
    gradient *= min(1.0, 1 / np.linalg.norm(gradient))
    rate = 0.01 / 1.1  # of the one step, in the middle of the warm-up
    expected = theta - rate * gradient / (np.abs(gradient) + 1e-8)
    state = learner.adapt(support).state
    np.testing.assert_allclose(state["fast.shift"].numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_draws_are_balanced(normaliser):
    targets = torch.zeros(204, 2)
    targets[:2, 0], targets[2:4, 1] = 1, 1  # the others have no class
    found = draws(slots(range(204), targets, normaliser=normaliser), 7, 12, seed=0)
    assert len(found) == 7
    for draw in found:
        assert len(draw.slots) == 8  # four without a class, not a hundred
        assert len(draw.slots.unique()) == 8
        for i, j in draw.alike.nonzero().tolist():
            assert i != j
            assert torch.equal(targets[draw.slots[i]], targets[draw.slots[j]])
            assert targets[draw.slots[i]].any()
        for i, j in draw.different.nonzero().tolist():
            one, two = targets[draw.slots[i]], targets[draw.slots[j]]
            assert not torch.equal(one, two)


def test_all_classes_come_when_a_draw_has_no_room_for_them():
    batch = slots(range(30), [i // 3 for i in range(30)], 10)
    found = draws(batch, 3, 8, seed=1)
    assert [int(d.alike.sum()) // 2 for d in found] == [4, 4, 4]
    assert {int(s) // 3 for d in found for s in d.slots} == set(range(10))
    assert all(len(d.slots) == 8 for d in found)


def test_draws_do_not_depend_on_order_or_names():
    y = torch.tensor([0, 1, 2] * 4)
    batch = slots(range(12), y, 3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    other = slots(order.tolist(), (2 - y)[order], 3)
    for one, two in zip(draws(batch, 4, 8, 5), draws(other, 4, 8, 5), strict=True):
        assert set(one.slots.tolist()) == set(order[two.slots].tolist())


def test_one_kind_of_slots_has_nothing_to_tell_apart():
    assert draws(slots(range(4), [1] * 4, 3), 5, 8, 0) == []
    learner, _ = problem()
    assert torch.equal(
        learner.adapt(slots(range(4), [1] * 4, 3)).state["fast.shift"], torch.zeros(3, 3).double()
    )


@pytest.mark.parametrize("loss", ["cosine", "supervised"])
@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_tuned_features_are_better_separated(normaliser, loss):
    encoder, support, query = random_episode(normaliser, noise=0.8, n_support=30, n_query=60)
    learner = Contrastive(
        encoder,
        ContrastiveConfig(loss=loss, lr=0.02, steps=60, batch_size=16, before=0.0, head="linear_probe"),
    )
    state = learner.adapt(support).state
    kind = query.target_matrix.argmax(1)

    def fisher(shift):
        z = torch.nn.functional.normalize(encoder.features(query, {"shift": shift}), dim=-1)
        means = torch.stack([z[kind == c].mean(0) for c in range(3)])
        return float((means - means.mean(0)).square().sum() / (z - means[kind]).square().sum(1).mean())

    assert fisher(state["fast.shift"]) > 1.5 * fisher(torch.zeros(6, 6).double())
    probe = LinearProbe(encoder).adapt(support)
    assert query.loss(learner.query_scores(state, query)) < query.loss(probe.scores(query)) + 0.2


def test_label_names_are_samples_of_their_classes():
    """The supervised loss over slots and names, by loops; names are constants."""
    learner, support = problem(loss="supervised")
    (draw,) = draws(support, 1, 6, 0)
    names = torch.tensor([[1.0, 0.0, 0.2], [0.0, 1.0, 0.1], [0.2, 0.1, 1.0]]).double()
    value = learner.pair_loss(support, draw, {}, (names, torch.eye(3)))
    u = np.concatenate([X[draw.slots.numpy()], names.numpy()])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    y = [*(Y[i] for i in draw.slots.tolist()), 0, 1, 2]
    rows = []
    for i in range(len(u)):
        others = [j for j in range(len(u)) if j != i]
        total = np.log(sum(np.exp(u[i] @ u[j] / 0.1) for j in others))
        rows.append(np.mean([total - u[i] @ u[j] / 0.1 for j in others if y[i] == y[j]]))
    assert float(value) == pytest.approx(np.mean(rows), rel=1e-9)


def test_the_prediction_is_the_mixture_of_the_heads_before_and_after():
    encoder, support, query = random_episode()
    settings = {"head": "linear_probe", "steps": 6, "lr": 0.05}
    parts = [Contrastive(encoder, ContrastiveConfig(**settings, before=share)) for share in (0.0, 0.25, 1.0)]
    after, mixed, before = (p.adapt(support).scores(query).softmax(1) for p in parts)
    torch.testing.assert_close(mixed, 0.75 * after + 0.25 * before)
    plain = LinearProbe(encoder).adapt(support).scores(query).softmax(1)
    torch.testing.assert_close(before, plain)
    assert not torch.allclose(after, plain, atol=1e-2)


def test_texts_are_tuned_on_by_their_beginnings(tiny_encoder_folder):
    encoder = Encoder.from_pretrained(tiny_encoder_folder)
    task = new_pipeline("classification", {}, encoder, "prototypical", {}).task
    texts = ["the bank paid my card " * 30, "court", "the judge gave a letter to the court of law"]
    batch = task.collate([task.query(t) for t in texts], ("x", "y"), encoder.tokenizer, with_targets=False)
    assert len(batch.windows) > 3  # the first text has several
    short = batch.beginnings(8)
    assert [len(w) for w in short.windows] == [8, 3, 8]
    firsts = [batch.windows[batch.spans[batch.spans[:, 0] == i][0, 1]] for i in range(3)]
    for cut, whole in zip(short.windows, firsts, strict=True):
        assert list(cut) == [*whole[: len(cut) - 1], whole[-1]]
    torch.testing.assert_close(encoder.features(short)[1], encoder.features(batch)[1])


def test_meta_gradient_is_the_querys_at_the_tuned_weights():
    encoder, support, query = random_episode()
    learner = Contrastive(encoder, ContrastiveConfig(steps=5, before=0.0, head="linear_probe"))
    shift = encoder.adapter["shift"].requires_grad_()
    learner.meta_loss(support, query).backward()
    state = learner.adapt(support).state
    tuned = state["fast.shift"].clone().requires_grad_()
    query.loss(learner.query_scores({**state, "fast.shift": tuned}, query)).backward()
    torch.testing.assert_close(shift.grad, tuned.grad)
    assert shift.grad.abs().max() > 1e-3
    assert not torch.equal(tuned, shift)


def test_tuning_reads_the_lower_layers_that_meta_training_keeps(tiny_encoder_folder):
    learner = made(tiny_encoder_folder, top_layers=1).learner
    support, _ = some_texts(made(tiny_encoder_folder))
    with learner.encoder.cache_frozen_layers() as kept:
        learner.adapt(support)
        misses = kept.misses
        learner.adapt(support)
    assert kept.misses == misses > 0


def test_an_unmoved_start_of_its_own_changes_no_bit(tiny_encoder_folder):
    plain, own = (made(tiny_encoder_folder, start=start) for start in ("adapter", "meta"))
    support, query = some_texts(plain)
    one, two = plain.learner.adapt(support), own.learner.adapt(support)
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    assert torch.equal(one.scores(query), two.scores(query))


def test_a_moved_start_leaves_the_head_before_tuning_as_it_was(tiny_encoder_folder, tmp_path):
    plain, own = (made(tiny_encoder_folder, start=start) for start in ("adapter", "meta"))
    support, query = some_texts(plain)
    with torch.no_grad():
        for parameter in own.learner.start.values():
            parameter.add_(0.1)
    one, two = plain.learner.adapt(support), own.learner.adapt(support)
    before = [name for name in one.state if name.startswith("before.")]
    assert before
    assert all(torch.equal(one.state[name], two.state[name]) for name in before)
    assert all(not torch.equal(one.state[n], two.state[n]) for n in one.state if n.startswith("fast."))
    save(tmp_path / "model", own)
    again = load(tmp_path / "model").pipeline.learner.adapt(support)
    assert torch.equal(again.scores(query), two.scores(query))


def test_first_order_gradients_of_start_and_rates_by_finite_differences(tiny_encoder_folder):
    """Of the query's loss at the tuned weights, the heads held; a rate stretches the way that was gone."""
    learner = made(tiny_encoder_folder, start="meta", learned_rates=True).learner
    with torch.no_grad():
        for parameter in learner.start.values():
            parameter.add_(0.05)
        for change in learner.rates.change.values():
            change.fill_(0.01)
    support, query = some_texts(made(tiny_encoder_folder))
    learner.meta_loss(support, query).backward()
    state = learner.adapt(support).state
    names = [name for name in state if name.startswith("fast.")]
    start = {name: learner.start[name.replace(".", "/")] for name in names}

    @torch.no_grad()
    def loss(name, moved):
        return float(query.loss(learner.query_scores({**state, name: moved}, query)))

    for name in (names[0], names[1], names[-1]):
        place = start[name].grad.abs().flatten().argmax()
        step = torch.zeros_like(start[name]).flatten()
        step[place] = 1e-5
        step = step.view_as(start[name])
        slope = (loss(name, state[name] + step) - loss(name, state[name] - step)) / 2e-5
        assert float(start[name].grad.flatten()[place]) == pytest.approx(slope, rel=1e-5)
        way = state[name] - start[name].detach()
        slope = (loss(name, state[name] + 1e-5 * way) - loss(name, state[name] - 1e-5 * way)) / 2e-5
        got = float(learner.rates.change[name.replace(".", "/")].grad)
        assert got == pytest.approx(slope * 30 / 1.3, rel=1e-4, abs=1e-9)  # the factor is 1 + 30 x 0.01
        assert abs(slope) > 1e-7


def test_a_factor_of_the_rate_is_a_factor_of_the_first_step():
    learner, support = problem(steps=1, batch_size=6, weight_decay=0.0, learned_rates=True)
    one = learner.adapt(support).state["fast.shift"]
    with torch.no_grad():
        learner.rates.change["fast/shift"].fill_(0.05)
    two = learner.adapt(support).state["fast.shift"]
    torch.testing.assert_close(two, one * 2.5)


def test_reptile_moves_the_start_part_of_the_way_to_where_adamw_led():
    learner, support = problem(
        steps=1, batch_size=6, lr=0.01, weight_decay=0.0, start="meta", outer="reptile"
    )
    theta = np.random.default_rng(0).normal(size=(3, 3)) * 0.1
    start = learner.start["fast/shift"]
    with torch.no_grad():
        start.copy_(torch.from_numpy(theta))
    optimizer = torch.optim.SGD([start], lr=0.25)
    loss = learner.meta_loss(support, support)
    state = learner.adapt(support).state
    assert float(loss.detach()) == float(support.loss(learner.query_scores(state, support)))
    loss.backward()
    optimizer.step()
    gradient = np.zeros((3, 3))
    for place in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[place] = 1e-6
        gradient[place] = (
            hand_loss(theta + step, "supervised") - hand_loss(theta - step, "supervised")
        ) / 2e-6
    reached = theta - 0.01 / 1.1 * np.sign(gradient)  # AdamW's first step, in the middle of the warm-up
    expected = theta + 0.25 * (reached - theta)
    np.testing.assert_allclose(start.detach().numpy(), expected, rtol=1e-5)


def made(folder, **config):
    """A pipeline on the tiny encoder in float64."""
    encoder = Encoder.from_pretrained(folder, dtype=torch.float64)
    settings = {"steps": 3, "batch_size": 8, "head": "linear_probe", "bfloat16": False, **config}
    return new_pipeline("classification", {}, encoder, "contrastive", settings)


def some_texts(pipeline):
    """Support and query of two labels."""
    banks = ["the bank paid my card", "a card was lost", "send money to the bank", "the stock of the bank"]
    courts = [
        "the judge gave a letter",
        "the court and the law",
        "a judge of the court",
        "open a letter of law",
    ]
    task, labels = pipeline.task, ["bank", "court"]
    examples = task.examples([{"text": t, "label": labels[t in courts]} for t in banks + courts])
    support = pipeline.support(examples[:3] + examples[4:7], labels)
    query = task.collate(
        [examples[3], examples[7]], labels, pipeline.learner.encoder.tokenizer, with_targets=True
    )
    return support, query


def test_probabilities_are_tempered_by_the_information_of_held_out_texts(tiny_encoder_folder):
    """Log-probabilities are those without, times a scale written out, and normalised; so no decision moves."""
    scores, states = {}, {}
    for calibrate in (True, False):
        pipeline = made(tiny_encoder_folder, head="stacked_probe", calibrate=calibrate)
        support, query = some_texts(pipeline)
        states[calibrate] = pipeline.learner.fit(support)
        scores[calibrate] = pipeline.learner.query_scores(states[calibrate], query)
    before, tuned = (float(states[True][f"{when}.information"]) for when in ("before", "tuned"))
    assert before < tuned <= 1
    expected = np.exp(-0.916 * (tuned - before) * (1 - before))
    plain = scores[False].log_softmax(dim=1)
    torch.testing.assert_close(scores[True], (expected * plain).log_softmax(dim=1))
    assert 0 < expected < 1


@pytest.mark.parametrize("config", [{"before": 0.0}, {"head": "linear_probe"}, {"calibrate": False}])
def test_nothing_is_tempered_where_the_temperature_was_not_learned_for_it(config, tiny_encoder_folder):
    pipeline = made(tiny_encoder_folder, **{"head": "stacked_probe", **config})
    assert "scale" not in pipeline.learner.fit(some_texts(pipeline)[0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"learned_rates": True, "outer": "reptile"}, "Reptile has no gradient for them"),
        ({"start": "reptile"}, "start is 'reptile', but must be one of: adapter, meta"),
        ({"steps": -1}, "steps is -1, but must be a whole number from 0"),
        ({"before": 1.5}, "before is 1.5, but must be a number from 0 to 1"),
        ({"batch_size": 2}, "batch_size is 2, but must be a whole number from 4"),
        ({"loss": "triplet"}, "loss is 'triplet', but must be one of: supervised, cosine"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"R": 20}, "ContrastiveConfig has no setting 'R'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("contrastive").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", ["adapter", "meta"])
def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder, start):
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="contrastive",
        learner_config={
            "steps": 6,
            "batch_size": 12,
            "head": "linear_probe",
            "before": 0.0,
            "start": start,
        },
        train="adapter" if start == "adapter" else "learner",
        outer__lr=5e-2,
        outer__steps=12,
        validation__every=12,
    )
    history = meta_train(config).history
    losses = [record["val_loss"] for record in history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.01, losses
