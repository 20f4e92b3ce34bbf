"""Commands for a model of one's own: adapt it, predict with it, push it to the Hub."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fewshot_nlp.cli.arguments import facade, load_model, load_saved, pairs, read_labels, settings
from fewshot_nlp.cli.console import print_json, say, stdout_is_ours
from fewshot_nlp.cli.files import check_output, output_rows, queries, read_inputs, write_output
from fewshot_nlp.errors import FewShotError

Mapping = Annotated[
    list[str] | None, typer.Option(help="Your column's name=ours (utterance=text); may be repeated.")
]
Model = Annotated[str, typer.Option(help="Folder that `adapt` wrote, or a Hub name.")]


def adapt(
    task: Annotated[str, typer.Option(help="classification, ner, question_answering or translation.")],
    data: Annotated[str, typer.Option(help="Labelled rows: JSONL, JSON, CSV, TSV or CoNLL.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; an earlier model there is replaced.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder or meta-trained model: a folder or Hub name. [default: the bundled encoder]"
        ),
    ] = None,
    learner: Annotated[
        str | None, typer.Option(help="One of `fewshot-nlp learners`. [default: the task's default]")
    ] = None,
    learner_config: Annotated[
        list[str] | None, typer.Option(help="Setting of the learner, name=value; may be repeated.")
    ] = None,
    task_config: Annotated[
        list[str] | None,
        typer.Option(help="Option of the task, name=value (multi_label=true); may be repeated."),
    ] = None,
    column_mapping: Mapping = None,
    labels: Annotated[
        Path | None, typer.Option(help="YAML or JSON: a list of labels, or labels with descriptions.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Adapts a model to labelled rows and saves it."""
    from fewshot_nlp.sources import read_rows

    kind = facade(task)
    with stdout_is_ours():
        words = None if labels is None else read_labels(labels, task)
        rows = read_rows(data, task, pairs(column_mapping or (), "--column-mapping"))
        model = kind.from_pretrained(
            encoder,
            learner=learner,
            learner_config=settings(learner_config or (), "--learner-config"),
            task_config=settings(task_config or (), "--task-config"),
        )
        begin = time.perf_counter()
        model.adapt(rows, words)
        seconds = time.perf_counter() - begin
        folder = model.save_pretrained(out)
    result = {
        "folder": str(folder),
        "task": task,
        "learner": model.pipeline.learner.name,
        "n_rows": len(rows),
        "labels": model.labels,
        "seconds": round(seconds, 3),
    }
    if as_json:
        print_json(result)
        return
    labelled = f"; {len(model.labels)} labels: {', '.join(model.labels)}" if model.labels else ""
    typer.echo(
        f"{result['learner']} adapted to {len(rows)} rows in {seconds:.1f} s{labelled}\nsaved to {folder}"
    )


def predict(
    model: Model,
    source: Annotated[
        str,
        typer.Option(
            "--input", help="Texts: .txt (one a line), JSONL, CSV, TSV, CoNLL; or - for standard input."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="File for the predictions: .jsonl, .csv, .tsv, .conll (ner); or - for JSONL on stdout."
        ),
    ] = "-",
    column_mapping: Mapping = None,
) -> None:
    """Predicts for every text of a file; the input's columns stay, the prediction's are added."""
    with stdout_is_ours():
        saved = load_saved(model)
        task, adapted = saved.pipeline.task, saved.model or saved.pipeline.unadapted()
        if adapted is None:
            raise FewShotError(
                f"{model} is meta-trained, but not adapted; run `fewshot-nlp adapt --encoder {model}`."
            )
        check_output(out, task.name)
        rows = read_inputs(source, task.name, pairs(column_mapping or (), "--column-mapping"))
        inputs = queries(task, rows)
        predictions = adapted.predict(inputs, progress=True)
        result = output_rows(out, task.name, adapted.labels, rows, inputs, predictions)
    write_output(out, result)
    if out != "-":
        say(f"{len(result)} predictions in {out}")


def push(
    model: Model,
    repo: Annotated[str, typer.Option(help="Repository on the Hub: user/name.")],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
) -> None:
    """Uploads a model with its card to the Hugging Face Hub."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise FewShotError(f"--repo is {repo!r}, but must look like 'user/name'.")
    with stdout_is_ours():
        address = load_model(model).push_to_hub(repo, private=private)
    typer.echo(address)
