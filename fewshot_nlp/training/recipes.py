"""The recipes of meta-training that come with the package, and one made from them for a user's own files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import own_folder
from fewshot_nlp.registry import nearest
from fewshot_nlp.sources import card_names, read_rows
from fewshot_nlp.tasks import TASKS

USUAL = "prototypical"
"""The learner of a recipe where none is asked for and the task has one of it: no inner loop, so the fastest."""


def recipes_folder() -> Path:
    """The folder with the recipes' YAML files; see `own_folder`."""
    return own_folder("_recipes", "recipes/configs")


def recipe_names() -> list[str]:
    """Names of the recipes, each ``<task>_<learner>``."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipe_text(name: str) -> str:
    """A recipe's YAML, with its comments.

    Raises:
        FewShotError: there is no such recipe.
    """
    if name not in recipe_names():
        raise FewShotError(f"There is no recipe {name!r}.{nearest(name, recipe_names())}")
    return (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def own_recipe(
    task: str,
    sources: Sequence[str],
    val: Sequence[str] = (),
    out: str | None = None,
    learner: str | None = None,
) -> str:
    """A recipe for a user's own data: the package's, with other sources.

    Args:
        task: name of the task.
        sources: files, or names of data set cards, to draw episodes from; each is read, so that a bad one is told now.
        val: the same to choose the best model by; without any the last model is the best.
        out: folder for the run.
        learner: one that has a recipe for the task.

    Raises:
        FewShotError: no source, a file that cannot be read, or no recipe of the learner for the task.
    """
    task = TASKS.get(task).name
    if not sources:
        raise FewShotError("There is nothing to train on; name files with --sources a.jsonl b.jsonl.")
    known = [name.removeprefix(task + "_") for name in recipe_names() if name.startswith(task + "_")]
    learner = learner or (USUAL if USUAL in known else next(iter(known), None))
    if learner not in known:
        raise FewShotError(f"No recipe has {learner} for {task}; take one of: {', '.join(known) or 'none'}.")
    text = re.sub(r"\A(#.*\n)+", "", recipe_text(f"{task}_{learner}"))
    text = _with_block(text, "data", "sources", [_source(name, task) for name in sources])
    text = re.sub(r"^  (targets|ship): .*\n", "", text, flags=re.MULTILINE)
    if val:
        text = _with_block(text, "validation", "sources", [_source(name, task) for name in val])
    else:
        text = re.sub(r"^validation:.*\n(  .*\n)+", "", text, flags=re.MULTILINE)
    place = json.dumps(out or f"runs/{task}_{learner}")
    text = re.sub(r"(^  output_dir: )\S+", lambda found: found[1] + place, text, flags=re.MULTILINE)
    told = f"# From the recipe {task}_{learner}; `fewshot-nlp train --help` tells all.\n"
    return "# fewshot-nlp train --config FILE\n" + told + text


def _source(name: str, task: str) -> str:
    """A line of a list of sources, with the number of rows and labels of a file."""
    if name in card_names() and not Path(name).exists():
        return f"    - {{name: {name}}}\n"
    kind = TASKS.get(task)()
    examples = kind.examples(read_rows(name, task))
    labels = kind.labels(examples)
    counted = f"{len(examples)} rows" + (f", {len(labels)} labels" if labels else "")
    return f"    - {{name: {json.dumps(name, ensure_ascii=False)}}}  # {counted}\n"


def _with_block(text: str, group: str, key: str, lines: Sequence[str]) -> str:
    """A YAML text in which a list of a group has other lines."""
    pattern = rf"(^{group}:.*\n(?:  .*\n)*?  {key}:)[^\n]*\n(?:    .*\n)+"
    return re.sub(pattern, lambda found: found[1] + "\n" + "".join(lines), text, count=1, flags=re.MULTILINE)
