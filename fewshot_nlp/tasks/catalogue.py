"""Every task: one import line each."""

from fewshot_nlp.tasks import classification, ner, question_answering, translation

__all__ = ["classification", "ner", "question_answering", "translation"]
