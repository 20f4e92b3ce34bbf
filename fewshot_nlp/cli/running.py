"""Commands that run for a while: meta-training and the demonstration."""

from pathlib import Path
from typing import Any, Literal

from fewshot_nlp.cli.console import answer, answer_json, stdout_is_ours
from fewshot_nlp.errors import FewShotError


def train(*arguments: str) -> None:
    """Meta-trains a learner, by a YAML file of settings, `--config FILE`, or on files: `--sources a.jsonl b.jsonl`.

    With `--task`, `--sources` and perhaps `--val`, `--learner` and `--out` the rest is that of a recipe; `fewshot-nlp
    init` with the same options writes it to a file, and `fewshot-nlp recipes` lists what comes with the package.

    Any setting may be given, as in `--outer.steps 100`; `fewshot-nlp train --help` explains all. `--json` prints one
    JSON object and nothing else. `--allow-code` lets the settings name a function that is imported. On several
    processes run `accelerate launch recipes/meta_train.py` with the same arguments.
    """
    from fewshot_nlp.arguments import load_yaml
    from fewshot_nlp.training import meta_train, parse_config
    from fewshot_nlp.training.recipes import own_recipe

    own, rest = _own([a for a in arguments if a != "--json"])
    config = parse_config(rest, {} if own is None else load_yaml(own_recipe(**own), "The recipe"))
    with stdout_is_ours():
        result = meta_train(config)
    validation = [record for record in result.history if "val_loss" in record]
    if "--json" in arguments:
        answer_json({"folder": str(result.folder), "validation": validation})
        return
    for record in validation:
        answer("  ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, int | float)))
    answer(f"saved to {result.folder}")


_SHORT = ("task", "sources", "val", "out", "learner")
"""Options of `train` that stand for a recipe on own files."""


def _own(arguments: list[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Arguments of `own_recipe`, where sources are named, and what is left."""
    words = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--") else [a])]
    if "--sources" not in words:
        return None, arguments
    found: dict[str, Any] = {}
    rest: list[str] = []
    if len(words) % 2:
        raise FewShotError(f"{words[-1]!r} has no value; write --name value.")
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name.removeprefix("--") in _SHORT:
            several = value.strip("[]").split(", ")
            found[name[2:]] = several if name in ("--sources", "--val") else value
        else:
            rest += [name, value]
    if "task" not in found:
        raise FewShotError("--sources needs --task, one of `fewshot-nlp tasks`.")
    return found, rest


def init(
    *,
    task: str,
    sources: str | list[str],
    val: str | list[str] | None = None,
    learner: str | None = None,
    out: Path = Path("train.yaml"),
) -> None:
    """Writes the settings of a meta-training run on your own files, with comments.

    Args:
        task: One of `fewshot-nlp tasks`.
        sources: Files with labelled rows, or names of `fewshot-nlp cards`.
        val: The same, to choose the best model by.
        learner: One that `fewshot-nlp recipes` has for the task; else prototypical.
        out: The file; one that is there stays.

    Example:
      fewshot-nlp init --task ner --sources a.jsonl b.jsonl --val c.jsonl
      fewshot-nlp train --config train.yaml
    """
    from fewshot_nlp.training.recipes import own_recipe

    given, held_out = ([names] if isinstance(names, str) else names or [] for names in (sources, val))
    _new_file(out, own_recipe(task, given, held_out, None, learner))


def recipes(
    action: Literal["list", "copy"] = "list", name: str | None = None, *, out: Path | None = None
) -> None:
    """Lists the recipes that come with the package, or copies one to a file of your own.

    Args:
        action: list or copy.
        name: Which to copy.
        out: The file; else the recipe's name.

    Example:
      fewshot-nlp recipes copy ner_prototypical
    """
    from fewshot_nlp.training.recipes import recipe_names, recipe_text

    if action == "list":
        for recipe in recipe_names():
            answer(recipe)
    elif name is None:
        raise FewShotError("Say which recipe to copy; `fewshot-nlp recipes` lists them.")
    else:
        _new_file(out or Path(f"{name}.yaml"), recipe_text(name))


def _new_file(path: Path, text: str) -> None:
    if path.exists():
        raise FewShotError(f"{path} exists; name another file with --out.")
    path.write_text(text, encoding="utf-8")
    answer(str(path))


def demo(*, out: Path = Path("demo_output"), seed: int = 0) -> None:
    """Adapts to medical, legal and finance texts from a few examples each, and shows the results.

    Args:
        out: Folder for the page.
        seed: Of the support sets; others draw other examples.
    """
    from joblib import cpu_count

    from fewshot_nlp.demo import run_demo

    run_demo(out, seed, n_jobs=cpu_count())
