"""Classification metrics, by scikit-learn."""

from collections.abc import Sequence

from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from fewshot_nlp.rows import Label, sorted_labels


def single_label_scores(
    gold: Sequence[Label], predicted: Sequence[Label], labels: Sequence[Label]
) -> dict[str, float]:
    """``accuracy`` and ``macro_f1`` (unweighted mean of the F1 of every label that occurs in the gold).

    Adds ``f1[label]`` for each of those labels.
    """
    present = sorted_labels(gold)
    each = f1_score(gold, predicted, labels=present, average=None, zero_division=0.0)
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(each.mean()),
        **{f"f1[{label}]": float(value) for label, value in zip(present, each, strict=True)},
    }


def multi_label_scores(
    gold: Sequence[Sequence[Label]], predicted: Sequence[Sequence[Label]], labels: Sequence[Label]
) -> dict[str, float]:
    """``accuracy`` (all labels of a text right), ``micro_f1``, ``macro_f1`` and ``f1[label]``."""
    labels = sorted_labels(labels)
    matrix = MultiLabelBinarizer(classes=labels).fit([])
    truth, guess = matrix.transform(gold), matrix.transform(predicted)
    each = f1_score(truth, guess, average=None, zero_division=0.0)
    present = truth.sum(axis=0) > 0
    return {
        "accuracy": float(accuracy_score(truth, guess)),
        "micro_f1": float(f1_score(truth, guess, average="micro", zero_division=0.0)),
        "macro_f1": float(each[present].mean()) if present.any() else 0.0,
        **{f"f1[{label}]": float(value) for label, value in zip(labels, each, strict=True)},
    }
