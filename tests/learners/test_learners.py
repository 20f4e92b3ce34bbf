"""Each learner against something from outside: finite differences, closed forms, brute force, scikit-learn."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.errors import FewShotError, ScienceError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.context_probe import neighbour
from fewshot_nlp.learners.nearest_neighbour import nearest_of_each_class
from fewshot_nlp.memory import Index
from fewshot_nlp.modules.inner_loop import sgd_path
from fewshot_nlp.modules.linear_models import (
    PreconditionedRegression,
    apply,
    log_softmax,
    shrunk_lda,
    stack_weights,
    stratified_folds,
)
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.tasks import TASKS

ROWS = [
    {"text": "my card was lost", "label": "card"},
    {"text": "send a new card", "label": "card"},
    {"text": "the judge and the court", "label": "law"},
    {"text": "an order of the court", "label": "law"},
    {"text": "a dose of aspirin", "label": "drug"},
    {"text": "aspirin for the pain", "label": "drug"},
]


@pytest.fixture
def encoder(tiny_encoder_folder):
    return Encoder.from_pretrained(tiny_encoder_folder)


def support_of(encoder, learner, rows=ROWS, **config):
    pipeline = new_pipeline("classification", {}, encoder, learner, config)
    examples = pipeline.task.examples(rows)
    return pipeline, pipeline.support(examples, pipeline.task.labels(examples))


def raw_features(encoder, rows=ROWS):
    task = TASKS.get("classification")()
    batch = task.collate(task.examples(rows), ["card", "drug", "law"], encoder.tokenizer, with_targets=True)
    return encoder.features(batch), batch.gold


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_prototypes_are_class_means(encoder, metric):
    pipeline, support = support_of(encoder, "prototypical", metric=metric, label_names=0.0)
    state = pipeline.learner.fit(support)
    x, y = raw_features(encoder)
    if metric == "cosine":
        x = x / x.norm(dim=1, keepdim=True)
    by_hand = torch.stack([x[y == c].mean(0) for c in range(3)])
    torch.testing.assert_close(state["prototypes"][0], by_hand)


def test_euclidean_prototypes_predict_like_nearest_centroid(encoder):
    pipeline, support = support_of(encoder, "prototypical", metric="euclidean", label_names=0.0)
    x, y = raw_features(encoder)
    queries = [{"text": t, "label": "card"} for t in ("a card", "the court", "pain", "new order", "my dose")]
    q, _ = raw_features(encoder, queries)
    expected = NearestCentroid().fit(x, y).predict(q)
    batch = pipeline.queries(pipeline.task.examples(queries), ["card", "drug", "law"])
    assert pipeline.learner.adapt(support).scores(batch).argmax(1).tolist() == expected.tolist()


def test_label_names_move_prototypes_by_their_weight(encoder):
    plain, without = support_of(encoder, "prototypical", label_names=0.0)
    named, support = support_of(encoder, "prototypical", label_names=2.0)
    means = plain.learner.fit(without)["prototypes"][0]
    label_slots = support.select(support.label_slot_mask)
    names = torch.nn.functional.normalize(encoder.features(label_slots), dim=1)
    expected = (2 * means + 2.0 * names) / 4.0
    torch.testing.assert_close(named.learner.fit(support)["prototypes"][0], expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_is_brute_force(metric):
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(7, 5, generator=generator), torch.randn(23, 5, generator=generator)
    distance, index = Index(keys, metric).search(queries, 4, chunk=3)
    for q in range(7):
        if metric == "euclidean":
            all_distances = [float(((queries[q] - k) ** 2).sum()) for k in keys]
        else:
            all_distances = [1 - float(torch.cosine_similarity(queries[q], k, dim=0)) for k in keys]
        order = np.argsort(all_distances)[:4]
        assert index[q].tolist() == order.tolist()
        np.testing.assert_allclose(distance[q], np.array(all_distances)[order], rtol=1e-4, atol=1e-5)


def test_the_nearest_of_each_class():
    keys = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    values = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    one, two = (nearest_of_each_class(keys, values, torch.tensor([[4.0]]), k, "euclidean") for k in (1, 2))
    assert one.tolist() == [[4.0, 1.0, float("inf")]]
    assert two.tolist()[0][:2] == [10.0, 5.0]


def test_neighbour_votes_match_scikit_learn(encoder):
    pipeline, support = support_of(
        encoder, "nearest_neighbour", vote="top_k", k=3, metric="euclidean", temperature=1e6, label_names=0.0
    )
    x, y = raw_features(encoder)
    q, _ = raw_features(encoder, ROWS[::-1])
    expected = KNeighborsClassifier(3).fit(x.numpy(), y.numpy()).predict_proba(q.numpy())
    batch = pipeline.queries(pipeline.task.examples(ROWS[::-1]), ["card", "drug", "law"])
    got = pipeline.learner.adapt(support).scores(batch).exp().numpy()
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_nnshot_is_the_nearest_slot_of_each_class(encoder):
    pipeline, support = support_of(
        encoder, "nearest_neighbour", label_names=0.0, temperature=1.0, metric="euclidean"
    )
    x, y = raw_features(encoder)
    q, _ = raw_features(encoder, ROWS[:2])
    expected = [[-min(float(((row - k) ** 2).sum()) for k in x[y == c]) for c in range(3)] for row in q]
    batch = pipeline.queries(pipeline.task.examples(ROWS[:2]), ["card", "drug", "law"])
    np.testing.assert_allclose(pipeline.learner.adapt(support).scores(batch).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("n", "d"), [(12, 30), (60, 8)])
def test_preconditioned_regression_is_logistic_regression(n_classes, n, d):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(n, d)), rng.integers(n_classes, size=n), rng.uniform(0.5, 2, size=n)
    y[:n_classes] = np.arange(n_classes)
    ours = PreconditionedRegression(x, n_classes, 2.0, np.float64).fit(np.arange(n), y, w, tolerance=1e-12)
    # two vectors of half the size have half the penalty of scikit-learn's one
    theirs = LogisticRegression(C=4.0 if n_classes == 2 else 2.0, tol=1e-10, max_iter=10_000).fit(
        x, y, sample_weight=w
    )
    np.testing.assert_allclose(np.exp(log_softmax(apply(ours, x))), theirs.predict_proba(x), atol=1e-4)


def test_large_problems_skip_the_decomposition_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 20)), rng.integers(3, size=40)
    whole = PreconditionedRegression(x, 3, 1.0, np.float64).fit(
        np.arange(40), y, np.ones(40), tolerance=1e-12
    )
    monkeypatch.setattr("fewshot_nlp.modules.linear_models.DECOMPOSED", 5)
    plain = PreconditionedRegression(x, 3, 1.0, np.float64).fit(
        np.arange(40), y, np.ones(40), tolerance=1e-12
    )
    np.testing.assert_allclose(apply(plain, x), apply(whole, x), atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(12, 30), (60, 8)])
def test_shrunk_lda_is_scikit_learns(n, d):
    rng = np.random.default_rng(2)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, d)) + y[:, None]
    ours = apply(shrunk_lda(x, y, 3, 0.4), x)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    within = (x - means[y]).T @ (x - means[y]) / (n - 3)
    covariance = 0.6 * within + 0.4 * np.trace(within) / d * np.eye(d)
    np.testing.assert_allclose(
        log_softmax(ours),
        log_softmax(
            -0.5 * np.stack([((x - m) @ np.linalg.inv(covariance) * (x - m)).sum(1) for m in means], 1)
        ),
        atol=1e-3,
    )
    plain = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(x, y)
    if n > d:
        tiny = apply(shrunk_lda(x, y, 3, 1e-6), x)
        assert (tiny.argmax(1) == plain.predict(x)).mean() > 0.95


def test_stacking_prefers_the_head_that_knows():
    rng = np.random.default_rng(3)
    y = rng.integers(4, size=200)
    good = np.eye(4)[y] * 2 + rng.normal(size=(200, 4)) * 0.5
    noise = rng.normal(size=(200, 4))
    a = stack_weights(np.stack([good, noise]), y, np.ones(2), 0.5)
    assert a[0] > 3 * a[1]
    grid = [
        (
            -(log_softmax(p * good + q * noise)[np.arange(200), y].sum())
            + 0.5 * (np.log(p) ** 2 + np.log(q) ** 2),
            p,
            q,
        )
        for p, q in itertools.product(np.geomspace(0.02, 20, 60), repeat=2)
    ]
    _, p, q = min(grid)
    np.testing.assert_allclose(np.log(a), np.log([p, q]), atol=0.15)


def test_folds_hold_out_every_row_once_but_only_rows():
    fold = stratified_folds(np.array([0, 0, 0, 1, 1, 2]), 2)
    assert fold[5] == -1
    assert set(fold[:3]) == {0, 1}
    assert sorted(fold[3:5]) == [0, 1]


def test_neighbours_stay_inside_their_example():
    class Batch:
        groups = torch.tensor([0, 0, 1])

    rows = torch.tensor([[1.0], [2.0], [3.0]])
    assert neighbour(rows, Batch, -1).flatten().tolist() == [0, 1, 0]
    assert neighbour(rows, Batch, 1).flatten().tolist() == [2, 0, 0]


def test_sgd_steps_on_a_quadratic_match_the_closed_form():
    w = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    curvature = torch.tensor([1.0, 3.0], dtype=torch.float64)
    *_, end = sgd_path(
        {"w": w},
        lambda p: (curvature * p["w"] ** 2).sum() / 2,
        steps=4,
        rate=lambda *_: 0.1,
        second_order=True,
    )
    out = end["w"]
    torch.testing.assert_close(out, w * (1 - 0.1 * curvature) ** 4)
    (slope,) = torch.autograd.grad(out.sum(), w)
    torch.testing.assert_close(slope, (1 - 0.1 * curvature) ** 4)


@pytest.mark.parametrize("head", ["zeros", "prototypes"])
def test_maml_outer_gradient_matches_finite_differences(encoder, head):
    encoder.model.double()
    pipeline, support = support_of(
        encoder, "maml", head=head, inner_steps=2, inner_lr=0.05, head_lr=0.5, label_names=1.0
    )
    query_rows = [
        {"text": t, "label": c}
        for t, c in (("my new card", "card"), ("pain", "drug"), ("a letter of law", "law"))
    ]
    query = pipeline.task.collate(
        pipeline.task.examples(query_rows), ["card", "drug", "law"], encoder.tokenizer, with_targets=True
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for p in encoder.adapter.values():
            p.copy_(torch.randn_like(p) * 0.2)
    direction = {n: torch.randn_like(p) for n, p in encoder.adapter.items()}
    for p in encoder.adapter.values():
        p.requires_grad_()
    pipeline.learner.meta_loss(support, query).backward()
    exact = float(sum((p.grad * direction[n]).sum() for n, p in encoder.adapter.items()))
    first_order = _first_order_gradient(pipeline, support, query, direction)

    def loss_at(shift):
        with torch.no_grad():
            for n, p in encoder.adapter.items():
                p.add_(shift * direction[n])
        value = float(pipeline.learner.meta_loss(support, query).detach())
        with torch.no_grad():
            for n, p in encoder.adapter.items():
                p.sub_(shift * direction[n])
        return value

    h = 1e-6
    numeric = (loss_at(h) - loss_at(-h)) / (2 * h)
    assert exact == pytest.approx(numeric, rel=1e-5)
    assert abs(first_order - numeric) > 1e-3 * abs(numeric), (
        "first order must differ here, or the test shows nothing"
    )


def _first_order_gradient(pipeline, support, query, direction):
    encoder = pipeline.learner.encoder
    for p in encoder.adapter.values():
        p.grad = None
    first = LEARNERS.get("maml")(
        encoder, type(pipeline.learner.config)(**{**pipeline.learner.config.to_dict(), "first_order": True})
    )
    first.meta_loss(support, query).backward()
    return float(sum((p.grad * direction[n]).sum() for n, p in encoder.adapter.items()))


def test_anil_leaves_the_encoder_alone(encoder):
    pipeline, support = support_of(encoder, "maml", scope="head")
    state = pipeline.learner.fit(support)
    assert set(state) == {"head.weight", "head.bias"}
    assert not encoder.adapter


@pytest.mark.parametrize("scope", ["adapter", "all", "head"])
def test_fine_tuning_lowers_the_support_loss_and_moves_only_its_scope(encoder, scope):
    pipeline, support = support_of(encoder, "fine_tune", scope=scope, steps=20, lr=1e-2, head_lr=1e-2)
    examples = support.select(~support.label_slot_mask)
    start = pipeline.learner.fit(support, meta=True)
    before = examples.loss(pipeline.learner.query_scores(start, examples))
    adapted = pipeline.learner.adapt(support)
    after = examples.loss(adapted.scores(examples))
    assert after < before
    fast = {k for k in adapted.state if k.startswith("fast.")}
    expected = {"adapter": set(encoder.adapter), "all": set(encoder.parameters()), "head": set()}[scope]
    assert fast == {"fast." + n for n in expected}


def test_fine_tuning_from_a_solved_head_starts_at_its_scores(encoder):
    probe, support = support_of(encoder, "linear_probe")
    tuned = new_pipeline(
        "classification", {}, encoder, "fine_tune", {"scope": "head", "start": "linear_probe"}
    )
    batch = probe.queries(probe.task.examples(ROWS), ["card", "drug", "law"])
    start = tuned.learner.fit(support, meta=True)
    torch.testing.assert_close(
        tuned.learner.query_scores(start, batch), probe.learner.adapt(support).scores(batch)
    )


def test_early_stopping_keeps_the_best_of_the_held_out_loss(encoder):
    rows = [
        {"text": f"{a} {b}", "label": "card"}
        for a in ("card", "cash", "bank")
        for b in ("my", "the", "a", "lost")
    ]
    rows += [
        {"text": f"{a} {b}", "label": "law"}
        for a in ("court", "judge", "law")
        for b in ("my", "the", "a", "order")
    ]
    losses = {}
    for steps in (5, 10, 60):
        pipeline, support = support_of(
            encoder, "fine_tune", rows, scope="head", steps=60, head_lr=5.0, early_stopping=0.3, seed=5
        )
        learner = pipeline.learner
        train, held = learner._split(support.select(~support.label_slot_mask))
        assert held is not None
        assert not set(train.groups.tolist()) & set(held.groups.tolist())
        stopped = learner.adapt(support)
        plain = type(learner)(encoder, replace(learner.config, early_stopping=0.0, steps=steps))
        losses[steps] = float(held.loss(plain.adapt(train).scores(held)))
    best = float(held.loss(stopped.scores(held)))
    assert best < losses[60]
    assert best < float(held.loss(learner.query_scores(learner.fit(support, meta=True), held)))


def test_divergence_is_named(encoder):
    pipeline, support = support_of(
        encoder, "fine_tune", scope="all", steps=30, lr=10.0, head_lr=10.0, max_grad_norm=1e6
    )
    pipeline.learner.encoder.model.embeddings.word_embeddings.weight.data[5:].mul_(1e30)
    with pytest.raises(ScienceError, match="NaN or infinite"):
        pipeline.learner.adapt(support)


@pytest.mark.parametrize(
    ("learner", "config", "message"),
    [
        ("maml", {"inner_steps": 0}, "inner_steps is 0, but must be a whole number from 1"),
        ("maml", {"inner_lr": -1.0}, "inner_lr is -1.0"),
        ("maml", {"outer_lr": 1.0}, "learner_config has no setting 'outer_lr'. Did you mean 'inner_lr'"),
        ("nearest_neighbour", {"k": 0}, "k is 0"),
        ("nearest_neighbour", {"metric": "l3"}, "metric is 'l3', but must be one of: euclidean, cosine"),
        ("prototypical", {"temperature": 0.0}, "temperature is 0.0"),
        ("linear_probe", {"C": -3}, "C is -3"),
        ("prototypicl", {}, "There is no learner 'prototypicl'. Did you mean 'prototypical'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(encoder, learner, config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        new_pipeline("classification", {}, encoder, learner, config)
    assert "\n" not in str(caught.value)


def test_context_probe_scores_are_those_of_its_design_matrix(encoder):
    pipeline = new_pipeline("ner", {"scheme": "bio"}, encoder, "context_probe", None)
    rows = [
        {"tokens": ["Take", "Aspirin", "now"], "ner_tags": ["O", "B-DRUG", "O"]},
        {"tokens": ["the", "high", "court", "paid", "10"], "ner_tags": ["O", "B-ORG", "I-ORG", "O", "O"]},
    ]
    examples = pipeline.task.examples(rows)
    support = pipeline.support(examples, pipeline.task.labels(examples))
    learner = pipeline.learner
    state = learner.fit(support)
    features = encoder.features(support)
    wide = learner._design(state, features, support)
    fine = (wide @ state["head.weight"].T + state["head.bias"]).log_softmax(1)
    types = (wide @ state["head.coarse.weight"].T + state["head.coarse.bias"]).log_softmax(1)
    got = learner.score(state, features, support).log_softmax(1)
    for slot in range(support.n_slots):
        blend = []
        for t, members in enumerate([[0], [1, 2], [3, 4]]):
            mass = fine[slot, members].exp().sum()
            blend += [float((fine[slot, c] + types[slot, t] / 2 - mass.log() / 2).exp()) for c in members]
        np.testing.assert_allclose(got[slot].exp(), np.array(blend) / sum(blend), atol=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.25, 1.0])
def test_context_probe_is_logistic_regression_with_weights_by_class_frequency(encoder, balance):
    pipeline = new_pipeline("ner", {"scheme": "io"}, encoder, "context_probe", {"C": 2.0, "balance": balance})
    row = {"tokens": ["Take", "Aspirin", "now", "at", "the", "high", "court"]}
    row["ner_tags"] = ["O", "B-DRUG", "O", "O", "O", "O", "B-ORG"]
    examples = pipeline.task.examples([row])
    support = pipeline.support(examples, pipeline.task.labels(examples))
    learner = pipeline.learner
    state = learner.fit(support)
    slots = support.select(~support.label_slot_mask) if bool(support.label_slot_mask.any()) else support
    x = learner._design(state, encoder.features(slots), slots).double().numpy()
    counts = np.bincount(slots.gold.numpy())
    weights = (counts**-balance)[slots.gold.numpy()]
    weights *= len(weights) / weights.sum()
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(x, slots.gold, sample_weight=weights)
    ours = x @ state["head.weight"].double().numpy().T + state["head.bias"].double().numpy()
    np.testing.assert_allclose(np.exp(log_softmax(ours)), theirs.predict_proba(x), atol=1e-4)
