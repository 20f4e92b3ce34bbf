"""Commands that run for a while: meta-training and the demonstration."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nlp.cli.console import print_json, stdout_is_ours


def train(
    context: typer.Context,
    config: Annotated[Path, typer.Option(help="YAML file with the settings; recipes/configs has examples.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Meta-trains a learner; any setting may be overridden, as in `--outer_steps 100`.

    On several processes run `accelerate launch recipes/meta_train.py` with the same arguments. The settings
    are those of fewshot_nlp.training.MetaTrainConfig, which explains them.
    """
    from fewshot_nlp.errors import FewShotError
    from fewshot_nlp.training import meta_train, parse_config

    if not config.is_file():
        raise FewShotError(f"There is no file of settings at {config}.")
    with stdout_is_ours():
        result = meta_train(parse_config(["--config", str(config), *context.args]))
    validation = [record for record in result.history if "val_loss" in record]
    if as_json:
        print_json({"folder": str(result.folder), "validation": validation})
        return
    for record in validation:
        typer.echo("  ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, int | float)))
    typer.echo(f"saved to {result.folder}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("demo_output"),
    seed: Annotated[int, typer.Option(help="The first of the seeds; others draw other examples.")] = 0,
) -> None:
    """Adapts to medical, legal and finance texts from a few examples each, and shows the results."""
    from fewshot_nlp.demo import run_demo

    run_demo(out, seed)
