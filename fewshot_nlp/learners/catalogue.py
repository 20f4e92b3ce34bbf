"""Every learner: one import line each."""

from fewshot_nlp.learners import (
    fine_tune,
    linear_probe,
    maml,
    nearest_neighbour,
    prototypical,
    stacked_probe,
)

__all__ = ["fine_tune", "linear_probe", "maml", "nearest_neighbour", "prototypical", "stacked_probe"]
