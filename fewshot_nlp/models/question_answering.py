"""Few-shot extractive question answering."""

from collections.abc import Iterable
from typing import Any, Unpack, cast

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.models.interfaces import Shown, marked_html
from fewshot_nlp.predictions import Answer, PredictOptions
from fewshot_nlp.tasks.answers import mark_answer


class FewShotQA(FewShotModel):
    """Answers questions by a span of their context; before any example, and better after a few of a domain.

    Examples:
        >>> qa = FewShotQA.from_pretrained()
        >>> row = {"question": "When is rent due?", "context": "Rent is due on the first day of each month."}
        >>> qa.predict([row])[0]["answer"]
        'first day of each month'
    """

    task_name = "question_answering"

    def predict(
        self, inputs: Iterable[Any], *, top_n: int | None = None, **options: Unpack[PredictOptions]
    ) -> list[Answer]:
        """The answer to each question, its probability, and its character offsets in the context.

        Where the context is found not to answer the question, the answer is empty, its offsets are 0, and the score
        is the probability of that: 1 where one of the two is empty.

        Args:
            inputs: rows with "question" and "context", or pairs of the two.
            top_n: adds "n_best", the likeliest answers in order, each with score and offsets, and "no_answer_score".
            options: as for `FewShotModel.predict`; a row of which one is empty is an empty input.

        Raises:
            FewShotError: a bad row, or a ``top_n`` above the task's option ``n_best``.
        """
        if top_n is None:
            return super().predict(inputs, **options)
        task, known = self.pipeline.task, self.pipeline.task.to_dict()["n_best"]
        if not 1 <= top_n <= known:
            raise FewShotError(
                f"top_n is {top_n}, but must be from 1 to {known}; for more, load the model with "
                f"task_config={{'n_best': {max(top_n, 1)}}}."
            )
        return [
            cast(
                Answer,
                task.shown(p) | {"no_answer_score": p["no_answer_score"], "n_best": p["n_best"][:top_n]},
            )
            for p in self.predictions(inputs, **options)
        ]

    def show(self, rows: Iterable[Any], left: str = "[", right: str = "]", around: int = 200) -> Shown:
        """Each context with the answer marked, as `mark_answer` does; nothing is marked for no answer.

        In a notebook answers are highlighted, in whole contexts.
        """
        queries = self._queries(rows)
        contexts = ["" if query is None else query.inputs["context"] for query in queries]
        answers = [(p["start"], p["end"]) for p in self._adapted().predict(queries, progress=None)]
        return Shown(
            (mark_answer(c, *a, left, right, around) for c, a in zip(contexts, answers, strict=True)),
            (marked_html(c, [(*a, "")] if a[1] else []) for c, a in zip(contexts, answers, strict=True)),
        )
