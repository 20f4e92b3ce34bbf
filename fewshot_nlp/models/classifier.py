"""Few-shot text classification."""

from collections.abc import Iterable, Sequence
from typing import Any, Self, Unpack

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.models.base import FewShotModel
from fewshot_nlp.models.rejection import (
    DEFAULT_RULE,
    Fits,
    Rule,
    fits,
    fits_of_support,
    kept_fits,
    reason,
    with_fits,
)
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.predictions import PredictOptions
from fewshot_nlp.rows import column_of, read_each
from fewshot_nlp.tasks.base import Prediction
from fewshot_nlp.tasks.conflicts import Conflicts


class FewShotClassifier(ClassifierMixin, FewShotModel, BaseEstimator):  # type: ignore[misc]
    """Classifies texts, or pairs of texts, after a few examples of each label.

    `predict` gives the label of each text; with ``multi_label`` its list of labels, perhaps empty.

    The default tunes the encoder's top layers for some seconds; ``learner="stacked_probe"`` leaves it frozen and
    adapts in a fraction of one, a few points lower on most data.

    It is an estimator of scikit-learn: ``FewShotClassifier(learner="stacked_probe")`` loads at its first use, `fit`
    takes texts and labels, and pipelines, grid search, cross-validation and `clone` work. Settings are those of
    `from_pretrained`.

    Examples:
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

    def __init__(
        self,
        name: Any = None,
        *,
        learner: str | None = None,
        learner_config: Any = None,
        task_config: Any = None,
        adapter: Any = None,
        top_layers: int | None = None,
        layers: Any = None,
        max_length: int | None = None,
        device: str | None = None,
    ) -> None:
        self.name = name
        self.learner = learner
        self.learner_config = learner_config
        self.task_config = task_config
        self.adapter = adapter
        self.top_layers = top_layers
        self.layers = layers
        self.max_length = max_length
        self.device = device
        FewShotModel.__init__(self, None)

    @classmethod
    def from_pretrained(cls, name: Any = None, **options: Any) -> Self:
        """As `FewShotModel.from_pretrained`."""
        model = super().from_pretrained(name, **options)
        for key in cls._get_param_names():
            setattr(model, key, {"name": name, **options}.get(key))
        model._loaded_with = model._settings()
        return model

    def _settings(self) -> dict[str, Any]:
        return dict(self.get_params(deep=False))

    def _load(self) -> Pipeline:
        self._loaded_with = self._settings()
        given = {key: value for key, value in self._loaded_with.items() if value is not None}
        return FewShotModel.from_pretrained(task=self.task_name, **given).pipeline

    def to(self, device: Any) -> Self:
        """As `FewShotModel.to`; the setting ``device`` follows."""
        super().to(device)
        self.device = str(device)
        self._loaded_with = self._settings()
        return self

    def _html_repr(self) -> str:  # what scikit-learn shows in notebooks
        return self._repr_html_()

    def fit(self, texts: Sequence[Any], labels: Sequence[Any], *, conflicts: Conflicts = "refuse") -> Self:
        """`adapt` in scikit-learn's manner; loads anew where a setting has changed.

        Args:
            texts: texts, or pairs of texts; also an array of shape (n,), (n, 1) or (n, 2), or a table of one column.
            labels: the label of each; with ``multi_label`` its list of labels.
            conflicts: as for `adapt`.
        """
        inputs, targets = column_of(texts, "The texts"), column_of(labels, "The labels")
        if len(inputs) != len(targets):
            raise FewShotError(f"{len(inputs)} texts but {len(targets)} labels; each text needs one.")
        if self._pipeline is not None and self._loaded_with != self._settings():
            self._pipeline = None
        queries = read_each(inputs, self.pipeline.task.query)
        rows = [{**q.inputs, "label": y} for q, y in zip(queries, targets, strict=True)]
        return self.adapt(rows, conflicts=conflicts)

    def predict(
        self,
        inputs: Iterable[Any],
        *,
        threshold: float | None = None,
        reject: bool | Rule = False,
        coverage: float | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[Any]:
        """The label of each text, or with ``multi_label`` its list of labels; the rest as `FewShotModel.predict`.

        Args:
            inputs: texts, or pairs of texts.
            threshold: with ``multi_label``, the least probability of a predicted label, in (0, 1), in place of the
                task's.
            reject: None in place of the label of a text that fits no label, by the default rule or a named one
                (`fewshot_nlp.models.rejection`); `predictions` tells the reason.
            coverage: with ``reject``, the share of texts like the support set's that keep their label, at least, in
                (0, 1).
            options: as for `FewShotModel.predict`.
        """
        if reject:
            found = self.predictions(inputs, reject=reject, coverage=coverage, **options)
            return [p["target"] for p in found]
        if coverage is not None:
            raise FewShotError("coverage says how many texts rejection keeps; set reject=True.")
        if threshold is None:
            return super().predict(inputs, **options)
        if not getattr(self.pipeline.task, "multi_label", False):
            raise FewShotError(
                "threshold is for several labels a text; set task_config={'multi_label': True}."
            )
        if not 0 < threshold < 1:
            raise FewShotError(f"threshold is {threshold}, but must lie between 0 and 1.")
        rows = self.predict_proba(inputs, **options)
        return [[name for name, p in zip(self.labels, row, strict=True) if p >= threshold] for row in rows]

    def predictions(
        self,
        inputs: Iterable[Any],
        model: TaskModel | None = None,
        *,
        reject: bool | Rule = False,
        coverage: float | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[Prediction]:
        """As `FewShotModel.predictions`; with ``reject`` also ``reason``: why a text has no label, else None.

        Raises:
            FewShotError: as `predict`; or the model was saved without what rejection compares texts with.
        """
        model = model or self._adapted()
        queries = self._queries(inputs, options.get("refuse_empty", False))
        predictions = model.predict(queries, options.get("show_progress_bar"), options.get("batch_size"))
        if not reject:
            return predictions
        found = self._fits(DEFAULT_RULE if reject is True else reject)
        least = found.threshold(coverage)
        asked = [i for i, query in enumerate(queries) if query is not None]
        values = dict(zip(asked, fits(model, [q for q in queries if q is not None], found), strict=True))
        for i, prediction in enumerate(predictions):
            fit = float(values.get(i, -np.inf))
            prediction["reason"] = None if fit >= least else reason(fit, least, found.rule)
            if i not in values:
                prediction["reason"] = "it is empty"
            prediction["target"] = prediction["target"] if prediction["reason"] is None else None
        return predictions

    def _fits(self, rule: Rule) -> Fits:
        if getattr(self.pipeline.task, "multi_label", False):
            raise FewShotError(
                "Texts with several labels may have none already; raise threshold in place of reject."
            )
        model = self._adapted()
        found = kept_fits(model, rule)
        if found is None and not self._examples:
            raise FewShotError(
                f"This model was saved without what the rule {rule!r} compares texts with; predict with reject=True "
                "once before saving, or adapt again."
            )
        if found is None:
            found = fits_of_support(self.pipeline, model, self._examples, rule)
            self._model = with_fits(model, found)
        return found

    def predict_proba(
        self, texts: Iterable[Any], **options: Unpack[PredictOptions]
    ) -> Float[np.ndarray, "n_texts n_labels"]:
        """Probability of each label (columns in the order of `labels`) for each text.

        For an empty text all labels have the same, and with ``multi_label`` it is 0; or it is refused, as in `predict`.
        """
        rows = [p["probabilities"] for p in self.predictions(texts, **options)]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)

    @property
    def classes_(self) -> np.ndarray[Any, Any]:
        """The labels as an array."""
        if not self.is_adapted:
            raise AttributeError("The classifier has no classes_ before fit.")
        return np.array(self.labels)

    def __sklearn_is_fitted__(self) -> bool:
        return self.is_adapted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags
