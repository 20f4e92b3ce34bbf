"""Commands over episodes: export them, and evaluate learners on them."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fewshot_nlp.cli.console import answer, answer_json, say, stdout_is_ours
from fewshot_nlp.cli.files import NOTHING, read_labels
from fewshot_nlp.cli.own_rows import compare, run_benchmark
from fewshot_nlp.errors import FewShotError

if TYPE_CHECKING:
    from fewshot_nlp.episode import Episode
    from fewshot_nlp.evaluator import Report
    from fewshot_nlp.models import FewShotModel
    from fewshot_nlp.sampling import TaskSampler

Ways = int | Literal["all"] | None


def episodes(
    *,
    card: str,
    out: Path,
    split: str = "train",
    n_way: Ways = None,
    k_shot: int = 5,
    n_query: int = 10,
    episodes: int = 600,
    seed: int = 0,
    labels: str | None = None,
    sampler_config: dict[str, Any] = NOTHING,
) -> None:
    """Draws episodes from a data set and writes them to a file, with its SHA-256.

    Args:
        card: Data set, one of `fewshot-nlp cards`.
        out: File to write, JSON lines; a manifest is written beside it.
        split: Split of the data set.
        n_way: Labels in an episode, or "all"; else what is usual for the task.
        k_shot: Support rows of each label; mentions of each type, to twice as many; without labels rows.
        n_query: Query set, in the unit of k_shot.
        episodes: How many.
        seed: Other seeds give other episodes.
        labels: Labels to draw from, [a, b], or a YAML or JSON file of them; else all.
        sampler_config: Further settings of the sampler, as in `--sampler_config.query rows`.
    """
    from fewshot_nlp.episode import write_episodes
    from fewshot_nlp.progress import progress_bar
    from fewshot_nlp.sampling import episodes as stream

    knobs = {"k_shot": k_shot, "n_query": n_query, "n_episodes": episodes, "seed": seed}
    sampler, protocol = _draw(card, split, n_way, labels, knobs, sampler_config)
    with progress_bar(stream(sampler), total=episodes, unit=" episodes", leave=False) as bar:
        digest = write_episodes(out, bar)
    answer(f"{episodes} episodes of {card} ({protocol['split']}) in {out}\nsha256 {digest}")


def evaluate(
    *,
    card: str | None = None,
    episodes_file: Path | None = None,
    data: str | None = None,
    benchmark: str | None = None,
    task: str | None = None,
    model: str | None = None,
    encoder: str | None = None,
    learner: str | list[str] | None = None,
    learner_config: dict[str, Any] = NOTHING,
    task_config: dict[str, Any] = NOTHING,
    column_mapping: dict[str, str] = NOTHING,
    split: str | None = None,
    n_way: Ways = None,
    k_shot: int | list[int] | None = None,
    n_query: int = 10,
    episodes: int | None = None,
    repeats: int = 5,
    budget: float | str | None = "usual",
    group_column: str | None = None,
    page: Path | None = None,
    jobs: int = 1,
    backend: Literal["loky", "dask", "ray"] = "loky",
    seed: int = 0,
    labels: str | None = None,
    sampler_config: dict[str, Any] = NOTHING,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Compares learners on your labelled rows, or scores one on episodes, or a saved model on held-out rows.

    Args:
        card: Data set to draw episodes from, one of `fewshot-nlp cards`.
        episodes_file: File of episodes, instead of a card; its manifest is checked.
        data: Labelled rows: learners are compared on them, with --task; or the model is scored as it is, with --model.
        benchmark: Learners and baselines on frozen support sets of medical, legal and finance targets:
            cross_domain_classification, cross_domain_ner, cross_domain_qa, cross_domain_translation, or a YAML file.
        task: With data: one of `fewshot-nlp tasks`.
        model: Saved model, a folder or Hub name; with episodes, its learner is adapted to each.
        encoder: Encoder, a folder or Hub name; else what ships with the package.
        learner: One of `fewshot-nlp learners`, or several with --data; else the task's default.
        learner_config: Settings of the learner, as in `--learner_config.k 2`.
        task_config: Options of the task, as in `--task_config.multi_label true`.
        column_mapping: With data: your columns' names to the task's, as in `--column_mapping.utterance text`.
        split: Split of the card; else "test", or the last one.
        n_way: Labels in an episode, or "all"; else what is usual for the task.
        k_shot: Support rows of each label; mentions of each type, to twice as many; without labels rows. One, else 5;
            with --data several, else 1 5 10 20.
        n_query: Query set, in the unit of k_shot.
        episodes: How many; else 20 of a card, all of a file.
        repeats: With data: support sets of each size.
        budget: With data: seconds, 100 where not given; sizes, folds and repeats are reduced to fit, and the report
            says so. null for all. Of a benchmark: 10m, 1h or full.
        group_column: With data: column whose equal values stay together, such as a document's id.
        page: With data or benchmark: write the comparison here, as one HTML file.
        jobs: With data or benchmark: processes.
        backend: With data or benchmark: processes of this machine, or a cluster of Dask or Ray.
        seed: Other seeds give other episodes.
        labels: Labels to draw from, [a, b], or a YAML or JSON file of them; else all.
        sampler_config: Further settings of the sampler, as in `--sampler_config.query rows`.
        out: Write each episode's scores here, JSON lines; an unfinished run goes on.
        json: Print one JSON object and nothing else.

    Example:
      fewshot-nlp evaluate --benchmark cross_domain_ner --budget 10m --out ner.jsonl --page ner.html
      fewshot-nlp evaluate --data rows.jsonl --task ner --learner default prototypical --k_shot 1 5
      fewshot-nlp evaluate --data held_out.jsonl --model model
    """
    given = {"--card": card, "--episodes_file": episodes_file, "--data": data, "--benchmark": benchmark}
    named = [option for option, value in given.items() if value is not None]
    if len(named) != 1:
        raise FewShotError(
            f"Give one of --card, --episodes_file, --data and --benchmark; given: {', '.join(named) or 'none'}."
        )
    own = {"learner": learner, "learner_config": learner_config, "task_config": task_config}
    if model is not None and (encoder or any(own.values())):
        raise FewShotError("--model has its own encoder, learner and settings; leave these options out.")
    if benchmark is not None:
        if model or encoder or k_shot or any(own.values()):
            raise FewShotError("--benchmark has its own learners and sizes; leave these options out.")
        run_benchmark(benchmark, budget, {"path": out, "n_jobs": jobs, "backend": backend}, page, json)
        return
    if data is not None and model is None:
        rest: dict[str, Any] = {
            "repeats": repeats,
            "budget": 100.0 if budget == "usual" else budget,
            "n_jobs": jobs,
            "backend": backend,
            "seed": seed,
            "path": out,
        }
        rest |= {"task_config": task_config, "column_mapping": column_mapping, "group_column": group_column}
        compare(data, task, encoder, learner, learner_config, k_shot, rest, page, json)
        return
    if isinstance(learner, list) or isinstance(k_shot, list):
        raise FewShotError("Several learners or sizes are compared on your own rows: give --data and --task.")
    begin = time.perf_counter()
    if data is not None:
        with stdout_is_ours():
            scored = _held_out(model, data, column_mapping)
        _print_scores(scored, out, json)
        return
    knobs = {"k_shot": k_shot or 5, "n_query": n_query, "n_episodes": episodes or 20, "seed": seed}
    with stdout_is_ours():
        found: Any
        if card is not None:
            from fewshot_nlp.sampling import episodes as stream

            sampler, protocol = _draw(card, split, n_way, labels, knobs, sampler_config)
            found, number = stream(sampler), len(sampler)
        else:
            found, protocol = _from_file(Path(str(episodes_file)), episodes)
            number = episodes or len(found)
        report = _run(_model(model or encoder, protocol["task"], **own), found, number, out)
    _print_report(report, protocol, time.perf_counter() - begin, json)


def _draw(
    card: str,
    split: str | None,
    n_way: Ways,
    labels: str | None,
    knobs: Mapping[str, int],
    options: Mapping[str, Any],
) -> "tuple[TaskSampler, dict[str, Any]]":
    """The sampler of a card's task over the rows of a split, and what it was made from."""
    from fewshot_nlp.sampling import SAMPLERS
    from fewshot_nlp.sources import load_card, load_rows
    from fewshot_nlp.tasks import TASKS

    found = load_card(card)
    kind = TASKS.get(found.task)
    split = split or ("test" if "test" in found.splits else list(found.splits)[-1])
    names = None if labels is None else tuple(read_labels(labels))
    ways = None if n_way == "all" else n_way
    if n_way is None and kind.usual_ways is not None:
        ways = min(kind.usual_ways, len(names or found.labels))
    if not kind.has_labels and (n_way is not None or names is not None):
        raise FewShotError(f"{card} is for {kind.name}, without labels; leave --n_way and --labels out.")
    chosen: dict[str, Any] = {"n_way": ways, "labels": names} if kind.has_labels else {}
    make = SAMPLERS.get(kind.sampler)
    make.check_options(options, (*knobs, *chosen))
    rows = load_rows(card, split)
    task = kind.of_languages(found.language)
    dataset = task.dataset(rows, card, found.domain, group_column=found.group_column)
    shown = {"n_way": "all" if ways is None else ways, "labels": names}
    protocol = {"card": card, "task": kind.name, "split": split, **knobs, **shown, "options": dict(options)}
    return make(dataset, **knobs, **chosen, **options), {**protocol, "sampler": kind.sampler}


def _from_file(path: Path, number: int | None) -> "tuple[list[Episode], dict[str, Any]]":
    """The episodes of a file, and where they are from."""
    from fewshot_nlp.episode import read_episodes

    found, digest = read_episodes(path)
    tasks = sorted({episode.task for episode in found})
    if len(tasks) != 1:
        raise FewShotError(
            f"{path} has episodes of {len(tasks)} tasks; there must be one: {', '.join(tasks)}."
        )
    if number is not None and number > len(found):
        raise FewShotError(f"{path} has {len(found)} episodes, fewer than --episodes {number}.")
    return found, {"episodes_file": str(path), "task": tasks[0], "sha256": digest}


def _model(name: str | None, task: str | None, **own: Any) -> "FewShotModel":
    from fewshot_nlp.models import FewShotModel

    return FewShotModel.from_pretrained(name, task=task, **own)


def _run(model: "FewShotModel", found: "Iterable[Episode]", number: int, out: Path | None) -> "Report":
    from fewshot_nlp.evaluator import evaluate_episodes

    was_there = out is not None and out.exists()
    try:
        return evaluate_episodes(model, found, n_episodes=number, path=out, progress=True)
    except FewShotError:
        # A run that could not finish one episode leaves nothing; one that could, leaves what can go on.
        if out is not None and not was_there and out.exists() and out.read_text("utf-8").count("\n") < 2:
            out.unlink()
        raise


def _print_report(report: "Report", protocol: dict[str, Any], seconds: float, json: bool) -> None:
    metrics = {name: {"mean": mean, "ci95": report.ci95[name]} for name, mean in report.mean.items()}
    if json:
        answer_json(
            {
                "metric": report.metric,
                "mean": report.mean[report.metric],
                "ci95": report.ci95[report.metric],
                "interval95": report.interval95[report.metric],
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
    answer(str(report))
    for name, value in metrics.items():
        spread = "" if value["ci95"] is None else f" ± {value['ci95']:.4f}"
        if name != report.metric:
            answer(f"  {name} {value['mean']:.4f}{spread}")
    said = {key: value for key, value in protocol.items() if value not in (None, {})}
    answer("protocol " + " ".join(f"{key}={value}" for key, value in said.items()))
    chosen = " ".join(f"{key}={value}" for key, value in report.config["learner_config"].items())
    answer(f"learner {report.config['learner']} {chosen}\nepisodes sha256 {report.manifest_sha}")
    say(f"{seconds:.1f} s")


def _held_out(name: str | None, data: str, mapping: Mapping[str, str]) -> dict[str, Any]:
    from fewshot_nlp.sources import read_rows

    model = _model(name, None)
    task = model.pipeline.task
    rows = read_rows(data, task.name, mapping)
    facts = {"model": name, "data": data, "task": task.name, "metric": task.primary_metric}
    return {**facts, "n_rows": len(rows), "scores": model.evaluate(rows)}


def _print_scores(result: dict[str, Any], out: Path | None, json: bool) -> None:
    from fewshot_nlp.sources import write_rows

    if out is not None:
        write_rows(out, [result])
    if json:
        answer_json(result)
        return
    metric, scores = result["metric"], result["scores"]
    answer(f"{metric} {scores[metric]:.4f} ({result['n_rows']} rows, one model, no interval)")
    for name, value in scores.items():
        if name != metric:
            answer(f"  {name} {value:.4f}")
