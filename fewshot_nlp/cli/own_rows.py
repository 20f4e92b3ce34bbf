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
