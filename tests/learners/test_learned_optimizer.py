"""The learned optimizer against gradient descent, the published formulas, and gradients that are known exactly."""

import math

import pytest
import torch
from training_runs import config_of
from vectors import random_episode

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.learned_optimizer import LearnedOptimizer, LearnedOptimizerConfig
from fewshot_nlp.learners.maml import MAML, MAMLConfig
from fewshot_nlp.modules.inner_loop import sgd_path
from fewshot_nlp.modules.lstm_optimizer import LSTMOptimizer, learned_path, preprocess
from fewshot_nlp.training import meta_train

RATES = {"inner_steps": 3, "inner_lr": 0.3, "head_lr": 0.2}
LEVEL = 1.3
BOTH = pytest.mark.parametrize("form", ["residual", "gates"])


def scrambled(module, seed=0, size=0.3):
    """The module in float64, with its parameters moved at random, so that nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


def test_preprocessing_is_the_formula_of_appendix_a():
    values = [3.0, -3.0, 1.0, 1e-3, -1e-4, math.exp(-9.99), math.exp(-10.01), -1e-7, 1e-30, 0.0, -1e20]
    got = preprocess(torch.tensor(values, dtype=torch.float64)).tolist()
    for value, pair in zip(values, got, strict=True):
        if abs(value) >= math.exp(-10):
            assert pair == pytest.approx([math.log(abs(value)) / 10, math.copysign(1, value)])
        else:
            assert pair == pytest.approx([-1, math.exp(10) * value])


def quadratics(n, seed):
    """f(x) = |Wx - y|^2 in ten dimensions, n of them at once, and starts."""
    generator = torch.Generator().manual_seed(seed)
    matrix, target, start = (torch.randn(n, *s, generator=generator) for s in ((10, 10), (10,), (10,)))

    def value(x):
        return ((matrix @ x[..., None])[..., 0] - target).square().sum(dim=1)

    return value, start


def path_of(optimizer, value, start, steps=20, truncation=20):
    """The mean values after each step; a sum over functions, so that each has the gradient of its own."""
    path = learned_path(
        {"x": start}, lambda w: value(w["x"]).sum(), lambda _: optimizer, steps=steps, truncation=truncation
    )
    return [value(w["x"]).mean() for w in path]


def test_beats_tuned_gradient_descent_on_fresh_quadratics():
    torch.manual_seed(0)
    optimizer, updates = LSTMOptimizer(0.01), 60
    adam = torch.optim.Adam(optimizer.parameters(), lr=0.03)
    for update in range(updates):
        adam.zero_grad()
        torch.stack(path_of(optimizer, *quadratics(16, 1000 + update))).mean().backward()
        torch.nn.utils.clip_grad_norm_(optimizer.parameters(), 1.0)
        adam.param_groups[0]["lr"] = 0.03 * (1 - update / updates)
        adam.step()
    value, start = quadratics(500, 1)
    with torch.no_grad():
        ours = torch.stack(path_of(optimizer, value, start))
    theirs = []
    for rate in torch.logspace(-3, -1, 17).tolist():
        x, trace = start, []
        for _ in range(20):
            x = x.requires_grad_()
            (slope,) = torch.autograd.grad(value(x).sum(), x)
            x = (x - rate * slope).detach()
            trace.append(value(x).mean())
        theirs.append(torch.stack(trace))
    assert int(torch.stack(theirs)[:, -1].argmin()) not in (0, 16), "the best rate must be inside the grid"
    assert ours[-1] < 0.7 * min(trace[-1] for trace in theirs)
    assert ours.mean() < min(trace.mean() for trace in theirs)


@BOTH
def test_is_gradient_descent_before_any_training(form):
    value, start = quadratics(3, 0)
    optimizer = LSTMOptimizer(0.01, form)
    *_, end = learned_path(
        {"x": start}, lambda w: value(w["x"]).sum(), lambda _: optimizer, steps=4, truncation=2
    )
    *_, descent = sgd_path(
        {"x": start.clone().requires_grad_()},
        lambda w: value(w["x"]).sum(),
        steps=4,
        rate=lambda *_: 0.01,
        second_order=False,
    )
    if form == "residual":
        assert torch.equal(end["x"], descent["x"])
    else:  # the weights shrink a little, as the paper's do
        torch.testing.assert_close(end["x"], descent["x"], rtol=0.05, atol=0.05)


def path_on_constants(optimizer, weights, steps, truncation, slope):
    """A run on a function whose value and gradient are in truth constants."""

    def inner(w):
        value = sum((w[name] * slope[name]).sum() for name in w)
        return value - value.detach() + LEVEL

    return learned_path(weights, inner, lambda _: optimizer, steps=steps, truncation=truncation)


def loss_after(optimizer, weights, steps, truncation, slope):
    """Losses along such a run."""
    path = path_on_constants(optimizer, weights, steps, truncation, slope)
    return torch.stack([sum(x.pow(3).sum() for x in w.values()) for w in path])


def linear_problem():
    generator = torch.Generator().manual_seed(2)
    draw = {"a": (2, 3), "b": (4,)}
    weights = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in draw.items()}
    return weights, {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in draw.items()}


@BOTH
def test_gradient_matches_finite_differences_where_inner_gradients_are_constants(form):
    optimizer = scrambled(LSTMOptimizer(0.5, form, hidden=3))
    weights, slope = linear_problem()
    loss_after(optimizer, weights, 4, 4, slope).mean().backward()
    for name, p in optimizer.named_parameters():
        generator = torch.Generator().manual_seed(1)
        way = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        values = []
        for move in (1e-6, -1e-6):
            p.data += move * way
            values.append(float(loss_after(optimizer, weights, 4, 4, slope).mean().detach()))
            p.data -= move * way
        exact = float((p.grad * way).sum())
        assert exact != 0, name
        assert exact == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8), name


@BOTH
def test_truncation_cuts_what_it_should_and_nothing_else(form):
    optimizer = scrambled(LSTMOptimizer(0.5, form, hidden=3))
    weights, slope = linear_problem()
    start = {name: w.clone().requires_grad_() for name, w in weights.items()}
    whole, cut = (loss_after(optimizer, start, 4, truncation, slope) for truncation in (4, 2))
    assert torch.equal(whole, cut)
    parameters = [*optimizer.parameters(), *start.values()]
    n = len(list(optimizer.parameters()))
    slopes = [torch.autograd.grad(losses.sum(), parameters, retain_graph=True) for losses in (whole, cut)]
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(*(s[:n] for s in slopes), strict=True))

    first = torch.autograd.grad(cut[:2].sum(), parameters, retain_graph=True)
    second = torch.autograd.grad(cut[2:].sum(), parameters)
    early = torch.autograd.grad(whole[:2].sum(), parameters)
    for one, two in zip(first, early, strict=True):
        torch.testing.assert_close(one, two)  # nothing is cut within two steps
    path = list(path_on_constants(optimizer, weights, 4, 9, slope))
    for (name, w), back in zip(weights.items(), second[n:], strict=True):
        arrived = [3 * p[name].detach() ** 2 for p in path[2:]]
        if form == "residual":  # theta_t = theta_0 + what was added
            torch.testing.assert_close(back, arrived[0] + arrived[1])
        assert back.shape == w.shape
        assert back.abs().max() > 0
    replayed = replay(optimizer, weights, slope, parameters[:n])
    for one, two in zip(second[:n], replayed, strict=True):
        torch.testing.assert_close(one, two)


def replay(optimizer, weights, slope, parameters):
    """Steps 3 and 4 by hand from constants that steps 1 and 2 led to; their gradient in the optimizer."""

    def step(w, memory):
        moved = {name: optimizer(w[name], slope[name], torch.tensor(LEVEL), memory[name]) for name in w}
        return {n: m[0] for n, m in moved.items()}, {n: m[1] for n, m in moved.items()}

    memory = {name: optimizer.memory(w) for name, w in weights.items()}
    with torch.no_grad():
        for _ in range(2):
            weights, memory = step(weights, memory)
    losses = []
    for _ in range(2):
        weights, memory = step(weights, memory)
        losses.append(sum(x.pow(3).sum() for x in weights.values()))
    return torch.autograd.grad(sum(losses), parameters)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_untrained_it_adapts_as_maml_and_its_meta_loss_is_the_mean_along_the_way(normaliser):
    encoder, support, query = random_episode(normaliser)
    ours = LearnedOptimizer(encoder, LearnedOptimizerConfig(**RATES)).double()
    losses = []
    for steps in (1, 2, 3):
        maml = MAML(encoder, MAMLConfig(**(RATES | {"inner_steps": steps})))
        adapted = maml.adapt(support)
        losses.append(float(query.loss(adapted.scores(query))))
    mine = ours.adapt(support).state
    assert mine.keys() == adapted.state.keys()
    for name, value in adapted.state.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-12, atol=1e-14)
    assert float(ours.meta_loss(support, query).detach()) == pytest.approx(sum(losses) / 3, rel=1e-12)
    names = support.select(support.label_slot_mask)
    alone = query.loss(ours.adapt(names).scores(query))
    assert float(ours.meta_loss(names, query).detach()) == pytest.approx(float(alone))


@BOTH
@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_adapting_takes_the_steps_that_meta_training_took(normaliser, form):
    encoder, support, query = random_episode(normaliser)
    config = LearnedOptimizerConfig(**RATES, form=form, truncation=2, hidden=4)
    ours = scrambled(LearnedOptimizer(encoder, config))
    encoder.adapter["shift"].requires_grad_()
    in_training, adapted = ours.fit(support, meta=True), ours.adapt(support).state
    assert all(torch.equal(adapted[name], value) for name, value in in_training.items())
    ours.meta_loss(support, query).backward()
    assert all(p.grad.abs().max() > 0 for p in ours.parameters())
    assert encoder.adapter["shift"].grad.abs().max() > 0
    assert not any(value.requires_grad for value in adapted.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"inner_steps": 0}, "inner_steps is 0, but must be a whole number from 1"),
        ({"truncation": 0}, "truncation is 0, but must be a whole number from 1 to 1000"),
        ({"form": "gru"}, "form is 'gru', but must be one of: residual, gates"),
        ({"hidden": -3}, "hidden is -3"),
        ({"inner_lr": -0.1}, "inner_lr is -0.1"),
        ({"first_order": True}, "LearnedOptimizerConfig has no setting 'first_order'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("learned_optimizer").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "outer_lr", "settings"),
    [
        ("adapter", 0.01, {"scale": 2.0}),  # at first a head that is too flat
        ("learner", 0.03, {"form": "gates", "head_lr": 2.0}),  # at first steps that go too far
    ],
    ids=["residual", "gates"],
)
def test_meta_training_lowers_the_meta_validation_loss(
    train, outer_lr, settings, tmp_path, tiny_encoder_folder
):
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner="learned_optimizer",
        learner_config={"inner_steps": 3, **settings},
        train=train,
        outer__lr=outer_lr,
        outer__steps=12,
        validation__every=12,
    )
    losses = [record["val_loss"] for record in meta_train(config).history if "val_loss" in record]
    assert losses[-1] < losses[0] - 0.05, losses
