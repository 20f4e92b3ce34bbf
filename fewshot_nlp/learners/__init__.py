"""Learners: from a support set to an adapted model. One file each; none knows which task it serves."""

from fewshot_nlp.learners.base import LEARNERS, Adapted, Learner, LearnerConfig, learner_config

__all__ = ["LEARNERS", "Adapted", "Learner", "LearnerConfig", "learner_config"]
