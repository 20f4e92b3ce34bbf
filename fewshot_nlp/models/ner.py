"""Few-shot named-entity recognition."""

from collections.abc import Iterable
from typing import Any

from fewshot_nlp.models.base import FewShotModel


class FewShotNER(FewShotModel):
    """Finds entities in texts after a few labelled sentences, or after their types' names alone.

    Without a name it starts from what ships with the package: an adapter and a head of label names that were trained on
    general, scientific and intent texts.

    Example:
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
    ships = True
    default_learner = "context_probe"
    default_task_config = {"scheme": "bio"}  # noqa: RUF012 - read only
    default_encoder = {"layers": (0.5,)}  # noqa: RUF012

    def predict(self, texts: Iterable[Any]) -> list[list[dict[str, Any]]]:
        """The entities of each text, in order: type, score in (0, 1], words, and character offsets.

        A text given as a list of words has offsets into those words joined by single spaces.
        """
        return [p["entities"] for p in self._predict(texts)]
