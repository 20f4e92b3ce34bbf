"""Few-shot text classification."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.rows import column_of, read_each


class FewShotClassifier(FewShotModel):
    """Classifies texts, or pairs of texts, after a few examples of each label.

    `predict` gives the label of each text; with ``multi_label`` its list of labels, perhaps empty.

    The default tunes the encoder's top layers for some seconds; ``learner="stacked_probe"`` leaves it frozen and
    adapts in a fraction of one, a few points lower on most data.

    Example:
        >>> rows = [
        ...     {"text": "I lost my card", "label": "lost card"},
        ...     {"text": "My card is gone", "label": "lost card"},
        ...     {"text": "How do I send money abroad?", "label": "transfer"},
        ...     {"text": "Pay this account", "label": "transfer"},
        ... ]
        >>> clf = FewShotClassifier.from_pretrained(learner="stacked_probe").adapt(rows)
        >>> clf.predict(["Somebody took my card."])
        ['lost card']
    """

    task_name = "classification"

    def fit(self, texts: Sequence[Any], labels: Sequence[Any]) -> Self:
        """`adapt` in scikit-learn's manner.

        Args:
            texts: texts, or pairs of texts; also an array of shape (n,), (n, 1) or (n, 2), or a table of one column.
            labels: the label of each; with ``multi_label`` its list of labels.
        """
        inputs, targets = column_of(texts, "The texts"), column_of(labels, "The labels")
        if len(inputs) != len(targets):
            raise FewShotError(f"{len(inputs)} texts but {len(targets)} labels; each text needs one.")
        queries = read_each(inputs, self.pipeline.task.query)
        return self.adapt([{**q.inputs, "label": y} for q, y in zip(queries, targets, strict=True)])

    def predict_proba(
        self, texts: Iterable[Any], *, refuse_empty: bool = False
    ) -> Float[np.ndarray, "n_texts n_labels"]:
        """Probability of each label (columns in the order of `labels`) for each text.

        For an empty text all labels have the same, and with ``multi_label`` it is 0; or it is refused, as in `predict`.
        """
        rows = [p["probabilities"] for p in self.predictions(texts, refuse_empty=refuse_empty)]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)
