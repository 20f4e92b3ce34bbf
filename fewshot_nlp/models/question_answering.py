"""Few-shot extractive question answering."""

from collections.abc import Iterable
from typing import Any

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.tasks.answers import mark_answer


class FewShotQA(FewShotModel):
    """Answers questions by a span of their context; before any example, and better after a few of a domain.

    Example:
        >>> qa = FewShotQA.from_pretrained()
        >>> row = {"question": "When is rent due?", "context": "Rent is due on the first day of each month."}
        >>> qa.predict([row])[0]["answer"]
        'first day of each month'
    """

    task_name = "question_answering"

    def predict(
        self, inputs: Iterable[Any], *, top_n: int | None = None, refuse_empty: bool = False
    ) -> list[dict[str, Any]]:
        """The answer to each question, its probability, and its character offsets in the context.

        Where the context is found not to answer the question, the answer is empty, its offsets are 0, and the score
        is the probability of that: 1 where one of the two is empty.

        Args:
            inputs: rows with "question" and "context", or pairs of the two.
            top_n: adds "n_best", the likeliest answers in order, each with score and offsets, and "no_answer_score".
            refuse_empty: refuse a row of which one is empty.

        Raises:
            FewShotError: a bad row, or a ``top_n`` above the task's option ``n_best``.
        """
        if top_n is None:
            return super().predict(inputs, refuse_empty=refuse_empty)
        task, known = self.pipeline.task, self.pipeline.task.to_dict()["n_best"]
        if not 1 <= top_n <= known:
            raise FewShotError(
                f"top_n is {top_n}, but must be from 1 to {known}; for more, load the model with "
                f"task_config={{'n_best': {max(top_n, 1)}}}."
            )
        return [
            {**task.shown(p), "no_answer_score": p["no_answer_score"], "n_best": p["n_best"][:top_n]}
            for p in self.predictions(inputs, refuse_empty=refuse_empty)
        ]

    def show(self, rows: Iterable[Any], left: str = "[", right: str = "]", around: int = 200) -> list[str]:
        """Each context with the answer marked, as `mark_answer` does; nothing is marked for no answer."""
        queries = self._queries(rows)
        contexts = ["" if query is None else query.inputs["context"] for query in queries]
        return [
            mark_answer(context, p["start"], p["end"], left, right, around)
            for context, p in zip(contexts, self._adapted().predict(queries, progress=True), strict=True)
        ]
