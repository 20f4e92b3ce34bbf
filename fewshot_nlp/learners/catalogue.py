"""Every learner: one import line each."""

from fewshot_nlp.learners import (
    context_probe,
    fine_tune,
    linear_probe,
    maml,
    nearest_neighbour,
    prototypical,
    stacked_probe,
)

__all__ = [
    "context_probe",
    "fine_tune",
    "linear_probe",
    "maml",
    "nearest_neighbour",
    "prototypical",
    "stacked_probe",
]
