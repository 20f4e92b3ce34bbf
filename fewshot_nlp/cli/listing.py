"""Commands that list what exists."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.cli.console import answer, answer_json


def learners(name: str | None = None, *, json: bool = False) -> None:
    """Lists the learners, what each does, and its settings with their defaults; of one learner also their bounds.

    Args:
        name: Only this one.
        json: Print one JSON object and nothing else.
    """
    from fewshot_nlp.learners import LEARNERS
    from fewshot_nlp.registry import about
    from fewshot_nlp.settings import describe

    found: dict[str, dict[str, Any]] = {}
    for kind in map(LEARNERS.get, LEARNERS.names() if name is None else [name]):
        defaults = kind.config_class().to_dict()
        settings = {
            s.name: {"default": defaults[s.name], "values": s.values, "about": s.about}
            for s in describe(kind.config_class)
        }
        found[kind.name] = {"about": about(kind), "settings": settings}
    if json:
        answer_json(found)
        return
    width = max(map(len, found))
    for key, learner in found.items():
        answer(f"{key:{width}}  {learner['about']}")
        shown = {k: f"{k}={_shown(s['default'])}" for k, s in learner["settings"].items()}
        if name is None:
            answer(f"{'':{width}}  " + " ".join(shown.values()))
            continue
        for k, setting in learner["settings"].items():
            answer(f"  {shown[k]}: {setting['values']}; {setting['about']}")


def tasks(*, json: bool = False) -> None:
    """Lists the tasks, the columns of their rows, their usual learner and their metric.

    Args:
        json: Print one JSON object and nothing else.
    """
    from fewshot_nlp.registry import about
    from fewshot_nlp.tasks import TASKS

    found: dict[str, dict[str, Any]] = {
        kind.name: {
            "about": about(kind),
            "columns": [list(columns) for columns in kind.columns],
            "learner": kind.default_learner,
            "metric": kind.primary_metric,
        }
        for kind in map(TASKS.get, TASKS.names())
    }
    if json:
        answer_json(found)
        return
    rows = [
        (name, " or ".join(", ".join(c) for c in task["columns"]), task["learner"], task["metric"])
        for name, task in found.items()
    ]
    _table([("name", "columns", "learner", "metric"), *rows])


def cards(*, task: str | None = None, json: bool = False) -> None:
    """Lists the data sets that have a card: task, domain, languages, labels, rows of each split, licence, copy.

    The copy is in the package, on the Hub, or known nowhere: then only a folder named by FEWSHOT_NLP_DATA has it.

    Args:
        task: Only data sets of this task.
        json: Print one JSON object and nothing else.
    """
    from fewshot_nlp.sources import card_names, load_card
    from fewshot_nlp.tasks import TASKS

    wanted = None if task is None else TASKS.get(task).name
    found = [card for card in map(load_card, card_names()) if wanted in (None, card.task)]
    if json:
        keys = ("task", "domain", "language", "labels", "splits", "licence_class", "may_train_weights")
        answer_json({card.name: {key: getattr(card, key) for key in keys} for card in found})
        return
    rows = [
        (
            card.name,
            card.task,
            card.domain,
            "-".join(card.language),
            str(len(card.labels) or ""),
            " ".join(f"{split}={rows}" for split, rows in card.splits.items()),
            card.licence_class,
            "package" if card.folder.endswith(".jsonl") else card.hub.id if card.hub else "none",
        )
        for card in found
    ]
    _table([("name", "task", "domain", "lang", "labels", "rows", "licence", "copy"), *rows])


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        answer("  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip())
