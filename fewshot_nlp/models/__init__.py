"""The models that users import: one for every task, and one for each task that adds something to it."""

from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.models.classifier import FewShotClassifier
from fewshot_nlp.models.ner import FewShotNER
from fewshot_nlp.models.question_answering import FewShotQA
from fewshot_nlp.models.translator import FewShotTranslator

__all__ = ["FewShotClassifier", "FewShotModel", "FewShotNER", "FewShotQA", "FewShotTranslator"]
