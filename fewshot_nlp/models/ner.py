"""Few-shot named-entity recognition."""

from fewshot_nlp.models.base import FewShotModel


class FewShotNER(FewShotModel):
    """Finds entities in texts after a few labelled sentences, or after their types' names alone.

    Without a name it starts from what ships with the package: an adapter and a head of label names that were trained on
    general, scientific and intent texts. `predict` gives the entities of each text, in order, as `NER.shown` tells.

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
