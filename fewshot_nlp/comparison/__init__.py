"""Learners compared on a user's own rows: repeated support sets, the learning curve, and a baseline beside."""

from fewshot_nlp.comparison.auto import adapt_best
from fewshot_nlp.comparison.benchmark import run_benchmark
from fewshot_nlp.comparison.diagnosis import Diagnosis, doctor
from fewshot_nlp.comparison.mistakes import Mistakes, find_mistakes
from fewshot_nlp.comparison.report import Comparison
from fewshot_nlp.comparison.robustness import Robustness, robustness
from fewshot_nlp.comparison.run import evaluate

__all__ = [
    "Comparison",
    "Diagnosis",
    "Mistakes",
    "Robustness",
    "adapt_best",
    "doctor",
    "evaluate",
    "find_mistakes",
    "robustness",
    "run_benchmark",
]
