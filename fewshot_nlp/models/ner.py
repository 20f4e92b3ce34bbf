"""Few-shot named-entity recognition."""

from collections.abc import Iterable
from typing import Any, Unpack

from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.models.interfaces import Shown, marked, marked_html
from fewshot_nlp.predictions import Entity, PredictOptions


class FewShotNER(FewShotModel):
    """Finds entities in texts after a few labelled sentences, or after their types' names alone.

    Without a name it starts from what ships with the package: an adapter and a head of label names that were trained on
    general, scientific and intent texts. `predict` gives the entities of each text, in order, as `NER.shown` tells.

    Examples:
        >>> rows = [
        ...     {"tokens": ["Give", "aspirin", "twice", "a", "day"], "ner_tags": ["O", "B-DRUG", "O", "O", "O"]},
        ...     {"tokens": ["She", "takes", "ibuprofen"], "ner_tags": ["O", "O", "B-DRUG"]},
        ...     {"tokens": ["No", "insulin", "was", "given"], "ner_tags": ["O", "B-DRUG", "O", "O"]},
        ... ]
        >>> ner = FewShotNER.from_pretrained().adapt(rows)
        >>> [entity["word"] for entity in ner.predict(["He was given paracetamol before."])[0]]
        ['paracetamol']
    """

    task_name = "ner"

    def predict(self, inputs: Iterable[Any], **options: Unpack[PredictOptions]) -> list[list[Entity]]:
        """The entities of each text, in order; options as for `FewShotModel.predict`."""
        return super().predict(inputs, **options)

    def show(self, inputs: Iterable[Any], left: str = "[", right: str = "]") -> Shown:
        """Each text with its entities marked, as ``Give [aspirin DRUG].``; in a notebook they are highlighted."""
        queries = self._queries(inputs)
        texts = ["" if q is None else q.inputs.get("text", " ".join(q.inputs["tokens"])) for q in queries]
        found = [p["entities"] for p in self._adapted().predict(queries, progress=None)]
        spans = [[(e["start"], e["end"], e["entity_group"]) for e in entities] for entities in found]
        pairs = list(zip(texts, spans, strict=True))
        return Shown((marked(*pair, left, right) for pair in pairs), [marked_html(*pair) for pair in pairs])
