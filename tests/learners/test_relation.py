"""Relation networks against prototypes, and the network against pairs built one by one."""

import pytest
import torch
from training_runs import config_of
from vectors import random_episode

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS, relation
from fewshot_nlp.learners.prototypical import Prototypical, PrototypicalConfig
from fewshot_nlp.learners.relation import Relation, RelationConfig, RelationNetwork
from fewshot_nlp.training import meta_train


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_untrained_it_is_prototypes(normaliser):
    encoder, support, query = random_episode(normaliser)
    config = {"temperature": 0.2, "label_names": 0.5}
    ours = Relation(encoder, RelationConfig(**config))
    theirs = Prototypical(encoder, PrototypicalConfig(**config)).double()
    expected = theirs.adapt(support).scores(query)
    torch.testing.assert_close(ours.adapt(support).scores(query), expected, rtol=1e-6, atol=1e-6)


def trained(network, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


@pytest.mark.parametrize(("cells", "classes"), [(2**22, 256), (1, 256), (40, 2)])
def test_network_is_a_perceptron_on_pairs(monkeypatch, cells, classes):
    monkeypatch.setattr(relation, "CELLS", cells)
    monkeypatch.setattr(relation, "CLASSES", classes)
    network = trained(RelationNetwork(5, 4))
    generator = torch.Generator().manual_seed(0)
    slots, prototypes = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (7, 3))
    first = torch.cat([network.of_class.weight, network.of_slot.weight, network.of_product.weight], dim=1)
    for i, j in [(i, j) for i in range(7) for j in range(3)]:
        s, c = slots[i] * 5**0.5, prototypes[j] * 5**0.5
        inner = torch.relu(first @ torch.cat([c, s, c * s]) + network.of_class.bias)
        expected = network.out.weight[0] @ inner + network.out.bias[0]
        torch.testing.assert_close(network(slots, prototypes)[i, j], expected)


@pytest.mark.parametrize("normaliser", ["classes", "independent", "positions"])
def test_learned_part_moves_scores_of_both_sides(normaliser):
    encoder, support, query = random_episode(normaliser)
    learner = Relation(encoder)
    before = learner.adapt(support).scores(query)
    trained(learner.network)
    adapted = learner.adapt(support)
    moved = adapted.scores(query) - before
    queries = torch.nn.functional.normalize(encoder.features(query), dim=1)
    yes, *no = (learner.network(queries, side) for side in adapted.state["prototypes"])
    assert len(no) == (normaliser != "classes")
    torch.testing.assert_close(moved, yes - no[0] if no else yes)
    assert moved.std() > 1e-3


def test_classes_in_any_number_and_those_without_a_slot():
    encoder, support, query = random_episode()
    learner = Relation(encoder)
    trained(learner.network)
    scores = learner.adapt(support).scores(query)
    two = learner.adapt(support.select(support.gold < 2)).scores(query)
    torch.testing.assert_close(two[:, :2], scores[:, :2])
    assert float(two[:, 2].max()) < -9000


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": 0}, "hidden is 0, but must be a whole number from 1 to 8192"),
        ({"hidden": 2.5}, "hidden is 2.5, but must be a whole number"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"metric": "cosine"}, "RelationConfig has no setting 'metric'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(config, message):
    with pytest.raises(FewShotError, match=message) as caught:
        LEARNERS.get("relation").config_class.from_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("train", ["adapter", "learner"])
def test_meta_training_lowers_the_meta_validation_loss(tmp_path, tiny_encoder_folder, train):
    config = config_of(
        tmp_path, tiny_encoder_folder, learner="relation", train=train, outer__steps=12, validation__every=12
    )
    losses = [r["val_loss"] for r in meta_train(config).history if "val_loss" in r]
    assert losses[-1] < losses[0] - 0.02, losses
