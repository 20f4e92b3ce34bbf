"""Commands over a user's own rows: learners compared on them, and what is wrong with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot_nlp.cli.console import answer, answer_json, say, stdout_is_ours
from fewshot_nlp.cli.files import NOTHING, read_inputs
from fewshot_nlp.errors import FewShotError


def doctor(
    *,
    data: str,
    task: str = "classification",
    unlabelled: str | None = None,
    encoder: str | None = None,
    column_mapping: dict[str, str] = NOTHING,
    json: bool = False,
) -> None:
    """Says what is wrong with labelled rows, and which of some texts to label next.

    Args:
        data: Labelled rows: JSON, CSV, Excel, CoNLL, of annotation tools; docs/own_data.md.
        task: One of `fewshot-nlp tasks`; only texts with one label are looked at by what they mean.
        unlabelled: Texts without labels: .txt (one a line), JSONL, CSV, TSV.
        encoder: Encoder, a folder or Hub name; else what ships with the package.
        column_mapping: Your columns' names to the task's, as in `--column_mapping.utterance text`.
        json: Print one JSON object and nothing else.
    """
    from fewshot_nlp.comparison import doctor as examine
    from fewshot_nlp.tasks import TASKS

    with stdout_is_ours():
        texts = None if unlabelled is None else read_inputs(unlabelled, TASKS.get(task)(), column_mapping)
        found = examine(data, task=task, unlabelled=texts, encoder=encoder, column_mapping=column_mapping)
    answer_json(found.to_json()) if json else answer(str(found))


def errors(
    *,
    data: str,
    task: str = "classification",
    learner: str | None = None,
    learner_config: dict[str, Any] = NOTHING,
    task_config: dict[str, Any] = NOTHING,
    encoder: str | None = None,
    k_shot: int = 5,
    repeats: int = 3,
    group_column: str | None = None,
    column_mapping: dict[str, str] = NOTHING,
    seed: int = 0,
    page: Path | None = None,
    worst: Path | None = None,
    json: bool = False,
) -> None:
    """Says what a learner gets wrong on labelled rows: causes, which texts and labels, and the worst support sets.

    Args:
        data: Labelled rows: JSON, CSV, CoNLL, of annotation tools.
        task: One of `fewshot-nlp tasks`.
        learner: One of `fewshot-nlp learners`; else the task's default.
        learner_config: Settings of the learner.
        task_config: Options of the task.
        encoder: Encoder, a folder or Hub name; else what ships with the package.
        k_shot: Size of the support sets, as for evaluate.
        repeats: Support sets for each row.
        group_column: Column whose equal values stay together.
        column_mapping: Your columns' names to the task's, as in `--column_mapping.utterance text`.
        seed: Other seeds give other support sets.
        page: Write causes and texts here, as one HTML file.
        worst: Write the rows of the five worst episodes here, a source of hard tasks for `train --sources`.
        json: Print one JSON object and nothing else.
    """
    from fewshot_nlp.comparison import find_mistakes

    knobs: dict[str, Any] = {"learner_config": learner_config, "task_config": task_config, "encoder": encoder}
    knobs |= {"group_column": group_column, "column_mapping": column_mapping, "seed": seed}
    with stdout_is_ours():
        found = find_mistakes(data, task=task, learner=learner, k_shot=k_shot, repeats=repeats, **knobs)
    if page is not None:
        say(f"page {found.write_page(page)}")
    if worst is not None:
        say(f"{found.write_worst(worst)} rows of the worst episodes in {worst}")
    answer_json(found.to_json()) if json else answer(str(found))


def robustness(
    *,
    data: str,
    task: str = "classification",
    learner: str | None = None,
    encoder: str | None = None,
    task_config: dict[str, Any] = NOTHING,
    k_shot: int = 5,
    repeats: int = 3,
    by: str | None = None,
    column_mapping: dict[str, str] = NOTHING,
    seed: int = 0,
    page: Path | None = None,
    json: bool = False,
) -> None:
    """Says how scores change with casing, misspellings, reading errors, informal words and people's names.

    Args:
        data: Labelled rows: JSON, CSV, CoNLL, of annotation tools.
        task: One of `fewshot-nlp tasks`.
        learner: One of `fewshot-nlp learners`; else the task's default.
        encoder: Encoder, a folder or Hub name; else what ships with the package.
        task_config: Options of the task.
        k_shot: Size of the support sets, as for evaluate.
        repeats: Support sets for each row.
        by: A column of groups, such as a dialect or a speaker's gender; scores are told for each, with the largest gap.
        column_mapping: Your columns' names to the task's, as in `--column_mapping.utterance text`.
        seed: Other seeds give other support sets and changes.
        page: Write the report here, as one HTML file.
        json: Print one JSON object and nothing else.
    """
    from fewshot_nlp.comparison import robustness as measure

    knobs: dict[str, Any] = {"task_config": task_config, "encoder": encoder, "by": by, "seed": seed}
    knobs |= {"column_mapping": column_mapping, "k_shot": k_shot, "repeats": repeats}
    with stdout_is_ours():
        found = measure(data, task=task, learner=learner, **knobs)
    if page is not None:
        say(f"page {found.write_page(page)}")
    answer_json(found.to_json()) if json else answer(str(found))


def compare(
    data: str,
    task: str | None,
    encoder: str | None,
    learner: str | list[str] | None,
    learner_config: Mapping[str, Any],
    k_shot: int | list[int] | None,
    knobs: Mapping[str, Any],
    page: Path | None,
    json: bool,
) -> None:
    """Learners compared on a user's rows; what `evaluate --data` does without a model."""
    from fewshot_nlp.comparison import evaluate

    if task is None:
        raise FewShotError(
            "--data takes --task, to compare learners on these rows, or --model, to score one on them."
        )
    names = [learner] if isinstance(learner, str) else learner or ["default"]
    sizes = [k_shot] if isinstance(k_shot, int) else k_shot or [1, 5, 10, 20]
    if learner_config and len(names) > 1:
        raise FewShotError("--learner_config goes with one learner.")
    config = {names[0]: learner_config} if learner_config else {}
    with stdout_is_ours():
        found = evaluate(
            data,
            task=task,
            encoder=encoder,
            learners=names,
            learner_config=config,
            k_shot=sizes,
            progress=True,
            **knobs,
        )
    if page is not None:
        say(f"page {found.write_page(page)}")
    answer_json(found.to_json()) if json else answer(str(found))


def run_benchmark(
    name: str, budget: float | str | None, knobs: Mapping[str, Any], page: Path | None, json: bool
) -> None:
    """What `evaluate --benchmark` does."""
    from fewshot_nlp.comparison import run_benchmark as run

    with stdout_is_ours():
        found = run(name, budget=None if budget == "usual" else budget, progress=True, **knobs)
    if page is not None:
        say(f"page {found.write_page(page)}")
        say(f"page {found.write_markdown(page.with_suffix('.md'))}")
    answer_json(found.to_json()) if json else answer(str(found))
