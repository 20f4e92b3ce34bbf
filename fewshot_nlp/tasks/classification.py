"""Text classification: one label, or several, for a text or a pair of texts. A slot is the pooled text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewshot_nlp.episode import Example, Json, Query
from fewshot_nlp.errors import FewShotError, quoted
from fewshot_nlp.metrics.classification import multi_label_scores, single_label_scores
from fewshot_nlp.rows import (
    ItemError,
    Label,
    as_label,
    as_labels,
    as_list,
    as_text,
    check_multi_hot,
    is_missing,
    shown,
    sorted_labels,
)
from fewshot_nlp.slots import Hints, Scores, SlotBatch
from fewshot_nlp.tasks.annotation import Annotation
from fewshot_nlp.tasks.base import Prediction, Row, Task, need_column
from fewshot_nlp.tasks.defaults import Defaults, Usage
from fewshot_nlp.tasks.label_words import check_descriptions
from fewshot_nlp.tokenization.windows import WindowTokenizer


class Classification(Task, name="classification"):
    """Rows: ``{"text": str, "label": str}``, with an optional ``"text_pair"``.

    A label may be an integer, and is predicted as one. Without "label", a list "labels" of one label is that label.
    With ``multi_label`` a row has ``"labels": [str, ...]``, possibly empty, and labels are independent.

    Args:
        multi_label: several labels, or none, for each text.
        threshold: with ``multi_label``, the least probability of a predicted label; in (0, 1).
    """

    aliases = ("text-classification", "text_classification", "textcat", "intent", "sentiment")
    columns = (("text", "label"),)
    target_columns = ("label",)
    label_column = "label"
    primary_metric = "accuracy"
    sampler = "n_way_k_shot"
    usual_ways = 5
    augmentations = frozenset({"word_dropout", "paraphrase_rate", "merge_labels"})
    default_learner = "contrastive"
    defaults: ClassVar = {"contrastive": Defaults(encoder={"layers": (0.5, -1)})}
    usage = Usage(
        title="text classification",
        pipeline_tag="text-classification",
        model_class="FewShotClassifier",
        rows=[
            {"text": "I lost my card.", "label": "card"},
            {"text": "Where is my money?", "label": "money"},
        ],
        inputs=["I cannot find my card."],
    )

    multi_label: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def example(self, row: Row) -> Example:
        """A row with its label (a text), or its sorted labels (a list)."""
        inputs = self.query(row).inputs
        listed = as_list(row.get("labels")) is not None and "label" not in row
        if not self.multi_label:
            value = _only(row["labels"]) if listed else need_column(row, "label", object, '"refund"')
            return Example(inputs, as_label(value, "'label'"))
        column = "labels" if "labels" in row else "label"
        return Example(inputs, as_labels(need_column(row, column, object, '["refund"]'), f"'{column}'"))

    def examples(self, rows: Iterable[Row]) -> list[Example]:
        """Rows in normal form; multi-hot label columns are refused."""
        found = super().examples(rows)
        if self.multi_label:
            check_multi_hot([example.target for example in found])
        return found

    def query(self, value: Any) -> Query:
        """A text, a pair of texts, or a row with the column ``text`` and optionally ``text_pair``."""
        columns = ("text", "text_pair")
        if isinstance(value, Mapping):
            need_column(value, "text", object, '"Where is my card?"')
            parts = [value["text"], *([] if is_missing(value.get("text_pair")) else [value["text_pair"]])]
        else:
            parts = [value] if isinstance(value, str) else as_list(value) or []
        if not 1 <= len(parts) <= 2:
            raise FewShotError(
                f"an input is {shown(value)}, but must be a text, a pair of texts, or a row with 'text'."
            )
        return Query({c: as_text(part, c) for c, part in zip(columns, parts, strict=False)})

    def abstained(self, labels: Sequence[Label]) -> Prediction:
        """No label; all have equal probability, or 0 with ``multi_label``."""
        n = len(labels)
        if self.multi_label:
            return {"target": [], "probabilities": np.zeros(n, np.float32)}
        return {"target": None, "probabilities": np.full(n, 1 / n, np.float32)}

    def labels_of(self, example: Example) -> dict[Label, int]:
        """Each of the example's labels, once."""
        return dict.fromkeys(example.target if self.multi_label else [example.target], 1)

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Refuses a single label, except with ``multi_label``."""
        super().check_labels(labels)
        if len(labels) == 1 and not self.multi_label:
            raise FewShotError(
                f"All rows have the label {quoted(labels[0])}; classification needs at least 2. Add rows of another "
                "label, or name it with labels=[...]."
            )

    def restrict(self, target: Json, labels: frozenset[Label]) -> Json:
        """With ``multi_label`` the kept labels; a single label is unchanged."""
        return [label for label in target if label in labels] if self.multi_label else target

    def rename(self, target: Json, names: Mapping[Label, Label]) -> Json:
        """The label, or the sorted labels, under their new names."""
        return sorted({names[label] for label in target}) if self.multi_label else names[target]

    def collate(
        self,
        items: Sequence[Query],
        labels: Sequence[Label],
        tokenizer: WindowTokenizer,
        *,
        with_targets: bool,
        descriptions: Mapping[Label, str] | None = None,
    ) -> SlotBatch:
        """One slot a text, and one a described label: the pooled description."""
        check_descriptions(descriptions, labels)
        described = sorted_labels(descriptions or {})
        texts = [i.inputs["text"] for i in items]
        pairs = [i.inputs.get("text_pair") for i in items]
        if any(p is not None for p in pairs) and None in pairs:
            raise ItemError(
                pairs.index(None), "it has no 'text_pair', but others have; give it for all or none."
            )
        label_slots = [descriptions[label] for label in described] if descriptions else []
        with_pairs = bool(pairs) and pairs[0] is not None
        cut = tokenizer.texts(texts + label_slots, None) if not with_pairs else tokenizer.texts(texts, pairs)  # type: ignore[arg-type]
        ids, types, owner = list(cut.ids), cut.types, cut.owner
        if with_pairs and label_slots:
            more = tokenizer.texts(label_slots)
            types = None if types is None else types + [[0] * len(w) for w in more.ids]
            owner = np.concatenate([owner, more.owner + len(texts)])
            ids += more.ids
        index = np.arange(len(ids))
        spans = np.stack([owner, index, np.zeros_like(index), np.array([len(w) for w in ids], int)], axis=1)
        n_slots = len(texts) + len(label_slots)
        return SlotBatch(
            items=tuple(items),
            windows=ids,
            types=types,
            spans=spans.astype(np.int64),
            groups=torch.arange(n_slots),
            classes=tuple(labels),
            pooling="text",
            normaliser="independent" if self.multi_label else "classes",
            targets=self._targets(items, described, labels) if with_targets else None,
            hints=Hints(label_slots=torch.arange(n_slots) >= len(texts) if label_slots else None),
        )

    def _targets(self, items: Sequence[Query], described: Sequence[Label], labels: Sequence[Label]) -> Tensor:
        number = {label: i for i, label in enumerate(labels)}
        golds = [item.target for item in items if isinstance(item, Example)] + (
            [[label] for label in described] if self.multi_label else list(described)
        )
        if not self.multi_label:
            return torch.tensor([number[gold] for gold in golds], dtype=torch.long)
        matrix = torch.zeros(len(golds), len(labels))
        for row, gold in enumerate(golds):
            matrix[row, [number[label] for label in gold]] = 1.0
        return matrix

    def decode(
        self,
        scores: Scores,
        batch: SlotBatch,
        decoding_parameters: Mapping[str, Tensor] | None = None,
    ) -> list[Prediction]:
        """The likeliest label, or all labels that reach the threshold; and every label's probability."""
        probabilities = batch.log_probabilities(scores).exp().cpu().numpy()
        predictions: list[Prediction] = []
        for row in probabilities:
            if self.multi_label:
                target: Json = [c for c, p in zip(batch.classes, row, strict=True) if p >= self.threshold]
            else:
                target = batch.classes[int(row.argmax())]
            predictions.append({"target": target, "probabilities": row})
        return predictions

    def annotation(self, query: Query, prediction: Prediction) -> Annotation:
        """The text with its labels."""
        target = prediction["target"]
        given = target if self.multi_label else [] if target is None else [target]  # rejected ones have none
        score = None if self.multi_label else float(prediction["probabilities"].max())
        return Annotation(query.inputs["text"], labels=given, score=score)

    def confidence(self, prediction: Prediction) -> float | None:
        """The label's probability; None with ``multi_label``."""
        return None if self.multi_label else float(max(prediction["probabilities"]))

    def mistakes(self, gold: Json, predicted: Json) -> list[tuple[str, str]]:
        """The label that was taken for another; with ``multi_label`` those that were missed or invented."""
        if not self.multi_label:
            return [] if gold == predicted else [("confused", f"{gold} -> {predicted}")]
        kinds = (("missed", set(gold) - set(predicted)), ("invented", set(predicted) - set(gold)))
        return [(kind, str(label)) for kind, labels in kinds for label in sorted_labels(labels)]

    def output(self, prediction: Prediction, labels: Sequence[Label], row: Row) -> dict[str, Any]:
        """The label and its probability, or the labels and theirs; and why there is none, where that was asked for."""
        named = dict(zip(labels, map(float, prediction["probabilities"]), strict=True))
        target = prediction["target"]
        if self.multi_label:
            return {"predicted": target, "scores": {label: named[label] for label in target}}
        found = {"predicted": target, "score": None if target is None else named[target]}
        return found | ({"reason": prediction["reason"]} if "reason" in prediction else {})

    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[Label]
    ) -> dict[str, float]:
        """`single_label_scores` or `multi_label_scores`."""
        score = multi_label_scores if self.multi_label else single_label_scores
        return score(gold, predicted, labels)


def _only(labels: Any) -> Any:
    """The one label of a list."""
    found = as_list(labels) or []
    if len(found) != 1:
        raise FewShotError(
            f"it has {len(found)} labels: {quoted(found)}; leave it out, or set task_config={{'multi_label': True}}."
        )
    return found[0]
