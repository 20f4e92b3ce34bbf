"""Where inner steps begin: the head from prototypes, and which derivatives the encoder is asked for."""

import pytest
import torch
from vectors import Vectors, slots

from fewshot_nlp.learners.fine_tune import FineTune, FineTuneConfig
from fewshot_nlp.modules.start import prototype_start, support_loss

TABLE = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 5.0]], dtype=torch.float64)


class Asked(Vectors):
    """Notes whether its features were asked for with a second derivative."""

    def features(self, batch, fast_weights=None, *, double_backward=False):
        self.noted = [*getattr(self, "noted", []), double_backward]
        return super().features(batch, fast_weights, double_backward=double_backward)


@pytest.fixture
def learner():
    return FineTune(Asked(TABLE), FineTuneConfig(scope="adapter", label_names=0.0))


SUPPORT = slots(range(4), [0, 1, 0, 1], 2)


def test_the_head_is_that_of_prototypes_of_scaled_rows(learner):
    """Triantafillou et al. 2020, section 3: w = 2 c, b = -|c|^2, halved; c is the mean of rows of length 3."""
    head = prototype_start(learner, SUPPORT, 3.0)
    rows = 3 * TABLE / TABLE.norm(dim=1, keepdim=True)
    means = torch.stack([rows[[0, 2]].mean(dim=0), rows[[1, 3]].mean(dim=0)])
    torch.testing.assert_close(head["head.weight"], means)
    torch.testing.assert_close(head["head.bias"], -means.square().sum(dim=1) / 2)


@pytest.mark.parametrize("options", [{}, {"double_backward": False}, {"double_backward": True}])
def test_a_second_derivative_is_asked_for_where_it_is_needed_only(learner, options):
    wanted = options.get("double_backward", False)
    head = prototype_start(learner, SUPPORT, 1.0, **options)
    weights = {**head, "fast.shift": torch.zeros(2, 2, dtype=torch.float64)}
    support_loss(learner, SUPPORT, weights, **options)(weights)
    assert learner.encoder.noted == [wanted, wanted]


def test_fixed_features_are_computed_once(learner):
    head = prototype_start(learner, SUPPORT, 1.0)
    loss = support_loss(learner, SUPPORT, head)
    assert loss(head) == loss(head)
    assert learner.encoder.noted == [False, False]
