"""What a comparison found: a sentence, a table, and a page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.figures import confusion, drawn, learning_curve, reliability
from fewshot_nlp.comparison.page import Section, aligned, markdown, write_page
from fewshot_nlp.comparison.statistics import Estimate, estimate, holm
from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.metrics.calibration import decision_calibration
from fewshot_nlp.tasks import TASKS

EXAMPLES = (
    "Examples are of each label; of entities mentions, to twice as many; rows where a task has no labels."
)
WORTH = 0.01
"""A gain below this is none, as a share of the metric's largest value."""


@dataclass(frozen=True)
class Comparison:
    """Scores of learners on a user's rows.

    Args:
        facts: task, metric, numbers of rows and folds, seed, seconds.
        notes: what was left out of the request, and why.
        candidates: what was compared; the learners first, then the baselines.
        records: one for each learner, size and repeat.
        base: name of the baseline; None for the usual one.
    """

    facts: Mapping[str, Json]
    notes: tuple[str, ...]
    candidates: tuple[Candidate, ...] = field(repr=False)
    records: tuple[dict[str, Json], ...] = field(repr=False)
    base: str | None = None

    @cached_property
    def shots(self) -> tuple[int, ...]:
        """Sizes of support sets, rising."""
        return tuple(sorted({r["k_shot"] for r in self.records if r["k_shot"]}))

    @property
    def has_scores(self) -> bool:
        """Whether any learner has a score at some size."""
        return bool(self.shots) and any("score" in r for r in self.records)

    @property
    def n_repeats(self) -> int:
        """Repeats that were made."""
        return len({r["repeat"] for r in self.records})

    def _cells(self, name: str, k: int) -> dict[int, dict[str, Json]]:
        candidate = next(c for c in self.candidates if c.name == name)
        size = k if candidate.uses_support else 0
        return {
            r["repeat"]: r
            for r in self.records
            if (r["learner"], r["k_shot"]) == (name, size) and "score" in r
        }

    def refused(self, name: str) -> str | None:
        """Why a learner has no score at all; None where it has one."""
        mine = [r for r in self.records if r["learner"] == name]
        if not mine:
            return "there was no time for it"
        return None if any("score" in r for r in mine) else mine[0]["refused"]

    def score(self, name: str, k: int) -> Estimate | None:
        """Mean of a learner at a size; None where it was refused."""
        found = list(self._cells(name, k).values())
        return estimate([r["score"] for r in found], [r["without"] for r in found]) if found else None

    def scores(self, name: str, k: int) -> list[float]:
        """Score of each support set."""
        return [r["score"] for r in self._cells(name, k).values()]

    def difference(self, name: str, k: int, base: str, base_k: int | None = None) -> Estimate | None:
        """Mean difference of two learners (or sizes) over the repeats that both have."""
        mine, other = self._cells(name, k), self._cells(base, k if base_k is None else base_k)
        both = sorted(mine.keys() & other.keys())
        if not both:
            return None
        values = [mine[r]["score"] - other[r]["score"] for r in both]
        without = [np.subtract(mine[r]["without"], other[r]["without"]) for r in both]
        return estimate(values, without)

    @property
    def baseline(self) -> Candidate:
        """Logistic regression on the frozen encoder, or the model before any example."""
        usual = ("logistic regression", "no example") if self.base is None else (self.base,)
        return next(c for c in self.candidates if c.name in usual)

    @cached_property
    def best(self) -> Candidate:
        """The highest mean at the largest size."""
        k = self.shots[-1] if self.shots else 0
        scored = [(s.mean, -i, c) for i, c in enumerate(self.candidates) if (s := self.score(c.name, k))]
        if not scored:
            raise FewShotError(
                f"No learner could be scored. The first: {self.refused(self.candidates[0].name)}"
            )
        return max(scored)[2]

    @property
    def enough(self) -> int | None:
        """The smallest size from which more examples gained the best learner under `WORTH`; None if all did more."""
        k, best = self.shots[-1], self.best.name
        largest = 100 if any(r.get("score", 0) > 1 for r in self.records) else 1
        for fewer in self.shots[:-1]:
            gain = self.difference(best, k, best, fewer)
            if gain is not None and gain.mean < WORTH * largest:
                return fewer
        return None

    @property
    def headline(self) -> str:
        """The answer: which learner, by how much over the baseline, how sure, and would more examples help?"""
        k, best, base = self.shots[-1], self.best, self.baseline
        many = f"{k} example{'s' * (k > 1)}{' a label' * TASKS.get(self.facts['task']).has_labels}"
        said = f"Best with {many}: {best.name}, {self.facts['metric']} {self.score(best.name, k)}."
        nothing = self._nothing_learned(best.name, k)
        if nothing:
            return f"{said} {nothing}"
        return " ".join(
            [said, *self._over_baseline(best.name, base.name, k), *self._more_examples(best.name)]
        )

    def _nothing_learned(self, best: str, k: int) -> str:
        """A sentence where the best is not surely above what needs no text; else empty."""
        guess = next(
            (c.name for c in self.candidates if c.kind == "majority" and self.score(c.name, k)), None
        )
        over = self.score(best, k) if guess is None else self.difference(best, k, guess)
        if over is None or over.half is None or over.mean > over.half:
            return ""
        what = "0" if guess is None else "always giving the most frequent label"
        return (
            f"No learner is surely better than {what}: from so few rows nothing is learned, or the targets do not "
            "belong to the inputs."
        )

    def _over_baseline(self, best: str, base: str, k: int) -> list[str]:
        if best == base:
            return [f"No learner beats {base}."]
        found = {c.name: self.difference(c.name, k, base) for c in self.candidates if c.name != base}
        p_values = {name: d.p_value for name, d in found.items() if d and d.p_value is not None}
        gain = found[best]
        if gain is None or gain.half is None:
            return []
        sure = dict(zip(p_values, holm(list(p_values.values())), strict=True))[best]
        certainty = f"p = {sure:.2g} after Holm's correction over {len(p_values)}"
        said = f"That is {gain.signed} over {base} ({certainty})."
        return [said, *["This may be chance: the cheaper one will do."] * (gain.mean <= gain.half)]

    def _more_examples(self, best: str) -> list[str]:
        if len(self.shots) < 2:
            return []
        fewer, k = self.shots[-2:]
        gain = self.difference(best, k, best, fewer)
        if self.enough is not None:
            return [f"From {self.enough} on, more examples gained it under {WORTH:.0%}."]
        if gain is None or gain.half is None:
            return []
        helps = "more would help" if gain.mean > gain.half else "whether more would help is not sure"
        return [f"From {fewer} to {k} it gained {gain.signed}: {helps}."]

    def cost(self, name: str, k: int | None = None) -> dict[str, float]:
        """Median seconds to adapt, milliseconds a text, bytes of a task, at a size or the largest."""
        found = list(self._cells(name, self.shots[-1] if k is None else k).values())
        seconds = [s for r in found for s in r["seconds"]] or [0.0]
        return {
            "seconds": float(np.median(seconds)),
            "milliseconds": float(np.median([r["milliseconds"] for r in found] or [0.0])),
            "bytes": max([r["bytes"] for r in found] or [0]),
        }

    def decisions(self, name: str, k: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Confidence of each prediction, and whether it was right; empty where a task has no confidences."""
        found = [r for r in self._cells(name, k).values() if "confidence" in r]
        sure = [c for r in found for c in r["confidence"]]
        return np.array(sure, float), np.array([g == p for r in found for g, p in _pairs(r)], bool)

    def calibration(self, name: str, k: int) -> dict[str, float]:
        """Measures of `decision_calibration`, each the mean over the support sets; empty without confidences."""
        found = [
            decision_calibration(np.array(r["confidence"]), np.array([g == p for g, p in _pairs(r)]))
            for r in self._cells(name, k).values()
            if "confidence" in r
        ]
        return {key: float(np.mean([scores[key] for scores in found])) for key in (found or [{}])[0]}

    def table(self) -> list[list[str]]:
        """The learning curve, a row a learner; with a head."""
        sizes = [str(k) for k in self.shots]
        told = any(self.calibration(c.name, self.shots[-1]) for c in self.candidates)
        rows = [["learner", *sizes, *["calibration error"] * told, "adapt, s", "ms a text", "kB a task"]]
        for c in self.candidates:
            why = self.refused(c.name)
            if why is not None:
                rows.append([c.name, f"refused: {why}", *[""] * (len(rows[0]) - 2)])
                continue
            cost = self.cost(c.name)
            error = self.calibration(c.name, self.shots[-1]).get("ece_15_bins")
            cells = [str(self.score(c.name, k) or "refused") for k in self.shots]
            rows.append(
                [
                    c.name,
                    *cells,
                    *["" if error is None else f"{error:.3f}"] * told,
                    f"{cost['seconds']:.2f}",
                    f"{cost['milliseconds']:.1f}",
                    f"{cost['bytes'] / 1000:.0f}",
                ]
            )
        return rows

    @property
    def protocol(self) -> str:
        """How it was measured, in one line."""
        f = self.facts
        folds = sorted(set(f["n_folds"] or []))
        how = f"{' or '.join(map(str, folds))} folds" if folds else "held out"
        return (
            f"{f['metric']} on {f['n_scored']} of {f['n_rows']} rows, {how}, {self.n_repeats} repeats, "
            f"seed {f['seed']}; mean ± half of the 95 % interval over support sets and rows."
        )

    def __str__(self) -> str:
        return "\n".join([self.headline, "", *aligned(self.table()), "", self.protocol, *self.notes])

    def to_markdown(self) -> str:
        """The report as Markdown."""
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([self.headline, "", *markdown(*self.table()), "", self.protocol, *notes, ""])

    def to_json(self) -> dict[str, Any]:
        """Headline, facts, scores and costs."""
        scores = {
            c.name: {
                str(k): {"mean": s.mean, "half": s.half, "n": s.n}
                for k in self.shots
                if (s := self.score(c.name, k))
            }
            for c in self.candidates
        }
        return {
            "headline": self.headline,
            **self.facts,
            "n_repeats": self.n_repeats,
            "notes": list(self.notes),
            "scores": scores,
            "costs": {c.name: self.cost(c.name) for c in self.candidates},
            "calibration": {
                c.name: found for c in self.candidates if (found := self.calibration(c.name, self.shots[-1]))
            },
            "refused": {c.name: why for c in self.candidates if (why := self.refused(c.name))},
        }

    def write_page(self, path: str | Path) -> Path:
        """Writes one HTML file that needs no other file and no network.

        With matplotlib it has the learning curve (``pip install "fewshot_nlp[plots]"``).
        """
        return write_page(path, self.headline, [self.section()])

    def section(self, title: str = "") -> Section:
        """Curve, table, protocol and notes for a page."""
        notes = (self.protocol, *self.notes, EXAMPLES)
        k, best, base = self.shots[-1], self.best.name, self.baseline.name
        sure = {name: self.decisions(name, k) for name in dict.fromkeys((best, base))}
        pairs = [pair for r in self._cells(best, k).values() for pair in _pairs(r)]
        figures = [
            *drawn(learning_curve, self),
            *drawn(reliability, {name: found for name, found in sure.items() if len(found[0])}, size=(5, 4)),
            *drawn(
                confusion, [(g, p) for g, p in pairs if not isinstance(g, list | dict)], best, size=(6, 5)
            ),
        ]
        return Section(title, self.table(), best, figures, notes)


def _pairs(record: Mapping[str, Json]) -> Iterator[tuple[Json, Json]]:
    """Gold and predicted targets of a record."""
    return zip(record.get("gold", []), record.get("predicted", []), strict=True)
