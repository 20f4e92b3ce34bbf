"""Adapt Hugging Face models to a new text task from a handful of examples.

The public names are loaded on first use, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot_nlp.comparison import Comparison, Diagnosis, adapt_best, doctor, evaluate
    from fewshot_nlp.episode import Episode, Example
    from fewshot_nlp.errors import FewShotError
    from fewshot_nlp.evaluator import Report, evaluate_episodes
    from fewshot_nlp.learners import LEARNERS
    from fewshot_nlp.models import FewShotClassifier, FewShotModel, FewShotNER, FewShotQA, FewShotTranslator
    from fewshot_nlp.predictions import Answer, Entity, SpanAnswer
    from fewshot_nlp.progress import disable_progress_bars
    from fewshot_nlp.sampling import SAMPLERS
    from fewshot_nlp.sources import load_dataset_card
    from fewshot_nlp.tasks import TASKS
    from fewshot_nlp.training import meta_train

    __version__: str

_HOMES = {
    name: home
    for home, names in {
        "comparison": "Comparison Diagnosis adapt_best doctor evaluate",
        "episode": "Episode Example",
        "errors": "FewShotError",
        "evaluator": "Report evaluate_episodes",
        "learners": "LEARNERS",
        "models": "FewShotClassifier FewShotModel FewShotNER FewShotQA FewShotTranslator",
        "predictions": "Answer Entity SpanAnswer",
        "progress": "disable_progress_bars",
        "sampling": "SAMPLERS",
        "sources": "load_dataset_card",
        "tasks": "TASKS",
        "training": "meta_train",
    }.items()
    for name in names.split()
}

__all__ = [
    "LEARNERS",
    "SAMPLERS",
    "TASKS",
    "Answer",
    "Comparison",
    "Diagnosis",
    "Entity",
    "Episode",
    "Example",
    "FewShotClassifier",
    "FewShotError",
    "FewShotModel",
    "FewShotNER",
    "FewShotQA",
    "FewShotTranslator",
    "Report",
    "SpanAnswer",
    "adapt_best",
    "disable_progress_bars",
    "doctor",
    "evaluate",
    "evaluate_episodes",
    "load_dataset_card",
    "meta_train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("fewshot_nlp.version").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'fewshot_nlp' has no attribute {name!r}")
    return getattr(import_module(f"fewshot_nlp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
