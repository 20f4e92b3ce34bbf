"""The shapes in signatures are executed while the tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from fewshot_nlp.modules.state import class_sums


def test_arrays_whose_sizes_disagree_are_refused():
    class_sums(torch.zeros(5, 3), torch.zeros(5, 2))
    with pytest.raises(TypeCheckError, match="weights"):
        class_sums(torch.zeros(5, 3), torch.zeros(4, 2))
    with pytest.raises(TypeCheckError, match="features"):
        class_sums(torch.zeros(5, 3, dtype=torch.long), torch.zeros(5, 2))
