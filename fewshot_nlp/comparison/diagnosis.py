"""What is wrong with a user's rows, and which text to label next.

Rows are judged by the nearest class mean on frozen features, each row left out (Snell et al. 2017), since that costs
one pass of the encoder. The harm of a row is the change of the other rows' mean log-loss when it is left out of its
label's mean: a leave-one-out influence (Cook 1977), exact for this learner, with losses cut at chance. Texts to
label next are those with the least margin between two labels (Scheffer et al. 2001).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from fewshot_nlp.comparison.own_rows import plain
from fewshot_nlp.episode import Example, Json, canonical_json
from fewshot_nlp.errors import FewShotError, clipped
from fewshot_nlp.models import FewShotModel
from fewshot_nlp.models.rejection import unit_vectors
from fewshot_nlp.modules.linear_models import unit_rows
from fewshot_nlp.sources import read_rows

ALIKE = 0.97
"""Cosine from which two texts are near-duplicates."""
CONFUSED = 0.2
"""Share of two labels' rows, each left out, that the other label takes; from here on they are too near."""
SCALE = 16.0
"""Factor of cosines before the softmax."""
TRIED = 300
SHOWN = 5
HEADS = {
    "contradicting": "Rows with one input and several targets",
    "repeated": "Rows that nearly repeat one another",
    "confused": "Labels too near one another (share of their rows that the other takes)",
    "harmful": "Rows that hurt the others most (nats of their mean log-loss)",
    "next": "Texts to label next (margin between the two likeliest labels)",
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found; rows are numbered from 1, as in a file.

    Args:
        n_rows: rows that were read.
        counts: rows of each label.
        contradicting: ``rows``, ``text`` and ``targets`` of inputs with several targets.
        repeated: ``rows``, ``text`` and ``similarity`` (1 where they differ by case, marks and spaces alone).
        confused: ``labels`` and ``share``, the largest first.
        harmful: ``row``, ``text``, ``label`` and ``harm``, the largest first.
        next: ``text``, ``margin`` and ``label``, the likeliest.
    """

    n_rows: int
    counts: dict[str, int]
    contradicting: list[dict[str, Json]] = field(default_factory=list)
    repeated: list[dict[str, Json]] = field(default_factory=list)
    confused: list[dict[str, Json]] = field(default_factory=list)
    harmful: list[dict[str, Json]] = field(default_factory=list)
    next: list[dict[str, Json]] = field(default_factory=list)

    def to_json(self) -> dict[str, Json]:
        """All of it."""
        return asdict(self)

    def __str__(self) -> str:
        few = sorted(self.counts, key=lambda label: self.counts[label])[:SHOWN]
        lines = [f"{self.n_rows} rows, {len(self.counts)} labels; fewest: {self._counted(few)}."]
        for name, head in HEADS.items():
            found: list[dict[str, Json]] = getattr(self, name)
            if found:
                lines += ["", f"{head}:", *(f"  {_line(item)}" for item in found[:SHOWN])]
                lines += [f"  ... {len(found)} in all"] * (len(found) > SHOWN)
        return "\n".join([*lines, *["", "Nothing odd was found."] * (len(lines) == 1)])

    def _counted(self, labels: Sequence[str]) -> str:
        return ", ".join(f"{label} {self.counts[label]}" for label in labels)


def doctor(
    rows: Any,
    *,
    task: str = "classification",
    unlabelled: Iterable[Any] | None = None,
    encoder: str | None = None,
    column_mapping: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Looks for what is wrong with labelled rows.

    Args:
        rows: as for `FewShotModel.adapt`.
        task: name of the task. Contradictions and repetitions are found for all, the rest for classification with one
            label a text.
        unlabelled: texts or rows without labels, to say which to label next.
        encoder: folder or Hub name; None for what ships.
        column_mapping: your column's name to the task's name for it.
    """
    cheap = "prototypical" if task == "classification" else None
    pipeline = FewShotModel.from_pretrained(encoder, task=task, learner=cheap).pipeline
    reader = pipeline.task
    examples = reader.examples(read_rows(rows, task, column_mapping))
    if not examples:
        raise FewShotError("There are no rows to look at.")
    counts: dict[str, int] = defaultdict(int)
    for example in examples:
        for label, n in reader.labels_of(example).items():
            counts[str(label)] += n
    found: dict[str, Any] = {"n_rows": len(examples), "counts": dict(counts), **_same_inputs(examples)}
    labels = reader.labels(examples)
    if task != "classification" or isinstance(examples[0].target, list) or len(labels) < 2:
        if unlabelled is not None:
            raise FewShotError(
                "What to label next is said for classification with one label a text and two labels."
            )
        return Diagnosis(**found)
    vectors = unit_vectors(pipeline, [reader.asked(e) for e in examples], labels).cpu().numpy()
    y = np.array([labels.index(e.target) for e in examples])
    texts = [clipped(str(e.inputs["text"])) for e in examples]
    found["repeated"] += _near(vectors, texts, {tuple(r["rows"]) for r in found["repeated"]})
    p = _left_out(vectors, y, len(labels))
    found["confused"] = _confused(p, y, labels)
    found["harmful"] = [
        {"row": i + 1, "text": texts[i], "label": labels[y[i]], "harm": round(harm, 4)}
        for i, harm in _harm(vectors, y, len(labels))
    ]
    if unlabelled is not None:
        queries = [q for q in reader.queries(unlabelled) if q is not None]
        new = unit_vectors(pipeline, queries, labels).cpu().numpy() if queries else vectors[:0]
        found["next"] = _next(vectors, y, labels, new, [str(q.inputs["text"]) for q in queries])
    return Diagnosis(**found)


def _line(item: Mapping[str, Json]) -> str:
    rows = item.get("rows") or ([item["row"]] if "row" in item else [])
    where = f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:SHOWN]))}: " if rows else ""
    rest = [str(item[key]) for key in ("text",) if key in item]
    rest += [" / ".join(map(str, item[key])) for key in ("labels", "targets") if key in item]
    rest += [f"[{item[key]}]" for key in ("label",) if key in item]
    rest += [f"{item[key]:.2f}" for key in ("similarity", "share", "harm", "margin") if key in item]
    return where + "  ".join(rest)


def _same_inputs(examples: Sequence[Example]) -> dict[str, list[dict[str, Json]]]:
    """Inputs that are equal but for case, marks and spaces: with several targets, and with one."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        places[plain(example.inputs)].append(i)
    found: dict[str, list[dict[str, Json]]] = {"contradicting": [], "repeated": []}
    for rows in places.values():
        targets = list(dict.fromkeys(canonical_json(examples[i].target) for i in rows))
        item = {
            "rows": [i + 1 for i in rows],
            "text": clipped(" ".join(map(str, examples[rows[0]].inputs.values()))),
        }
        if len(targets) > 1:
            found["contradicting"].append({**item, "targets": [clipped(t) for t in targets]})
        elif len(rows) > 1:
            found["repeated"].append({**item, "similarity": 1.0})
    return found


def _near(vectors: np.ndarray, texts: Sequence[str], known: set[tuple[int, ...]]) -> list[dict[str, Json]]:
    alike = np.triu(vectors @ vectors.T, 1)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(alike >= ALIKE)]
    together = [set(rows) for rows in known]
    return [
        {"rows": [i + 1, j + 1], "text": texts[i], "similarity": round(float(alike[i, j]), 3)}
        for i, j in sorted(pairs, key=lambda p: -alike[p])
        if not any({i + 1, j + 1} <= rows for rows in together)
    ]


def _left_out(
    x: Float[np.ndarray, "n d"], y: Int[np.ndarray, " n"], n_labels: int
) -> Float[np.ndarray, "n c"]:
    """Cosine of each row to each label's mean without it; -1 for a label that has no other row."""
    sums = np.stack([x[y == c].sum(axis=0) for c in range(n_labels)])
    similarity: np.ndarray = x @ unit_rows(sums).T
    own = sums[y] - x
    alone = np.bincount(y, minlength=n_labels)[y] == 1
    similarity[np.arange(len(x)), y] = np.where(alone, -1.0, np.einsum("nd,nd->n", x, unit_rows(own)))
    return similarity


def _confused(similarity: np.ndarray, y: np.ndarray, labels: Sequence[Any]) -> list[dict[str, Json]]:
    taken = similarity.argmax(axis=1)
    counts = np.bincount(y, minlength=len(labels))
    found = []
    for a in range(len(labels)):
        for b in range(a + 1, len(labels)):
            wrong = int(((y == a) & (taken == b)).sum() + ((y == b) & (taken == a)).sum())
            share = wrong / (counts[a] + counts[b])
            if share >= CONFUSED:
                found.append({"labels": [labels[a], labels[b]], "share": round(float(share), 3)})
    return sorted(found, key=lambda item: -item["share"])


def _log_loss(similarity: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " n"]:
    """Log-loss of each row, at most that of chance: a row with a wrong label must not vote against right ones."""
    scores = SCALE * similarity
    own: np.ndarray = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
    cut: np.ndarray = np.minimum(own, np.log(similarity.shape[1]))
    return cut


def _harm(x: np.ndarray, y: np.ndarray, n_labels: int) -> list[tuple[int, float]]:
    """Rows by how much the mean log-loss of the others, each left out, falls without them; only where it falls.

    Of many rows the `TRIED` that fit their own label least are tried.
    """
    counts, found = np.bincount(y, minlength=n_labels), []
    everyone = _log_loss(_left_out(x, y, n_labels), y)
    for i in np.argsort(-everyone)[:TRIED].tolist():
        others = np.arange(len(x)) != i
        if counts[y[i]] < 3 or len(x) < 4:  # its label would be left with one row or none
            continue
        without = _log_loss(_left_out(x[others], y[others], n_labels), y[others])
        harm = float(everyone[others].mean() - without.mean())
        if harm > 0:
            found.append((i, harm))
    return sorted(found, key=lambda item: -item[1])


def _next(
    x: np.ndarray, y: np.ndarray, labels: Sequence[Any], new: np.ndarray, texts: Sequence[str]
) -> list[dict[str, Json]]:
    """Texts by their margin between two labels, the least first; of those that resemble one another the first."""
    means = unit_rows(np.stack([x[y == c].sum(axis=0) for c in range(len(labels))]))
    similarity = new @ means.T
    ordered = np.sort(similarity, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    chosen: list[int] = []
    for i in np.argsort(margin):
        if not chosen or (new[chosen] @ new[i]).max() < ALIKE:
            chosen.append(int(i))
    return [
        {
            "text": clipped(texts[i]),
            "margin": round(float(margin[i]), 3),
            "label": labels[int(similarity[i].argmax())],
        }
        for i in chosen
    ]
