"""Tasks: from a data set's columns to slots, and from scores to predictions and metrics."""

from fewshot_nlp.registry import Registry
from fewshot_nlp.tasks.base import Task

TASKS: Registry[type[Task]] = Registry("task", "fewshot_nlp.tasks.catalogue")
"""All tasks by name."""

__all__ = ["TASKS", "Task"]
