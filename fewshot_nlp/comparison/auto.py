"""The learner that suits a user's rows best, by cross-validation on them alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_nlp.comparison.report import Comparison
from fewshot_nlp.comparison.run import DEFAULT, evaluate
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.models import FewShotModel
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks import TASKS

TRIED = (DEFAULT, "stacked_probe", "ridge", "nearest_neighbour")


def best_learner(
    rows: Any,
    *,
    task: str,
    learners: Sequence[str] = TRIED,
    seconds: float = 60.0,
    encoder: str | None = None,
    task_config: Mapping[str, Any] | None = None,
) -> tuple[str | None, Comparison]:
    """Compares a few learners on the rows.

    Support sets are half of the rows and, where time allows, four fifths.

    Args:
        rows: as for `FewShotModel.adapt`.
        task: name of the task.
        learners: what is tried; one that the task or the model refuses is left out. "default" is the task's own.
        seconds: the budget of `evaluate`.
        encoder: as for `evaluate`.
        task_config: options of the task.

    Returns:
        The best learner's name, None for the task's own, and the comparison, which says what was tried.

    Raises:
        FewShotError: as `evaluate`, or none of the learners could be tried.
    """
    read = read_rows(rows, task)
    many = len(read)
    if TASKS.get(task).has_labels:
        reader = FewShotModel.from_pretrained(encoder, task=task, task_config=task_config).pipeline.task
        counts = Counter(
            x for e in reader.examples(read) for x, n in reader.labels_of(e).items() for _ in range(n)
        )
        many = min(counts.values(), default=1)
    sizes = sorted({max(1, many // 2), max(1, many * 4 // 5)})
    options: dict[str, Any] = {"encoder": encoder, "task_config": task_config, "budget": seconds}
    found = evaluate(read, task=task, k_shot=sizes, learners=learners, **options)
    scores = {name: s.mean for name in learners if (s := found.score(name, found.shots[-1]))}
    if not scores:
        raise FewShotError(f"None of the learners could be tried: {found.refused(learners[0])}")
    best = max(scores, key=lambda name: scores[name])
    return (None if best == DEFAULT else best), found


def adapt_best(
    rows: Any, *, task: str, encoder: str | None = None, **options: Any
) -> tuple[FewShotModel, Comparison]:
    """The best of a few learners, adapted to all rows, and the comparison that chose it; options of `best_learner`."""
    learner, found = best_learner(rows, task=task, encoder=encoder, **options)
    own = options.get("task_config")
    model = FewShotModel.from_pretrained(encoder, task=task, learner=learner, task_config=own)
    return model.adapt(rows), found
