"""Samplers: from a data set to an addressable stream of episodes (text and ids, never tensors)."""

from fewshot_nlp.sampling.base import SAMPLERS, TaskSampler, episodes, generator
from fewshot_nlp.sampling.domain import KShot, MetaSplits, split_classes, split_domains
from fewshot_nlp.sampling.mixture import Mixture
from fewshot_nlp.sampling.nway_k2kshot import NWayK2KShot
from fewshot_nlp.sampling.nway_kshot import NWayKShot

__all__ = [
    "SAMPLERS",
    "KShot",
    "MetaSplits",
    "Mixture",
    "NWayK2KShot",
    "NWayKShot",
    "TaskSampler",
    "episodes",
    "generator",
    "split_classes",
    "split_domains",
]
