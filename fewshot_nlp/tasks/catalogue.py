"""Every task: one import line each."""

from fewshot_nlp.tasks import classification, ner

__all__ = ["classification", "ner"]
