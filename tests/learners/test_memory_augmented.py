"""Memories that are written and read by content: equations, the association task, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.memory_augmented import MemoryAugmented, MemoryAugmentedConfig, label_codes
from fewshot_nlp.modules.key_value import KeyValueReader
from fewshot_nlp.modules.selection import balanced
from fewshot_nlp.modules.turing import (
    TuringMemory,
    content_weights,
    least_used,
    usage_after,
    write_weights,
    written_memory,
)
from fewshot_nlp.training import meta_train

KINDS = ["neural_turing", "key_value"]


def learner_of(encoder, **config):
    learner = MemoryAugmented(encoder, MemoryAugmentedConfig(hidden=5, code=4, **config))
    encoder.adapter["shift"].requires_grad_()
    return learner


def shake(learner, seed=0, size=0.1):
    """Moves every parameter, so that nothing is zero by construction."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return learner


def test_addressing_is_the_papers_written_out():
    rng = np.random.default_rng(0)
    key, memory, usage = rng.normal(size=3), rng.normal(size=(4, 3)), np.array([0.9, 0.1, 0.4, 0.7])
    cosine = memory @ key / (np.linalg.norm(memory, axis=1) * np.linalg.norm(key))
    read = np.exp(5 * cosine) / np.exp(5 * cosine).sum()
    share = 1 / (1 + np.exp(-0.3))
    least = np.array([0.0, 1.0, 0.0, 0.0])
    write = share * read + (1 - share) * least
    after = memory.copy()
    after[1] = 0
    after += write[:, None] * key
    t = torch.from_numpy
    got = content_weights(t(key)[None], t(memory), torch.tensor(5.0), torch.ones(4, dtype=torch.bool))[0]
    np.testing.assert_allclose(got, read, rtol=1e-12)
    np.testing.assert_array_equal(least_used(t(usage)), least)
    got_write = write_weights(torch.tensor(0.3, dtype=torch.float64), got, t(least))
    np.testing.assert_allclose(got_write, write, rtol=1e-12)
    np.testing.assert_allclose(
        usage_after(t(usage), got, got_write, 0.95), 0.95 * usage + read + write, rtol=1e-12
    )
    np.testing.assert_allclose(written_memory(t(memory), got_write, t(least), t(key)), after, rtol=1e-12)


def test_rows_never_written_are_not_read():
    written = torch.tensor([True, False, True])
    weights = content_weights(torch.ones(2, 3), torch.eye(3), torch.tensor(2.0), written)
    assert torch.equal(weights[:, 1], torch.zeros(2))
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_the_row_that_was_least_used_is_overwritten():
    cell = TuringMemory(3, 2, 4, sharpness=100.0)
    torch.nn.init.constant_(cell.gate.bias, -100.0)  # to the least used row only
    x, values, code = torch.eye(3), torch.eye(4), torch.zeros(2, 2)
    with torch.no_grad():
        state, _ = cell.run(x[:2], values[:2], code, n_rows=2)
        torch.testing.assert_close(state["keys"], x[:2])
        weights, new = cell.read(
            state, x[None, 0]
        )  # reads the first row, so the second is the one used least
        after = cell.write(state, weights[0], {k: v[0] for k, v in new.items()}, values[3], code[0])
        torch.testing.assert_close(after["values"], values[[0, 3]])
        state["usage"], state["write"] = (
            torch.tensor([0.1, 4.0]),
            torch.zeros(2),
        )  # 1.095 after this read, and 3.8
        after = cell.write(state, weights[0], {k: v[0] for k, v in new.items()}, values[3], code[0])
        torch.testing.assert_close(after["values"], values[[3, 1]])


def test_usage_of_a_step_counts_its_own_write_and_read():
    """Equation 5 by hand, one step after the other; equation 6 takes the step before, its read included."""
    cell = TuringMemory(2, 2, 4, sharpness=1000.0, decay=0.5).double()
    torch.nn.init.constant_(cell.gate.bias, 0.0)  # half of a write goes to the rows that were read
    x, y = torch.eye(2).double(), torch.eye(2).double()
    new = {"key": x[0], "hidden": torch.zeros(4).double(), "cell": torch.zeros(4).double()}
    steps = [  # read weights of the step; its usage; write weights of the next step
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]),
        ([1.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.5, 0.5, 0.0]),
        ([0.0, 1.0, 0.0], [1.25, 1.5, 0.0], [0.0, 0.5, 0.5]),
        ([0.0, 1.0, 0.0], [0.625, 2.25, 0.5], [0.0, 0.5, 0.5]),
        ([0.25, 0.0, 0.75], [0.5625, 1.625, 1.5], [0.625, 0.0, 0.375]),
    ]
    state = cell.empty(3, 2, 2)
    with torch.no_grad():
        for read, usage, write in steps:
            state = cell.write(state, torch.tensor(read).double(), new, y[0], y[0])
            assert state["usage"].tolist() == pytest.approx(usage)
            assert state["write"].tolist() == pytest.approx(write)


def papers_loop(cell, slots, values, codes, n_rows):
    """Santoro et al. 2016, section 3, in numpy: at step t the label of t - 1 comes, is written, then slot t is read."""
    weight = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    d, hidden = slots.shape[1], cell.hidden
    memory, labels = np.zeros((n_rows, d)), np.zeros((n_rows, values.shape[1]))
    usage, read, write = np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_rows)
    vector, written, found, before = np.zeros(d), np.zeros(n_rows, bool), [], None
    for t in range(len(slots) + 1):
        label = np.zeros(codes.shape[1])
        if before is not None:
            key, alpha = before
            label = codes[t - 1]
            least = int(usage.argmin())  # of t - 1
            share = 1 / (1 + np.exp(-alpha))
            write = share * read  # equation 7: the read weights of t - 1
            write[least] += 1 - share
            memory[least], labels[least], written[least] = 0, 0, True
            memory = memory + write[:, None] * key  # equation 8
            labels = labels + write[:, None] * values[t - 1]
        if t == len(slots):
            break
        inputs = np.concatenate([slots[t], label, vector])
        state = np.tanh(weight["controller.weight"] @ inputs + weight["controller.bias"])
        key = (
            slots[t]
            + weight["metric.weight"] @ slots[t] / d**0.5
            + weight["key.weight"] @ state / hidden**0.5
        )
        sharpness = np.exp(weight["sharpen.weight"][0] @ state / hidden + weight["sharpen.bias"][0])
        read = np.zeros(n_rows)
        if written.any():
            rows = memory[written]
            cosine = rows @ key / np.linalg.norm(rows, axis=1) / np.linalg.norm(key)
            read[written] = np.exp(sharpness * cosine) / np.exp(sharpness * cosine).sum()  # equation 3
        found.append(read @ labels)
        vector = read @ memory  # equation 4
        usage = cell.decay * usage + read + write  # equation 5
        before = key, weight["gate.weight"][0] @ state / hidden + weight["gate.bias"][0]
    return memory, labels, np.array(found)


@pytest.mark.parametrize("n_rows", [3, 9])
def test_the_whole_loop_is_the_papers_written_out(n_rows):
    rng = np.random.default_rng(3)
    slots_ = rng.normal(size=(8, 5))
    slots_ /= np.linalg.norm(slots_, axis=1, keepdims=True)
    values, codes = np.eye(3)[rng.integers(3, size=8)], rng.normal(size=(8, 4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cell = shake(TuringMemory(5, 4, 6, "feed_forward", sharpness=3.0, decay=0.7).double(), size=0.7)
    torch.nn.init.constant_(cell.gate.bias, -0.4)
    memory, labels, found = papers_loop(cell, slots_, values, codes, n_rows)
    with torch.no_grad():
        state, ours = cell.run(*(torch.from_numpy(a) for a in (slots_, values, codes)), n_rows)
    np.testing.assert_allclose(state["keys"], memory, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(state["values"], labels, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ours, found, rtol=1e-6, atol=1e-7)


def test_the_loss_is_at_every_step_whose_label_was_shown():
    """Four slots, one after the other, each scored by those before it; then the queries; the mean of all."""
    angles = np.deg2rad([0.0, 100.0, 20.0, 130.0, 10.0, 170.0])
    table = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    learner = learner_of(Vectors(table), sharpness=2.0, balance=0.0, rows=9)
    torch.nn.init.constant_(learner.memory.gate.bias, -100.0)
    support, query = slots(range(4), [0, 1, 0, 1], 2), slots([4, 5], [0, 1], 2)
    x = table.numpy() - table[:4].numpy().mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gold = np.array([0, 1, 0, 1, 0, 1])
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0)).tolist()
    losses = []
    for step, slot in [*enumerate(order), (4, 4), (4, 5)]:
        shown = order[:step]
        if any(gold[i] == gold[slot] for i in shown):
            chance = np.exp(2 * x[shown] @ x[slot])
            losses.append(-np.log(chance[gold[shown] == gold[slot]].sum() / chance.sum()))
    assert len(losses) == 4
    assert float(learner.meta_loss(support, query).detach()) == pytest.approx(np.mean(losses), rel=1e-6)


def test_several_labels_at_once_have_a_loss_at_each_step():
    encoder, support, query = random_episode("independent")
    learner = shake(learner_of(encoder, label_names=0.0, rows=16), size=0.3)
    got = float(learner.meta_loss(support, query).detach())
    state, steps = learner._fit(support)
    alone = float(query.loss(learner.query_scores(state, query)).detach())
    known, scores = steps
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    targets = support.target_matrix[:9][order]
    first = next(  # a step that has shown every class, and every class's absence
        t for t in range(1, 9) if targets[:t].amax(0).sum() == 3 and (1 - targets[:t]).amax(0).sum() == 3
    )
    assert known.n_slots >= 9 - first
    assert torch.equal(known.gold[first - 9 :], targets[first:])
    each = float(F.binary_cross_entropy_with_logits(scores.detach(), known.gold.to(scores)))
    assert got == pytest.approx((each * known.n_slots + alone * 8) / (known.n_slots + 8), rel=1e-6)


def association(generator, n_way=5, noise=8):
    """Two presentations of each of some random vectors, with noise beside them, under labels drawn anew."""
    table = F.normalize(torch.randn(n_way, 8, generator=generator), dim=-1)
    labels = torch.randperm(n_way, generator=generator)
    order = torch.cat([torch.randperm(n_way, generator=generator) for _ in range(2)])
    extra = 1.5 * F.normalize(torch.randn(len(order), noise, generator=generator), dim=-1)
    return F.normalize(torch.cat([table[order], extra], dim=1), dim=-1), labels[order], n_way


def read_second(cell, generator):
    vectors, labels, n_way = association(generator)
    values = F.one_hot(labels, n_way).float()
    _, found = cell.run(vectors, values, label_codes(values, 8, seed=0), n_rows=10)
    return found[n_way:], labels[n_way:]


def test_the_association_task_is_learned():
    """Santoro et al. 2016, section 4: labels are shuffled in each episode and come one step late."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cell = TuringMemory(16, 8, 32)

    def accuracy():
        generator = torch.Generator().manual_seed(99)
        with torch.no_grad():
            found = [read_second(cell, generator) for _ in range(40)]
        return np.mean([float((f.argmax(1) == y).float().mean()) for f, y in found])

    before = accuracy()
    optimizer = torch.optim.Adam(cell.parameters(), 2e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(250):
        found, labels = read_second(cell, generator)
        optimizer.zero_grad()
        F.nll_loss(found.clamp_min(1e-6).log(), labels).backward()
        optimizer.step()
    assert before < 0.6
    assert accuracy() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_a_soft_nearest_neighbour(kind):
    encoder, support, query = random_episode()
    learner = learner_of(encoder, kind=kind, balance=0.0, label_names=0.0, sharpness=7.0)
    if kind == "neural_turing":
        torch.nn.init.constant_(learner.memory.gate.bias, -100.0)
    got = learner.adapt(support).scores(query).softmax(1).numpy()
    x = encoder.table.numpy()
    x = x - x[:9].mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    weights = np.exp(7 * x[12:] @ x[:9].T)
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(got, weights @ np.eye(3)[np.arange(9) % 3], rtol=1e-6)


def test_hops_read_values():
    """Miller et al. 2016, section 3.1, in numpy: o = sum_i p_i A v_i, then q = R (q + o), here with norm 1."""
    rng = np.random.default_rng(2)
    reader = shake(KeyValueReader(4, 3, hops=3, sharpness=2.0).double(), size=0.5)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 6, 4))]
    codes = rng.normal(size=(6, 3))
    metric, value, *maps = (
        part.weight.detach().numpy() / part.in_features**0.5
        for part in (reader.metric, reader.value, *reader.hops)
    )
    sharpness = float(reader.log_sharpness.detach().exp())
    keys, q = (rows @ (np.eye(4) + metric).T for rows in unit)
    keys, q = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (keys, q))
    for change in (*maps, None):
        p = np.exp(sharpness * q @ keys.T)
        p /= p.sum(axis=1, keepdims=True)
        if change is not None:
            q = (q + p @ codes @ value.T) @ (np.eye(4) + change).T
            q /= np.linalg.norm(q, axis=1, keepdims=True)
    with torch.no_grad():
        found = reader.keys(torch.from_numpy(unit[0]))
        np.testing.assert_allclose(found, keys, rtol=1e-9)
        got = reader(torch.from_numpy(unit[1]), found, torch.from_numpy(codes))
    np.testing.assert_allclose(got, p, rtol=1e-9)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
@pytest.mark.parametrize("kind", KINDS)
def test_meta_gradient_matches_finite_differences(kind, normaliser):
    encoder, support, query = random_episode(normaliser, seed=3)
    learner = shake(learner_of(encoder, kind=kind, rows=8, hops=3, sharpness=3.0))
    parameters = {"shift": encoder.adapter["shift"], **dict(learner.named_parameters())}
    learner.meta_loss(support, query).backward()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in parameters.items():
        shift = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        exact = float((parameter.grad * shift).sum())
        values = []
        for step in (1e-6, -1e-6):
            parameter.data += step * shift
            values.append(float(learner.meta_loss(support, query).detach()))
            parameter.data -= step * shift
        assert exact != 0, name
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-4, abs=1e-8), name


@pytest.mark.parametrize("normaliser", ["classes", "independent"])
@pytest.mark.parametrize("kind", KINDS)
def test_renamed_classes_permute_scores_of_a_trained_memory(kind, normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = shake(learner_of(encoder, kind=kind, label_names=0.0, max_slots=7))
    support = support.select(~support.label_slot_mask)
    to = torch.tensor([2, 0, 1])
    targets = to[support.gold] if normaliser == "classes" else support.gold[:, to.argsort()]
    renamed = slots(range(9), targets, 3, normaliser)
    one, two = learner.adapt(support).scores(query), learner.adapt(renamed).scores(query)
    torch.testing.assert_close(one, two[:, to], rtol=1e-9, atol=1e-9)


def test_order_matters_to_the_controller_and_not_to_the_key_value_memory():
    encoder, support, query = random_episode()
    back = slots(range(8, -1, -1), support.gold[:9].flip(0), 3)
    for kind in KINDS:
        learner = shake(learner_of(encoder, kind=kind, label_names=0.0))
        one = learner.adapt(support.select(~support.label_slot_mask)).scores(query)
        same = torch.allclose(one, learner.adapt(back).scores(query), rtol=1e-8)
        assert same == (kind == "key_value")


def test_classes_without_slots_get_a_low_score():
    encoder, support, query = random_episode("independent")
    support.targets[:, 2] = 0
    assert learner_of(encoder, kind="key_value").adapt(support).scores(query)[:, 2].max() < -1000
    encoder, support, _ = random_episode()
    shown = slots(range(12), support.gold, 4)
    assert learner_of(encoder).adapt(shown).scores(shown)[:, 3].max() < -1000


def test_many_slots_are_bounded_and_every_class_stays():
    kinds = torch.tensor([0] * 500 + [1] * 6 + [2] * 40)
    kept = balanced(kinds, 30, seed=3)
    assert torch.equal(kept, kept.unique())
    assert torch.bincount(kinds[kept]).tolist() == [12, 6, 12]
    renamed = torch.tensor([7, 1, 3])[kinds]
    assert torch.equal(balanced(renamed, 30, seed=3), kept)
    assert len(balanced(torch.arange(9), 4)) == 9
    encoder = Vectors(torch.randn(600, 4, generator=torch.Generator().manual_seed(0)))
    state = learner_of(encoder, max_slots=20, rows=16).adapt(slots(range(546), kinds, 3)).state
    assert state["memory.keys"].shape == (16, 4)
    assert bool(state["memory.written"].all())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "lstm"}, "kind is 'lstm', but must be one of: neural_turing, key_value"),
        ({"rows": 0}, "rows is 0, but must be a whole number from 1"),
        ({"hops": 1.5}, "hops is 1.5, but must be a whole number"),
        ({"usage_decay": 1.1}, "usage_decay is 1.1"),
        ({"balance": -1}, "balance is -1"),
        ({"gamma": 0.9}, "MemoryAugmentedConfig has no setting 'gamma'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("memory_augmented").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_meta_training_lowers_the_meta_validation_loss(kind, tmp_path, tiny_encoder_folder):
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="memory_augmented",
        learner_config={"kind": kind, "max_slots": 40, "rows": 40},
        outer__steps=12,
        validation__every=12,
    )
    losses = [record["val_loss"] for record in meta_train(config).history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.01, losses
