"""Commands for a model of one's own: adapt it, predict with it, push it to the Hub."""

import time
from pathlib import Path
from typing import Any, Literal

from fewshot_nlp.cli.console import answer, answer_json, say, stdout_is_ours
from fewshot_nlp.cli.files import (
    NOTHING,
    STANDARD,
    check_output,
    output_rows,
    read_inputs,
    read_labels,
    write_annotated,
    write_output,
)
from fewshot_nlp.errors import FewShotError


def adapt(
    *,
    task: str,
    data: str,
    out: Path,
    encoder: str | None = None,
    learner: str | None = None,
    learner_config: dict[str, Any] = NOTHING,
    task_config: dict[str, Any] = NOTHING,
    column_mapping: dict[str, str] = NOTHING,
    labels: str | None = None,
    reject: bool = False,
    conflicts: Literal["refuse", "first", "drop"] = "refuse",
    seconds: float = 60.0,
    json: bool = False,
) -> None:
    """Adapts a model to labelled rows and saves it.

    Args:
        task: One of `fewshot-nlp tasks`.
        data: Labelled rows: JSON, CSV, Excel, CoNLL, of annotation tools; docs/own_data.md.
        out: Folder for the model; an earlier model there is replaced.
        encoder: Encoder or meta-trained model, a folder or Hub name; else what ships with the package.
        learner: One of `fewshot-nlp learners`, or "auto", the best of a few on these rows; else the task's default.
        learner_config: Settings of the learner, as in `--learner_config.k 2`.
        task_config: Options of the task, as in `--task_config.multi_label true`.
        column_mapping: Your columns' names to the task's, as in `--column_mapping.utterance text`.
        labels: All labels: `[a, b]`, `{a: what it is}`, or a YAML or JSON file of either.
        reject: Of texts: keep what tells which texts fit no label, for `predict --reject true`.
        conflicts: Rows with the same input and different labels: refuse them, keep the first, or drop all.
        seconds: With `--learner auto`: for trying learners.
        json: Print one JSON object and nothing else.

    Example:
      fewshot-nlp adapt --task ner --data rows.jsonl --out model
      fewshot-nlp adapt --task classification --data mails.csv --column_mapping.intent label --out model
    """
    from fewshot_nlp.sources import read_rows

    with stdout_is_ours():
        words = None if labels is None else read_labels(labels)
        rows = read_rows(data, task, column_mapping)
        if learner == "auto":
            learner, learner_config = _best(rows, task, encoder, task_config, seconds), {}
        model = _model_class(reject, task).from_pretrained(
            encoder, task=task, learner=learner, learner_config=learner_config, task_config=task_config
        )
        begin = time.perf_counter()
        model.adapt(rows, words, conflicts=conflicts)
        if reject:
            model.predict([], reject=True)
        seconds = time.perf_counter() - begin
        folder = model.save_pretrained(out)
    name = model.pipeline.learner.name
    result = {
        "folder": str(folder),
        "task": task,
        "learner": name,
        "n_rows": len(rows),
        "labels": model.labels,
    }
    if json:
        answer_json({**result, "seconds": round(seconds, 3)})
        return
    labelled = f"; {len(model.labels)} labels: {', '.join(map(str, model.labels))}" if model.labels else ""
    answer(f"{name} adapted to {len(rows)} rows in {seconds:.1f} s{labelled}\nsaved to {folder}")


def predict(
    *,
    model: str,
    input: str,
    out: str = STANDARD,
    format: Literal["rows", "label-studio", "doccano", "prodigy", "spacy", "conll"] = "rows",
    format_options: dict[str, str] = NOTHING,
    column_mapping: dict[str, str] = NOTHING,
    reject: bool = False,
    coverage: float | None = None,
) -> None:
    """Predicts for every text of a file; the input's columns stay, the prediction's are added.

    Args:
        model: Folder that `adapt` wrote, or a Hub name.
        input: Texts: .txt (one a line), JSONL, CSV, CoNLL, tasks of an annotation tool; or - for standard input.
        out: File for the predictions: .jsonl, .csv, .tsv, .conll (tags of words); or - for JSONL on stdout.
        format: With another than rows the predictions alone, as an annotation tool reads them.
        format_options: Names in your Label Studio interface, as in `--format_options.control topic`.
        column_mapping: Your columns' names to the task's, as in `--column_mapping.utterance text`.
        reject: Of texts: no label, and the reason, for those that fit none; after `adapt --reject true`.
        coverage: With reject: the share of fitting texts that keep their label, at least.

    Example:
      fewshot-nlp predict --model model --input texts.txt --out found.jsonl
      fewshot-nlp predict --model model --input texts.txt --out tasks.json --format label-studio
      echo Hello | fewshot-nlp predict --model model --input -
    """
    with stdout_is_ours():
        loaded = _model_class(reject).from_pretrained(model)
        task = loaded.pipeline.task
        if not loaded.is_adapted and loaded.pipeline.unadapted() is None:
            raise FewShotError(
                f"{model} is meta-trained, but not adapted; run `fewshot-nlp adapt --encoder {model}`."
            )
        if format == "rows":
            check_output(out, task)
        rows = read_inputs(input, task, column_mapping)
        options: dict[str, Any] = {"reject": True, "coverage": coverage} if reject else {}
        found = loaded.predictions(rows, **options)
    if format == "rows":
        write_output(out, output_rows(out, task, loaded.labels, rows, found))
    else:
        write_annotated(out, task, rows, found, format, format_options)
    if out != STANDARD:
        say(f"{len(found)} predictions in {out}")


def _best(rows: Any, task: str, encoder: str | None, options: dict[str, Any], seconds: float) -> str | None:
    """The name of the learner that suits the rows best; None for the task's default."""
    from fewshot_nlp.comparison.auto import best_learner

    name, found = best_learner(rows, task=task, encoder=encoder, task_config=options, seconds=seconds)
    say(str(found))
    return name


def _model_class(reject: bool, task: str | None = None) -> Any:
    from fewshot_nlp.models import FewShotClassifier, FewShotModel

    if reject and task not in (None, FewShotClassifier.task_name):
        raise FewShotError(f"--reject is for {FewShotClassifier.task_name}, not for {task}.")
    return FewShotClassifier if reject else FewShotModel


def export(*, model: str, format: str, out: Path, int8: bool = False) -> None:
    """Writes an adapted model in the format of another tool; docs/exports.md says which learners have which.

    Args:
        model: Folder that `adapt` wrote, or a Hub name.
        format: transformers, peft, sentence-transformers, onnx or spacy.
        out: Folder, new or empty.
        int8: Of onnx: weights as 8-bit integers.

    Example:
      fewshot-nlp export --model model --format onnx --out graph
    """
    from fewshot_nlp.models import FewShotModel

    with stdout_is_ours():
        loaded = FewShotModel.from_pretrained(model)
        folder = loaded.export(out, format, **({"int8": True} if int8 else {}))
    answer(f"{format} in {folder}")


def push(
    *,
    model: str,
    repo: str,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
) -> None:
    """Uploads a model with its card to the Hugging Face Hub.

    Args:
        model: Folder that `adapt` wrote.
        repo: Repository on the Hub, user/name.
        private: Make a new repository private.
        revision: Branch, made if needed; else main.
        create_pr: Open a pull request.
        dry_run: Send nothing; print the files and their sizes in bytes.

    Example:
      fewshot-nlp push --model model --repo user/name --dry_run
    """
    from fewshot_nlp.models import FewShotModel
    from fewshot_nlp.models.interfaces import PushOptions

    with stdout_is_ours():
        loaded = FewShotModel.from_pretrained(model)
        place: PushOptions = {"private": private, "revision": revision, "create_pr": create_pr}
        if not dry_run:
            address = loaded.push_to_hub(repo, **place)
        else:
            found = loaded.push_to_hub(repo, dry_run=True, **place)
    if not dry_run:
        answer(address)
        return
    for name, size in found["files"].items():
        answer(f"{size:>12,}  {name}")
    answer(f"{found['bytes']:>12,}  in all, to {repo}, {found['revision']}; nothing was sent")
