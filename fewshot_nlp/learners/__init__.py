"""Learners: from a support set to an adapted model. One file each; none knows which task it serves."""

from fewshot_nlp.learners.base import Adapted, Learner, LearnerConfig
from fewshot_nlp.registry import Registry

LEARNERS: Registry[type[Learner]] = Registry("learner", "fewshot_nlp.learners.catalogue")
"""All learners by name."""

__all__ = ["LEARNERS", "Adapted", "Learner", "LearnerConfig"]
