"""Named-entity metrics, by seqeval."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from seqeval.scheme import IOB2, Entities

Span = tuple[str, int, int]
"""Type, first word, and the word after the last."""


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact-match entity scores over all sentences: right when both ends and the type are right.

    seqeval's reading of IOB2 tags in strict mode; ``entity_f1_strict_iob2``, ``entity_precision_strict_iob2`` and
    ``entity_recall_strict_iob2`` are micro averages, ``macro_entity_f1_strict_iob2`` is the mean over the
    types that occur in the gold, and ``f1[TYPE]`` is each type's own. Where the gold has no entity, all are 1 if none
    is predicted, and 0 otherwise: so an episode that drew sentences without any tells who abstains.
    """
    names = ("entity_precision_strict_iob2", "entity_recall_strict_iob2", "entity_f1_strict_iob2")
    gold_types = sorted({tag[2:] for tags in gold for tag in tags if tag != "O"})
    if not gold_types and not any(tag != "O" for tags in predicted for tag in tags):
        return {**dict.fromkeys(names, 1.0), "macro_entity_f1_strict_iob2": 1.0}
    there, told, right = Counter[str](), Counter[str](), Counter[str]()
    for tags, other in zip(gold, predicted, strict=True):
        wanted, found = entities_of(tuple(tags)), entities_of(tuple(other))
        there.update(kind for kind, _, _ in wanted)
        told.update(kind for kind, _, _ in found)
        right.update(kind for kind, _, _ in wanted & found)
    each = {kind: 2 * right[kind] / max(told[kind] + there[kind], 1) for kind in gold_types}
    n = right.total()
    micro = (
        n / max(told.total(), 1),
        n / max(there.total(), 1),
        2 * n / max(told.total() + there.total(), 1),
    )
    return {
        **dict(zip(names, micro, strict=True)),
        "macro_entity_f1_strict_iob2": sum(each.values()) / len(each) if each else 0.0,
        **{f"f1[{kind}]": value for kind, value in each.items()},
    }


@lru_cache(maxsize=2**15)  # a jackknife scores the same sentences again and again
def entities_of(tags: tuple[str, ...]) -> frozenset[Span]:
    """The entities of a sentence, as seqeval reads IOB2 tags; it sees plain names, since it strips hyphens."""
    plain: dict[str, str] = {}
    [found] = Entities(plain_types([tags], plain), IOB2).entities
    names = {name: kind for kind, name in plain.items()}
    return frozenset((names[entity.tag], entity.start, entity.end) for entity in found)


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
