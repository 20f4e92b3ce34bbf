"""Translation: the model that users import."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Unpack

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.metrics.translation import check_metric, paired_bootstrap, signatures
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.predictions import PredictOptions
from fewshot_nlp.tasks.glossary import checked_glossary


class FewShotTranslator(FewShotModel):
    """Translates texts; before any example, and in a domain's own words after some pairs of it.

    Without a name it is the German-English model that ships with the package; else any
    `transformers.AutoModelForSeq2SeqLM`.

    Examples:
        >>> mt = FewShotTranslator.from_pretrained()
        >>> mt.predict(["Wo ist der Bahnhof?"])
        ['Where is the station?']
    """

    task_name = "translation"

    def predict(
        self,
        inputs: Iterable[str],
        *,
        glossary: Mapping[str, str] | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[str]:
        """The translation of each text; nothing for an empty one.

        Args:
            inputs: texts of the source language, each at most as long as the model's window.
            glossary: terms of the source language to the words that the translation must have for them, beside the
                task's own option ``glossary``.
            options: as for `FewShotModel.predict`.

        Raises:
            FewShotError: a text that is too long, or a glossary entry that the vocabulary cannot spell.
        """
        model = self._adapted()
        if glossary is not None:
            task = self.pipeline.task
            task = replace(task, glossary={**task.to_dict()["glossary"], **checked_glossary(glossary)})  # type: ignore[call-arg]
            model = replace(model, pipeline=replace(self.pipeline, task=task))
        return [p["target"] for p in self.predictions(inputs, model, **options)]

    def forgetting(self, rows: Any, *, metric: str = "chrf") -> dict[str, float]:
        """What adapting costs on other text: scores of the model before and after it, by a paired bootstrap.

        Args:
            rows: labelled rows of text that the model was not adapted to, e.g. of a general domain.
            metric: "chrf" or "bleu".

        Raises:
            FewShotError: no rows, another metric, or a model that is not adapted.

        Returns:
            As `paired_bootstrap`: the baseline is the model before adapting, and ``difference`` below 0 is a loss.
        """
        unadapted = self.pipeline.unadapted()
        if unadapted is None or self._model is None:
            raise FewShotError(
                "There is nothing to compare: the model is not adapted; call adapt(rows) first."
            )
        check_metric(metric)
        examples = self._read(rows, None)
        queries = [e.query for e in examples]
        before, after = ([p["target"] for p in m.predict(queries)] for m in (unadapted, self._model))
        return paired_bootstrap([e.target for e in examples], before, after, metric=metric)

    @property
    def signatures(self) -> dict[str, str]:
        """sacrebleu's signature of every score of `evaluate`: settings and version."""
        return signatures()
