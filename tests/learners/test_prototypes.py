"""Prototypes: one a class as ever, several against scikit-learn and by hand, and a learned weight of label names."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from training_runs import config_of
from vectors import Vectors, random_episode, slots

from fewshot_nlp.backbone import VocabularyHead
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.learners.prototypical import Prototypical, PrototypicalConfig
from fewshot_nlp.modules.clusters import cluster_means, kmeans
from fewshot_nlp.modules.heads import class_means
from fewshot_nlp.training import meta_train


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_one_prototype_is_the_mean_bit_for_bit(normaliser):
    encoder, support, query = random_episode(normaliser)
    encoder = Vectors(encoder.table.float())
    adapted = Prototypical(encoder, PrototypicalConfig(label_names=0.5)).adapt(support)
    assert set(adapted.state) == {"prototypes", "seen", "log_temperature"}
    x, q = (F.normalize(rows, dim=-1) for rows in (encoder.features(support), encoder.features(query)))
    targets = support.target_matrix
    weight = torch.ones(12)
    weight[9:] = 0.5
    distances = []
    for kind in [targets] if normaliser == "classes" else [targets, 1 - targets]:
        kind = kind * weight[:, None]
        mean = (kind.T @ x) / kind.sum(dim=0).clamp_min(1e-12)[:, None]
        distances.append(1 - q @ F.normalize(mean, dim=-1).T)
    expected = -distances[0] if len(distances) == 1 else -distances[0] + distances[1]
    assert torch.equal(adapted.scores(query), expected / adapted.state["log_temperature"].exp())


SIX = [[2, 1, 0], [1, 0, 2], [0, 3, 1], [1, 2, 2], [-1, 1, 4], [3, 1, 1]]  # two rows a class
FOUR = [[1, 1, 1], [0, 1, 2], [2, 0, 1], [1, 3, 0]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (  # the code of Wang et al. 2019, "UN", and PrototypicalNetworks of easyfsl 1.5.0: distances
            {"metric": "euclidean"},
            [
                [0.7071, 1.6583, 1.5],
                [1.8708, 1.6583, 1.118],
                [0.7071, 2.958, 2.0616],
                [2.7386, 1.6583, 3.2016],
            ],
        ),
        (  # the code of Wang et al. 2019, "L2N"
            {"metric": "unit"},
            [
                [0.3883, 0.4786, 0.3954],
                [0.8367, 0.5658, 0.4668],
                [0.3162, 1.0881, 0.6453],
                [0.9228, 0.5327, 0.9219],
            ],
        ),
        (  # the same, "CL2N", given the support set's mean
            {"metric": "unit", "centre": True},
            [
                [0.6565, 1.6318, 1.1684],
                [1.3328, 1.3517, 1.0662],
                [0.3564, 1.8368, 0.9455],
                [1.3634, 0.8192, 1.2597],
            ],
        ),
        (  # SimpleShot of easyfsl 1.5.0: 1 - cosine
            {"metric": "cosine"},
            [
                [0.0742, 0.1185, 0.064],
                [0.4024, 0.1659, 0.1047],
                [0.0438, 0.6158, 0.236],
                [0.4929, 0.147, 0.5229],
            ],
        ),
    ],
)
def test_distances_are_those_of_the_authors_and_of_easyfsl(config, expected):
    encoder = Vectors(torch.tensor([*SIX, *FOUR], dtype=torch.float64))
    learner = Prototypical(encoder, PrototypicalConfig(temperature=1.0, **config))
    scores = learner.adapt(slots(range(6), [0, 0, 1, 1, 2, 2], 3)).scores(slots(range(6, 10), [0] * 4, 3))
    distances = -scores if config["metric"] == "cosine" else (-scores).sqrt()
    np.testing.assert_allclose(distances, expected, atol=6e-5)


@pytest.mark.parametrize(("metric", "centre", "agree"), [("unit", True, 2000), ("cosine", True, 1877)])
def test_two_thousand_decisions_of_simpleshot(metric, centre, agree):
    """Section 3 of Wang et al. 2019 written out; its authors' code decides so too, and the cosine differently."""
    same = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        centres, gold = rng.normal(size=(3, 16)), np.repeat([0, 1, 2], 5)
        x = centres[gold] + 2 * rng.normal(size=(15, 16))
        q = centres[rng.integers(3, size=20)] + 2 * rng.normal(size=(20, 16))
        x *= rng.uniform(0.3, 3, size=(15, 1))
        encoder = Vectors(torch.from_numpy(np.concatenate([x, q])))
        adapted = Prototypical(encoder, PrototypicalConfig(metric=metric, centre=centre)).adapt(
            slots(range(15), gold, 3)
        )
        ours = adapted.scores(slots(range(15, 35), [0] * 20, 3)).argmax(dim=1).numpy()
        unit, asked = (
            rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x - x.mean(0), q - x.mean(0))
        )
        means = np.stack([unit[gold == c].mean(axis=0) for c in range(3)])
        same += int((np.linalg.norm(asked[:, None] - means, axis=2).argmin(axis=1) == ours).sum())
    assert same == agree


def blobs(k, n, d, seed, spread=0.1):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d)) * 3
    return centres[np.arange(n) % k] + spread * rng.normal(size=(n, d))


@pytest.mark.parametrize(("k", "n", "d"), [(2, 30, 5), (4, 60, 3), (6, 90, 8)])
def test_separated_clusters_are_those_of_scikit_learn(k, n, d):
    x = blobs(k, n, d, seed=k)
    weight = np.random.default_rng(1).uniform(0.2, 2, size=n)
    theirs = KMeans(k, n_init=10, random_state=0).fit(x, sample_weight=weight)
    ours = kmeans(torch.from_numpy(x), torch.from_numpy(weight), k).numpy()
    assert adjusted_rand_score(ours, theirs.labels_) == 1.0


def test_clusters_that_overlap_are_about_as_good_as_scikit_learns():
    x = blobs(5, 200, 4, seed=0, spread=2.0)
    theirs = KMeans(5, n_init=10, random_state=0).fit(x)
    ours = kmeans(torch.from_numpy(x), torch.ones(200, dtype=torch.float64), 5).numpy()
    loss = sum(((x[ours == c] - x[ours == c].mean(0)) ** 2).sum() for c in range(5))
    assert theirs.inertia_ * 0.999 <= loss <= theirs.inertia_ * 1.05


def test_fewer_different_rows_than_clusters():
    x = torch.tensor([[0.0, 1.0]] * 4 + [[5.0, 0.0]] * 3)
    assert len(kmeans(x, torch.ones(7), 5).unique()) == 2
    assert kmeans(x[:0], torch.ones(0), 3).tolist() == []


def mixture_episode(n=40):
    """Class 0 lies on both sides of class 1, which has few slots."""
    generator = torch.Generator().manual_seed(0)
    side = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    background = torch.stack([3 * side, torch.ones(n)], dim=1)
    table = torch.cat([background, torch.tensor([[0.0, 1.0]]).expand(6, 2)])
    table = (table + 0.2 * torch.randn(n + 6, 2, generator=generator)).double()
    return table, torch.tensor([0] * n + [1] * 6)


@pytest.mark.parametrize("several", ["nearest", "mixture"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_class_that_is_a_mixture_needs_several(metric, several):
    table, gold = mixture_episode()
    support = slots(range(46), gold, 2)
    right = {}
    for n in (1, 2):
        config = PrototypicalConfig(n_prototypes=n, slots_per_prototype=10, metric=metric, several=several)
        scores = Prototypical(Vectors(table), config).adapt(support).scores(support)
        right[n] = float((scores.argmax(1) == gold).double().mean())
    assert right[2] == 1.0
    assert right[1] < 0.9


def test_only_large_classes_have_several():
    table, gold = mixture_episode()
    config = PrototypicalConfig(n_prototypes=3, slots_per_prototype=15)
    state = Prototypical(Vectors(table), config).fit(slots(range(46), gold, 3))
    assert (state["shares"][0] > 0).sum(dim=1).tolist() == [2, 1, 1]
    assert state["seen"].tolist() == [True, True, False]
    torch.testing.assert_close(state["shares"].sum(dim=2), torch.ones(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_a_single_cluster_is_the_mean(normaliser):
    encoder, support, query = random_episode(normaliser)
    x = encoder.features(support)
    means, shares = cluster_means(x, support, 0.5, 3, 100, 0)
    torch.testing.assert_close(means[:, :, 0], class_means(x, support, 0.5)[0])
    assert torch.equal(shares[:, :, 0], torch.ones_like(shares[:, :, 0]))
    for several in ("nearest", "mixture"):
        config = {"several": several, "slots_per_prototype": 100}
        scores = [
            Prototypical(encoder, PrototypicalConfig(n_prototypes=n, **config)).adapt(support).scores(query)
            for n in (1, 3)
        ]
        torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("several", ["nearest", "mixture"])
@pytest.mark.parametrize("normaliser", ["classes", "independent"])
def test_scores_of_several_by_hand(normaliser, several):
    encoder, support, query = random_episode(normaliser, n_support=30)
    config = PrototypicalConfig(
        n_prototypes=3, slots_per_prototype=3, several=several, metric="euclidean", temperature=2.0
    )
    adapted = Prototypical(encoder, config).adapt(support)
    means, shares = (adapted.state[name].numpy() for name in ("prototypes", "shares"))
    x, q = encoder.features(support).numpy(), encoder.features(query).numpy()
    expected = np.zeros((len(q), 3))
    for side, sign in zip(range(len(means)), (1, -1), strict=False):
        for c in range(3):
            members = support.target_matrix[:, c].numpy() == (side == 0)
            assert (shares[side, c] > 0).all()
            nearest = ((x[:, None] - means[side, c]) ** 2).sum(2).argmin(1)
            for j in range(3):  # each mean is that of the slots which it is nearest to, and has their share
                own = members & (nearest == j)
                np.testing.assert_allclose(means[side, c, j], x[own].mean(0), rtol=1e-9)
                assert shares[side, c, j] == pytest.approx(own.sum() / members.sum())
            squares = ((q[:, None] - means[side, c]) ** 2).sum(2)
            if several == "nearest":
                expected[:, c] -= sign * squares.min(1) / 2.0
            else:
                expected[:, c] += sign * np.log((shares[side, c] * np.exp(-squares / 2.0)).sum(1))
    np.testing.assert_allclose(adapted.scores(query).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_order_of_the_support_set_and_of_classes_do_not_matter():
    encoder, support, query = random_episode(n_support=30)
    learner = Prototypical(encoder, PrototypicalConfig(n_prototypes=3, slots_per_prototype=4))
    scores = learner.adapt(support).scores(query)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1)).tolist()
    label_slots = support.label_slot_mask[order]
    other = slots(
        [int(support.windows[i][0]) for i in order], support.gold[order], 3, label_slots=label_slots
    )
    torch.testing.assert_close(learner.adapt(other).scores(query), scores)
    rows = [int(window[0]) for window in support.windows]
    renamed = slots(rows, 2 - support.gold, 3, label_slots=support.label_slot_mask)
    torch.testing.assert_close(learner.adapt(renamed).scores(query), scores.flip(1))


def test_means_of_clusters_are_differentiated():
    encoder, support, query = random_episode(n_support=30)
    config = PrototypicalConfig(n_prototypes=3, slots_per_prototype=4, several="mixture")
    learner = Prototypical(encoder, config).double()
    shift = encoder.adapter["shift"].requires_grad_()
    learner.meta_loss(support, query).backward()
    values = []
    for step in (1e-6, -1e-6):
        shift.data += step
        values.append(float(learner.meta_loss(support, query).detach()))
        shift.data -= step
    assert float(shift.grad.sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("n_prototypes", [1, 3])
def test_learned_weight_of_label_names(n_prototypes):
    encoder, support, query = random_episode()
    config = {"label_names": 0.5, "n_prototypes": n_prototypes, "slots_per_prototype": 2}
    fixed = Prototypical(encoder, PrototypicalConfig(**config)).double()
    learner = Prototypical(encoder, PrototypicalConfig(**config, learn_label_names=True)).double()
    torch.testing.assert_close(learner.adapt(support).scores(query), fixed.adapt(support).scores(query))
    weight = learner.log_label_names
    learner.meta_loss(support, query).backward()
    values = []
    for step in (1e-6, -1e-6):
        weight.data += step
        values.append(float(learner.meta_loss(support, query).detach()))
        weight.data -= step
    assert float(weight.grad) != 0
    assert float(weight.grad) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_prototypes": 0}, "n_prototypes is 0, but must be a whole number from 1"),
        ({"n_prototypes": 2.5}, "n_prototypes is 2.5, but must be a whole number"),
        ({"slots_per_prototype": 0}, "slots_per_prototype is 0"),
        ({"several": "all"}, "several is 'all', but must be one of: nearest, mixture"),
        ({"learn_label_names": True, "label_names": 0.0}, "learn_label_names needs a weight to start from"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("prototypical").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


def test_several_are_refused_where_a_class_is_a_token():
    encoder, _, _ = random_episode()
    encoder.head = VocabularyHead(encoder)
    with pytest.raises(FewShotError, match="n_prototypes is 4, but where the model has a head of its own"):
        Prototypical(encoder, PrototypicalConfig(n_prototypes=4))


def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder):
    several = {"n_prototypes": 3, "slots_per_prototype": 5, "learn_label_names": True}
    config = config_of(
        tmp_path,
        tiny_encoder_folder,
        learner_config=several,
        outer__lr=0.05,
        outer__steps=12,
        validation__every=12,
    )
    losses = [r["val_loss"] for r in meta_train(config).history if "val_loss" in r]
    assert losses[-1] < losses[0] - 0.02, losses
