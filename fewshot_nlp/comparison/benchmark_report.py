"""What a benchmark found: a sentence, a table over its targets, and a page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_nlp.comparison.figures import drawn, heat_map, quality_cost
from fewshot_nlp.comparison.page import Section, aligned, markdown, write_page
from fewshot_nlp.comparison.peers import INSTALL
from fewshot_nlp.comparison.report import EXAMPLES, Comparison
from fewshot_nlp.comparison.statistics import Estimate, holm, mean_of
from fewshot_nlp.episode import Json
from fewshot_nlp.persistence.disk import atomic_write, user_path
from fewshot_nlp.tasks import TASKS

SURE = 0.05
"""P-values below this, corrected, are told as better or worse."""


@dataclass(frozen=True)
class BenchmarkReport:
    """Scores of learners on several targets.

    Args:
        facts: benchmark, budget, manifest's SHA-256, numbers of cells, seconds, packages that are not installed.
        domains: domain of each target.
        targets: what was found on each.
    """

    facts: Mapping[str, Json]
    domains: Mapping[str, str]
    targets: Mapping[str, Comparison] = field(repr=False)

    @property
    def _first(self) -> Comparison:
        return next(iter(self.targets.values()))

    @property
    def names(self) -> list[str]:
        """What was compared."""
        return [c.name for c in self._first.candidates]

    @cached_property
    def shots(self) -> tuple[int, ...]:
        """Sizes of support sets, rising."""
        return tuple(sorted({k for found in self.targets.values() for k in found.shots}))

    def mean(self, name: str, k: int) -> Estimate | None:
        """Mean over the targets; None where one lacks a score."""
        return mean_of([found.score(name, k) for found in self.targets.values()])

    def difference(self, name: str, k: int) -> Estimate | None:
        """Mean over the targets of the difference to the baseline, of the support sets that both have."""
        base = self._first.baseline.name
        return mean_of([found.difference(name, k, base) for found in self.targets.values()])

    def verdicts(self, k: int) -> dict[str, tuple[int, int, int]]:
        """On how many targets each learner is surely better, surely worse, and measured beside the baseline.

        P-values are corrected (Holm 1979) over all learners and targets of the size.
        """
        base = self._first.baseline.name
        found = {
            (name, target): d
            for target, mine in self.targets.items()
            for name in self.names
            if name != base and (d := mine.difference(name, k, base)) and d.p_value is not None
        }
        corrected = dict(zip(found, holm([float(d.p_value or 0) for d in found.values()]), strict=True))
        counts = {}
        for name in self.names:
            sure = [found[cell].mean for cell, p in corrected.items() if cell[0] == name and p < SURE]
            tried = sum(cell[0] == name for cell in found)
            counts[name] = (sum(m > 0 for m in sure), sum(m < 0 for m in sure), tried)
        return counts

    def worst(self, name: str, k: int) -> float | None:
        """The mean over the targets of the worst support set's score."""
        found = [mine.scores(name, k) for mine in self.targets.values()]
        return float(np.mean([min(scores) for scores in found])) if all(found) else None

    def best(self, k: int) -> str | None:
        """The highest mean over the targets."""
        means = {name: m.mean for name in self.names if (m := self.mean(name, k))}
        return max(means, key=lambda name: means[name]) if means else None

    @property
    def headline(self) -> str:
        """Which learner, by how much over the baseline, and how sure, at the largest size that all targets have."""
        k = next((k for k in reversed(self.shots) if self.best(k)), None)
        best = None if k is None else self.best(k)
        if k is None or best is None:
            return (
                f"No learner has a score on all {len(self.targets)} targets yet; run the same command again."
            )
        base, gain = self._first.baseline.name, self.difference(best, k)
        unit = " a label" * TASKS.get(self._first.facts["task"]).has_labels
        said = f"Best over {len(self.targets)} targets with {k} example{'s' * (k > 1)}{unit}: {best}"
        said += f", {self._first.facts['metric']} {self.mean(best, k)}."
        if best == base:
            return f"{said} No learner beats {base}."
        if gain is None or gain.half is None:
            return said
        better, worse, tried = self.verdicts(k)[best]
        return (
            f"{said} That is {gain.signed} over {base}; surely better on {better} and surely "
            f"worse on {worse} of {tried} targets (Holm)."
        )

    def table(self, k: int) -> list[list[str]]:
        """A row a learner at a size, with a head."""
        told = any(found.calibration(name, k) for found in self.targets.values() for name in self.names)
        error = ["calibration error"] * told
        head = ["learner", "mean", *self.targets, "better", "worse", "worst support", *error]
        head += ["adapt, s", "kB a task"]
        rows, verdicts = [head], self.verdicts(k)
        for name in self.names:
            scores = [found.score(name, k) for found in self.targets.values()]
            if not any(scores):
                why = sorted({w for found in self.targets.values() if (w := found.refused(name))})
                told_why = why[0] if why else "there was no time for it"
                rows.append([name, f"refused: {told_why}", *[""] * (len(head) - 2)])
                continue
            better, worse, _ = verdicts[name]
            lowest, costs = self.worst(name, k), [f.cost(name, k) for f in self.targets.values()]
            errors = [e["ece_15_bins"] for f in self.targets.values() if (e := f.calibration(name, k))]
            error = [f"{np.mean(errors):.3f}" if errors else ""] * told
            size = [
                f"{np.mean([c[what] for c in costs]) / per:.2f}"
                for what, per in (("seconds", 1), ("bytes", 1000))
            ]
            cells = [str(self.mean(name, k) or ""), *(str(s or "") for s in scores)]
            low = "" if lowest is None else f"{lowest:.3f}"
            rows.append([name, *cells, str(better), str(worse), low, *error, *size])
        return rows

    @property
    def protocol(self) -> str:
        """How it was measured, in a few sentences."""
        one, f = self._first, self.facts
        domains = ", ".join(f"{name} ({domain})" for name, domain in self.domains.items())
        absent = f" Left out, not installed: {', '.join(f['absent'])} ({INSTALL})." if f["absent"] else ""
        return (
            f"{one.facts['metric']} on {domains}: the same support sets and {one.facts['n_scored']} test rows of each "
            f"for all learners, seed {one.facts['seed']}; mean ± half of the 95 % interval over support sets and rows. "
            f"Budget {f['budget']}: {f['made']} of {f['cells']} cells are there. Manifest {f['manifest'][:16]}. "
            f"Better and worse count targets beside {one.baseline.name} with p below {SURE} after Holm's correction."
            + absent
        )

    def __str__(self) -> str:
        lines = [self.headline]
        for k in self.shots:
            lines += ["", f"{k} examples", *aligned(self.table(k))]
        return "\n".join([*lines, "", self.protocol])

    def to_markdown(self) -> str:
        """The report as Markdown."""
        lines = [f"# {self.facts['benchmark']}", "", self.headline]
        for k in self.shots:
            lines += ["", f"## {k} examples", "", *markdown(*self.table(k))]
        return "\n".join([*lines, "", self.protocol, "", EXAMPLES, ""])

    def write_markdown(self, path: str | Path) -> Path:
        """Writes the report as Markdown."""
        with atomic_write(user_path(path)) as part:
            part.write_text(self.to_markdown(), encoding="utf-8")
        return user_path(path)

    def to_json(self) -> dict[str, Any]:
        """Headline, facts, and each target's scores and costs."""
        found = {target: mine.to_json() for target, mine in self.targets.items() if mine.has_scores}
        return {"headline": self.headline, **self.facts, "domains": dict(self.domains), "targets": found}

    def write_page(self, path: str | Path) -> Path:
        """Writes one HTML file that needs no other file and no network."""
        sections = []
        for k in self.shots:
            scored = {name: m.mean for name in self.names if (m := self.mean(name, k))}
            seconds = [
                float(np.mean([f.cost(name, k)["seconds"] for f in self.targets.values()])) for name in scored
            ]
            table = [
                [s.mean if (s := f.score(name, k)) else np.nan for f in self.targets.values()]
                for name in self.names
            ]
            metric = str(self._first.facts["metric"])
            figures = [
                *drawn(heat_map, self.names, list(self.targets), table, "Learners by targets"),
                *drawn(quality_cost, list(scored), seconds, list(scored.values()), metric),
            ]
            sections.append(Section(f"{k} examples", self.table(k), self.best(k), figures))
        sections.append(Section("Protocol", notes=(self.protocol, EXAMPLES)))
        sections += [
            found.section(f"{target} ({self.domains[target]})")
            for target, found in self.targets.items()
            if found.has_scores
        ]
        return write_page(path, self.headline, sections)
