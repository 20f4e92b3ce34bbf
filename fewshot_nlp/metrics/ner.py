"""Named-entity metrics, by seqeval."""

from collections.abc import Sequence

from seqeval.metrics import classification_report
from seqeval.scheme import IOB2


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact-match entity scores over all sentences: right when both ends and the type are right.

    seqeval in strict mode with IOB2 tags; ``entity_f1_strict_iob2``, ``entity_precision_strict_iob2`` and
    ``entity_recall_strict_iob2`` are micro averages, ``macro_entity_f1_strict_iob2`` is the mean over the
    types that occur in the gold, and ``f1[TYPE]`` is each type's own. Where the gold has no entity, all are 1 if none
    is predicted, and 0 otherwise: so an episode that drew sentences without any tells who abstains.

    seqeval sees the types under plain names: it strips hyphens from a type, and its report has rows of its own.
    """
    names = ("entity_precision_strict_iob2", "entity_recall_strict_iob2", "entity_f1_strict_iob2")
    gold_types = {tag[2:] for tags in gold for tag in tags if tag != "O"}
    if not gold_types and not any(tag != "O" for tags in predicted for tag in tags):
        return {**dict.fromkeys(names, 1.0), "macro_entity_f1_strict_iob2": 1.0}
    plain: dict[str, str] = {}
    report = classification_report(
        plain_types(gold, plain),
        plain_types(predicted, plain),
        mode="strict",
        scheme=IOB2,
        output_dict=True,
        zero_division=0,
    )
    micro = report["micro avg"]
    each = {label: float(report[plain[label]]["f1-score"]) for label in sorted(gold_types)}
    return {
        **dict(
            zip(
                names,
                (float(micro["precision"]), float(micro["recall"]), float(micro["f1-score"])),
                strict=True,
            )
        ),
        "macro_entity_f1_strict_iob2": sum(each.values()) / len(each) if each else 0.0,
        **{f"f1[{label}]": value for label, value in each.items()},
    }


Span = tuple[str, int, int]
"""Type, first word, and the word after the last."""


def entity_mistakes(gold: Sequence[Span], predicted: Sequence[Span]) -> list[tuple[str, str]]:
    """Kind of mistake and type of every gold entity that is not right, and of every predicted one that meets none.

    Each predicted entity, from the left, meets the gold one with which it shares most words and which none has met
    yet. "boundary": the type is right; "type": the borders are; "both": neither; "missed": it was met by none;
    "invented": it meets none. As nervaluate counts: its incorrect of ``strict`` is the first three together.
    """
    right = set(gold) & set(predicted)
    left = [span for span in gold if span not in right]
    found: list[tuple[str, str]] = []
    for kind, first, last in (span for span in predicted if span not in right):
        shared = [min(last, e[2]) - max(first, e[1]) for e in left]
        if not shared or max(shared) <= 0:
            found.append(("invented", kind))
            continue
        met = left.pop(shared.index(max(shared)))
        same = (kind == met[0], (first, last) == met[1:])
        found.append(({(True, False): "boundary", (False, True): "type"}.get(same, "both"), met[0]))
    return found + [("missed", kind) for kind, _, _ in left]


def plain_types(sentences: Sequence[Sequence[str]], names: dict[str, str]) -> list[list[str]]:
    """BIO tags with every type under a name that seqeval leaves as it is.

    Args:
        sentences: BIO tags of each sentence.
        names: plain names by type; types that are not among them are added.
    """
    return [
        [tag if tag == "O" else f"{tag[0]}-{names.setdefault(tag[2:], f'T{len(names)}')}" for tag in tags]
        for tags in sentences
    ]
