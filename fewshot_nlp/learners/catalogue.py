"""Every learner: one import line each."""

from fewshot_nlp.learners import (
    bayesian,
    context_probe,
    fine_tune,
    learned_optimizer,
    linear_probe,
    maml,
    matching,
    memory_augmented,
    meta_sgd,
    nearest_neighbour,
    prototypical,
    relation,
    reptile,
    ridge,
    stacked_probe,
)

__all__ = [
    "bayesian",
    "context_probe",
    "fine_tune",
    "learned_optimizer",
    "linear_probe",
    "maml",
    "matching",
    "memory_augmented",
    "meta_sgd",
    "nearest_neighbour",
    "prototypical",
    "relation",
    "reptile",
    "ridge",
    "stacked_probe",
]
