"""Commands that run for a while: meta-training and the demonstration."""

from pathlib import Path

from fewshot_nlp.cli.console import answer, answer_json, stdout_is_ours


def train(*arguments: str) -> None:
    """Meta-trains a learner, by a YAML file of settings: `--config FILE`; recipes/configs has examples.

    Any setting may be given, as in `--outer.steps 100`; `fewshot-nlp train --help` explains all. `--json` prints one
    JSON object and nothing else. `--allow-code` lets the settings name a function that is imported. On several
    processes run `accelerate launch recipes/meta_train.py` with the same arguments.
    """
    from fewshot_nlp.training import meta_train, parse_config

    config = parse_config([a for a in arguments if a != "--json"])
    with stdout_is_ours():
        result = meta_train(config)
    validation = [record for record in result.history if "val_loss" in record]
    if "--json" in arguments:
        answer_json({"folder": str(result.folder), "validation": validation})
        return
    for record in validation:
        answer("  ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, int | float)))
    answer(f"saved to {result.folder}")


def demo(*, out: Path = Path("demo_output"), seed: int = 0) -> None:
    """Adapts to medical, legal and finance texts from a few examples each, and shows the results.

    Args:
        out: Folder for the page.
        seed: The first of the seeds; others draw other examples.
    """
    from fewshot_nlp.demo import run_demo

    run_demo(out, seed)
