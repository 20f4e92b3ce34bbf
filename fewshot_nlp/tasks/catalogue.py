"""Every task: one import line each."""

from fewshot_nlp.tasks import classification, ner, question_answering

__all__ = ["classification", "ner", "question_answering"]
