"""Every sampler of one data set: one import line each."""

from fewshot_nlp.sampling import domain, nway_k2kshot, nway_kshot

__all__ = ["domain", "nway_k2kshot", "nway_kshot"]
