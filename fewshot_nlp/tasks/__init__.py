"""Tasks: from rows to slots, and from scores to predictions and metrics."""

from fewshot_nlp.tasks.base import TASKS, Task

__all__ = ["TASKS", "Task"]
