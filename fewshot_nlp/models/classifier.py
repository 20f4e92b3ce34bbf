"""Few-shot text classification."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.models.base import FewShotModel


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
            texts: texts, or pairs of texts.
            labels: the label of each; with ``multi_label`` its list of labels.
        """
        if len(texts) != len(labels):
            raise FewShotError(f"{len(texts)} texts but {len(labels)} labels; each text needs one.")
        rows = []
        for text, label in zip(texts, labels, strict=True):
            inputs = {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
            rows.append({**inputs, "label": label})
        return self.adapt(rows)

    def predict_proba(self, texts: Iterable[Any]) -> Float[np.ndarray, "n_texts n_labels"]:
        """Probability of each label (columns in the order of `labels`) for each text."""
        rows = [p["probabilities"] for p in self.predictions(texts)]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)
