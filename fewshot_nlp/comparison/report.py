"""What a comparison found: a sentence, a table, and a page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

import fewshot_nlp
from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.statistics import Estimate, estimate, holm
from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.page import write_page as render_page
from fewshot_nlp.tasks import TASKS

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
    """

    facts: Mapping[str, Json]
    notes: tuple[str, ...]
    candidates: tuple[Candidate, ...] = field(repr=False)
    records: tuple[dict[str, Json], ...] = field(repr=False)

    @cached_property
    def shots(self) -> tuple[int, ...]:
        """Sizes of support sets, rising."""
        return tuple(sorted({r["k_shot"] for r in self.records if r["k_shot"]}))

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
        return None if any("score" in r for r in mine) else mine[0]["refused"]

    def score(self, name: str, k: int) -> Estimate | None:
        """Mean of a learner at a size; None where it was refused."""
        found = list(self._cells(name, k).values())
        return estimate([r["score"] for r in found], [r["without"] for r in found]) if found else None

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
        return next(c for c in self.candidates if c.name in ("logistic regression", "no example"))

    @cached_property
    def best(self) -> Candidate:
        """The highest mean at the largest size."""
        k = self.shots[-1]
        scored = [(s.mean, -i, c) for i, c in enumerate(self.candidates) if (s := self.score(c.name, k))]
        if not scored:
            raise FewShotError(
                f"No learner could be scored. The first said: {self.records[0].get('refused')}"
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
        said = f"That is {gain.mean:+.3f} ± {gain.half:.3f} over {base} ({certainty})."
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
        return [f"From {fewer} to {k} it gained {gain.mean:+.3f} ± {gain.half:.3f}: {helps}."]

    def cost(self, name: str) -> dict[str, float]:
        """Median seconds to adapt at the largest size, milliseconds a text, bytes of a task."""
        found = list(self._cells(name, self.shots[-1]).values())
        seconds = [s for r in found for s in r["seconds"]] or [0.0]
        return {
            "seconds": float(np.median(seconds)),
            "milliseconds": float(np.median([r["milliseconds"] for r in found] or [0.0])),
            "bytes": max([r["bytes"] for r in found] or [0]),
        }

    def table(self) -> list[list[str]]:
        """The learning curve, a row a learner; with a head."""
        sizes = [str(k) for k in self.shots]
        rows = [["learner", *sizes, "adapt, s", "ms a text", "kB a task"]]
        for c in self.candidates:
            why = self.refused(c.name)
            if why is not None:
                rows.append([c.name, f"refused: {why}", *[""] * (len(sizes) + 2)])
                continue
            cost = self.cost(c.name)
            cells = [str(self.score(c.name, k) or "refused") for k in self.shots]
            rows.append(
                [
                    c.name,
                    *cells,
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
        rows = self.table()
        widths = [max(len(row[i]) for row in rows if "refused:" not in row[1]) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.headline, "", *lines, "", self.protocol, *self.notes])

    def to_markdown(self) -> str:
        """The report as Markdown."""
        head, *rows = self.table()
        lines = [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]
        return "\n".join([self.headline, "", *lines, "", self.protocol, *(f"- {n}" for n in self.notes), ""])

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
            "refused": {c.name: why for c in self.candidates if (why := self.refused(c.name))},
        }

    def write_page(self, path: str | Path) -> Path:
        """Writes one HTML file that needs no other file and no network.

        With matplotlib it has the learning curve (``pip install "fewshot_nlp[plots]"``).
        """
        values = {"report": self, "curve": self._curve(), "version": fewshot_nlp.__version__}
        return render_page(path, "fewshot_nlp.comparison", **values)

    def _curve(self) -> str:
        """The learning curve as SVG; empty without matplotlib."""
        try:
            from matplotlib.backends.backend_svg import FigureCanvasSVG
            from matplotlib.figure import Figure
        except ImportError:
            logger.warning('No learning curve without matplotlib: pip install "fewshot_nlp[plots]".')
            return ""
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for c in self.candidates:
            found = [(k, s) for k in self.shots if (s := self.score(c.name, k)) is not None]
            if found:
                bars = [s.half or 0.0 for _, s in found]
                line = "--" if c in (self.baseline,) or c.kind != "learner" else "-"
                axes.errorbar(
                    [k for k, _ in found],
                    [s.mean for _, s in found],
                    yerr=bars,
                    fmt=f"o{line}",
                    capsize=3,
                    label=c.name,
                )
        axes.set(xlabel="examples", ylabel=str(self.facts["metric"]), xscale="log", xticks=self.shots)
        axes.set_xticks(self.shots, [str(k) for k in self.shots])
        axes.minorticks_off()
        axes.legend(frameon=False)
        out = StringIO()
        FigureCanvasSVG(figure).print_svg(out)
        return out.getvalue()[out.getvalue().index("<svg") :]
