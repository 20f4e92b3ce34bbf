"""Commands that list what exists."""

import sys
from typing import Annotated, Any

import typer

from fewshot_nlp.cli.console import print_json

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def learners(as_json: Json = False) -> None:
    """Lists the learners, what each does, and its settings with their defaults."""
    from fewshot_nlp.learners import LEARNERS

    found: dict[str, Any] = {}
    for name in LEARNERS.names():
        kind = LEARNERS.get(name)
        about = (sys.modules[kind.__module__].__doc__ or "").strip().split("\n")[0]
        found[name] = {
            "about": about,
            "settings": kind.config_class().to_dict(),
        }
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for name, learner in found.items():
        typer.echo(f"{name:{width}}  {learner['about']}")
        values = " ".join(f"{key}={_shown(value)}" for key, value in learner["settings"].items())
        typer.echo(f"{'':{width}}  {values}")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def cards(
    task: Annotated[str | None, typer.Option(help="Only data sets of this task.")] = None,
    as_json: Json = False,
) -> None:
    """Lists the data sets that have a card: task, domain, languages, labels, rows of each split, licence."""
    from fewshot_nlp.sources import card_names, load_card
    from fewshot_nlp.tasks import TASKS

    if task is not None:
        TASKS.get(task)
    found = [card for card in map(load_card, card_names()) if task in (None, card.task)]
    if as_json:
        keys = ("task", "domain", "language", "labels", "splits", "licence_class", "may_train_weights")
        print_json({card.name: {key: getattr(card, key) for key in keys} for card in found})
        return
    table = [
        (
            card.name,
            card.task,
            card.domain,
            "-".join(card.language),
            str(len(card.labels) or ""),
            " ".join(f"{split}={rows}" for split, rows in card.splits.items()),
            card.licence_class,
        )
        for card in found
    ]
    table.insert(0, ("name", "task", "domain", "lang", "labels", "rows", "licence"))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        typer.echo("  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip())
