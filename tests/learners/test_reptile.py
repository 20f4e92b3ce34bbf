"""Reptile against its published update, written out."""

import numpy as np
import pytest
import torch
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.reptile import Reptile, ReptileConfig
from fewshot_nlp.training import meta_train

EPSILON = 0.25
CONFIG = ReptileConfig(inner_steps=4, inner_lr=0.3, head_lr=0.5, scale=2.0, label_names=0.0)


def task(seed):
    """A support and a query batch of two classes in three dimensions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(10, 3)) + np.array([[1.0, 0, 0], [-1.0, 0, 0]] * 5)
    y = np.array([0, 1] * 5)
    return x, y


def end_of_descent(theta, x, y):
    """The paper's inner loop in numpy: softmax regression on 2 x (1 + theta) / |x (1 + theta)|, by hand.

    The head starts at the prototypes of the support rows (the first six), and steps take support and query in turns.
    """

    def forward(rows, theta):
        z = rows + rows @ theta
        length = np.linalg.norm(z, axis=1, keepdims=True)
        return z, length, 2.0 * z / length

    _, _, h = forward(x[:6], theta)
    weight = np.stack([h[y[:6] == c].mean(0) for c in range(2)])
    bias = -(weight**2).sum(1) / 2
    for step in range(4):
        part = slice(0, 6) if step % 2 == 0 else slice(6, 10)
        rows, gold = x[part], y[part]
        z, length, h = forward(rows, theta)
        logits = h @ weight.T + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(2)[gold]) / len(rows)
        back = error @ weight
        unit = z / length
        back_z = 2.0 * (back - unit * (back * unit).sum(1, keepdims=True)) / length
        theta = theta - 0.3 * rows.T @ back_z
        weight, bias = weight - 0.5 * error.T @ h, bias - 0.5 * error.sum(0)
    return theta


@pytest.mark.parametrize("n_tasks", [1, 3], ids=["serial", "batched"])
def test_outer_step_is_the_published_update(n_tasks):
    tasks = [task(seed) for seed in range(n_tasks)]
    encoder = Vectors(torch.from_numpy(np.concatenate([x for x, _ in tasks])))
    learner = Reptile(encoder, CONFIG)
    rng = np.random.default_rng(9)
    theta = rng.normal(size=(3, 3)) * 0.2
    shift = encoder.adapter["shift"]
    with torch.no_grad():
        shift.copy_(torch.from_numpy(theta))
    shift.requires_grad_()
    optimizer = torch.optim.SGD([shift], lr=EPSILON)
    for number, (_, y) in enumerate(tasks):  # as the outer loop does: the mean over the meta-batch
        rows = range(10 * number, 10 * number + 10)
        support, query = slots(rows[:6], y[:6], 2), slots(rows[6:], y[6:], 2)
        (learner.meta_loss(support, query) / n_tasks).backward()
    optimizer.step()
    reached = np.mean([end_of_descent(theta, x, y) for x, y in tasks], axis=0)
    assert np.abs(reached - theta).max() > 0.05
    np.testing.assert_allclose(shift.detach().numpy(), theta + EPSILON * (reached - theta), rtol=1e-10)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_surrogate_has_the_query_loss_as_value_and_the_way_as_gradient(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = Reptile(encoder, CONFIG)
    shift = encoder.adapter["shift"].requires_grad_()
    loss = learner.meta_loss(support, query)
    loss.backward()
    end = learner._descend(support, [support.select(~support.label_slot_mask), query])
    assert torch.equal(shift.grad, shift.detach() - end["fast.shift"])
    assert float(loss.detach()) == float(query.loss(learner.query_scores(end, query)))
    assert shift.grad.abs().max() > 1e-3


def test_adapting_never_sees_the_query_and_mini_batches_are_as_large_as_asked():
    encoder, support, _ = random_episode()
    learner = Reptile(encoder, ReptileConfig(batch_size=4, inner_steps=5))
    seen = []
    original = encoder.features

    def features(batch, *args, **kwargs):
        seen.append(batch.n_slots)
        return original(batch, *args, **kwargs)

    encoder.features = features
    learner.adapt(support)
    assert seen == [12, 4, 4, 1, 4, 4]


def test_weight_decay_free_outer_loop_moves_nothing_else(tiny_encoder_folder, tmp_path):
    config = config_of(
        tmp_path, tiny_encoder_folder, learner="reptile", train="learner", learner_config={"inner_steps": 1}
    )
    with pytest.raises(FewShotError, match="reptile has no parameters of its own; set train to 'adapter'"):
        meta_train(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"inner_steps": 0}, "inner_steps is 0, but must be a whole number from 1"),
        ({"inner_lr": -0.1}, "inner_lr is -0.1"),
        ({"inner_lr": 1e6}, "inner_lr is 1000000.0, but must be a number from 1e-08 to 10"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"first_order": True}, "ReptileConfig has no setting 'first_order'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("reptile").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    config = config_of(
        tmp_path, tiny_encoder_folder, learner="reptile", outer__steps=12, validation__every=12
    )
    history = meta_train(config).history
    losses = [record["val_loss"] for record in history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.01, losses
