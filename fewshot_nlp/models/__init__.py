"""The models that users import: one for each task."""

from fewshot_nlp.models.classifier import FewShotClassifier
from fewshot_nlp.models.ner import FewShotNER
from fewshot_nlp.models.question_answering import FewShotQA
from fewshot_nlp.models.translator import FewShotTranslator

__all__ = ["FewShotClassifier", "FewShotNER", "FewShotQA", "FewShotTranslator"]
