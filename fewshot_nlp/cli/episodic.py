"""Commands over episodes: export them, and evaluate learners on them."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_nlp.cli.arguments import facade, load_model, pairs, settings
from fewshot_nlp.cli.console import print_json, say, stdout_is_ours
from fewshot_nlp.cli.protocol import Protocol, choose_split, choose_ways, make_sampler
from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from fewshot_nlp.episode import Episode
    from fewshot_nlp.evaluator import Report
    from fewshot_nlp.models.base import FewShotModel
    from fewshot_nlp.sources import DatasetCard

Maker = Callable[[str], "FewShotModel"]
"""From a task's name to the model to evaluate."""
Ways = Annotated[
    str | None,
    typer.Option(help="Labels in an episode: a number, or 'all'. [default: 5 for classification, else all]"),
]
Shots = Annotated[
    int,
    typer.Option(help="Support rows of each label; for ner mentions, to twice as many; without labels rows."),
]
Queries = Annotated[int, typer.Option(help="Query set, in the unit of --k-shot.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="Label to draw from; may be repeated. [default: all]")
]
SamplerConfig = Annotated[
    list[str] | None, typer.Option(help="Further knob of the sampler (ner: query=rows); may be repeated.")
]
Seed = Annotated[int, typer.Option(help="Other seeds give other episodes.")]


def episodes(
    card: Annotated[str, typer.Option(help="Data set, one of `fewshot-nlp cards`.")],
    out: Annotated[Path, typer.Option(help="File to write, JSON lines; a manifest is written beside it.")],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    n_way: Ways = None,
    k_shot: Shots = 5,
    n_query: Queries = 10,
    number: Annotated[int, typer.Option("--episodes", help="How many.")] = 600,
    seed: Seed = 0,
    label: Labels = None,
    sampler_config: SamplerConfig = None,
) -> None:
    """Draws episodes from a data set and writes them to a file, with its SHA-256."""
    from tqdm import tqdm

    from fewshot_nlp.episode import write_episodes
    from fewshot_nlp.sampling import episodes as stream
    from fewshot_nlp.sources import load_card

    found = load_card(card)
    protocol = Protocol(
        card=card,
        split=split,
        k_shot=k_shot,
        n_query=n_query,
        n_episodes=number,
        seed=seed,
        n_way=choose_ways(found, n_way, len(label or ())),
        labels=tuple(label) if label else None,
        options=settings(sampler_config or (), "--sampler-config"),
    )
    sampler = make_sampler(found, protocol)
    with tqdm(stream(sampler), total=number, delay=2, unit=" episodes", leave=False) as bar:
        digest = write_episodes(out, bar)
    typer.echo(f"{number} episodes of {card} ({split}) in {out}\nsha256 {digest}")


def evaluate(
    card: Annotated[str | None, typer.Option(help="Data set to draw episodes from.")] = None,
    episodes_file: Annotated[
        Path | None, typer.Option(help="File of episodes, instead of --card; its manifest is checked.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled rows to score --model on as it is, instead of episodes.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Saved model: a folder or Hub name. With episodes, its learner is adapted to each."
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder: a folder or Hub name. [default: the bundled one]")
    ] = None,
    learner: Annotated[
        str | None, typer.Option(help="One of `fewshot-nlp learners`. [default: the task's default]")
    ] = None,
    learner_config: Annotated[
        list[str] | None, typer.Option(help="Setting of the learner, name=value; may be repeated.")
    ] = None,
    task_config: Annotated[
        list[str] | None, typer.Option(help="Option of the task, name=value; may be repeated.")
    ] = None,
    column_mapping: Annotated[
        list[str] | None, typer.Option(help="With --data: your column=ours; may be repeated.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of --card. [default: test, else the last one]")
    ] = None,
    n_way: Ways = None,
    k_shot: Shots = 5,
    n_query: Queries = 10,
    number: Annotated[
        int | None,
        typer.Option("--episodes", help="How many. [default: 20 of --card, all of --episodes-file]", min=1),
    ] = None,
    seed: Seed = 0,
    label: Labels = None,
    sampler_config: SamplerConfig = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write each episode's scores here, JSON lines; an unfinished run goes on."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Scores a learner on episodes (mean, 95 % interval), or a saved model on held-out rows."""
    given = [
        o
        for o, v in (("--card", card), ("--episodes-file", episodes_file), ("--data", data))
        if v is not None
    ]
    if len(given) != 1:
        raise FewShotError(
            f"Give one of --card, --episodes-file and --data; given: {', '.join(given) or 'none'}."
        )
    if model is not None and (encoder or learner or learner_config or task_config):
        raise FewShotError("--model has its own encoder, learner and settings; leave these options out.")
    if data is not None:
        if model is None:
            raise FewShotError("--data is scored with --model; name a folder that `fewshot-nlp adapt` wrote.")
        with stdout_is_ours():
            result = _held_out(load_model(model), data, pairs(column_mapping or (), "--column-mapping"))
        _write_held_out({"model": model, "data": data, **result}, out, as_json)
        return

    def made(task: str) -> "FewShotModel":
        if model is not None:
            return load_model(model)
        return facade(task).from_pretrained(
            encoder,
            learner=learner,
            learner_config=settings(learner_config or (), "--learner-config"),
            task_config=settings(task_config or (), "--task-config"),
        )

    from fewshot_nlp.sources import load_card

    begin = time.perf_counter()
    with stdout_is_ours():
        if card is not None:
            found = load_card(card)
            asked = Protocol(
                card=card,
                split=choose_split(found, split),
                k_shot=k_shot,
                n_query=n_query,
                n_episodes=number or 20,
                seed=seed,
                n_way=choose_ways(found, n_way, len(label or ())),
                labels=tuple(label) if label else None,
                options=settings(sampler_config or (), "--sampler-config"),
            )
            report, protocol = _on_card(found, asked, made, out)
        else:
            report, protocol = _on_file(Path(str(episodes_file)), number, seed, made, out)
    _print_report(report, protocol, time.perf_counter() - begin, as_json)


def _on_card(
    card: "DatasetCard", asked: Protocol, made: Maker, out: Path | None
) -> tuple["Report", dict[str, Any]]:
    from fewshot_nlp.sampling import episodes as stream

    sampler = make_sampler(card, asked)
    report = _run(made(card.task), stream(sampler), asked.n_episodes, asked.seed, out)
    return report, asked.to_json(sampler)


def _on_file(
    path: Path, number: int | None, seed: int, made: Maker, out: Path | None
) -> tuple["Report", dict[str, Any]]:
    from fewshot_nlp.episode import read_episodes

    found, digest = read_episodes(path)
    tasks = sorted({episode.task for episode in found})
    if len(tasks) != 1:
        raise FewShotError(
            f"{path} has episodes of {len(tasks)} tasks; there must be one: {', '.join(tasks)}."
        )
    if number is not None and number > len(found):
        raise FewShotError(f"{path} has {len(found)} episodes, fewer than --episodes {number}.")
    report = _run(made(tasks[0]), found, number or len(found), seed, out)
    return report, {"episodes_file": str(path), "sha256": digest}


def _run(
    model: "FewShotModel", found: Iterable["Episode"], number: int, seed: int, out: Path | None
) -> "Report":
    from fewshot_nlp.evaluator import evaluate_episodes

    was_there = out is not None and out.exists()
    try:
        return evaluate_episodes(model, found, n_episodes=number, seed=seed, path=out, progress=True)
    except FewShotError:
        # A run that could not finish one episode leaves nothing; one that could, leaves what can go on.
        if out is not None and not was_there and out.exists() and out.read_text("utf-8").count("\n") < 2:
            out.unlink()
        raise


def _print_report(report: "Report", protocol: dict[str, Any], seconds: float, as_json: bool) -> None:
    metrics = {name: {"mean": mean, "ci95": report.ci95[name]} for name, mean in report.mean.items()}
    if as_json:
        print_json(
            {
                "metric": report.metric,
                "mean": report.mean[report.metric],
                "ci95": report.ci95[report.metric],
                "bootstrap95": report.bootstrap95[report.metric],
                "n_episodes": report.n_episodes,
                "seed": report.seed,
                "manifest_sha": report.manifest_sha,
                "metrics": metrics,
                "pooled": report.pooled,
                "protocol": protocol,
                "config": report.config,
                "seconds": round(seconds, 3),
            }
        )
        return
    typer.echo(str(report))
    for name, value in metrics.items():
        spread = "" if value["ci95"] is None else f" ± {value['ci95']:.4f}"
        if name != report.metric:
            typer.echo(f"  {name} {value['mean']:.4f}{spread}")
    said = {key: value for key, value in protocol.items() if value not in (None, {})}
    typer.echo("protocol " + " ".join(f"{key}={value}" for key, value in said.items()))
    chosen = " ".join(f"{key}={value}" for key, value in report.config["learner_config"].items())
    typer.echo(f"learner {report.config['learner']} {chosen}")
    typer.echo(f"episodes sha256 {report.manifest_sha}")
    say(f"{seconds:.1f} s")


def _held_out(model: "FewShotModel", data: str, mapping: dict[str, str]) -> dict[str, Any]:
    from fewshot_nlp.sources import read_rows

    task = model.pipeline.task
    rows = read_rows(data, task.name, mapping)
    scores = model.evaluate(rows)
    return {"task": task.name, "metric": task.primary_metric, "n_rows": len(rows), "scores": scores}


def _write_held_out(result: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from fewshot_nlp.sources import write_rows

    if out is not None:
        write_rows(out, [result])
    if as_json:
        print_json(result)
        return
    score = result["scores"][result["metric"]]
    typer.echo(f"{result['metric']} {score:.4f} ({result['n_rows']} rows, one model, no interval)")
    for name, value in result["scores"].items():
        if name != result["metric"]:
            typer.echo(f"  {name} {value:.4f}")
