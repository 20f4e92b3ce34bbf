"""Whether predictions hold when texts change as they do in life, and whether groups of people are served alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_nlp.comparison.cells import Candidate, Record, part_key, scored
from fewshot_nlp.comparison.grid import Grid
from fewshot_nlp.comparison.mistakes import input_of, row_of
from fewshot_nlp.comparison.own_rows import own_rows
from fewshot_nlp.comparison.page import Section, aligned, write_page
from fewshot_nlp.comparison.perturbations import GROUPS, NOISES, changed
from fewshot_nlp.comparison.plan import Plan, make_plan
from fewshot_nlp.comparison.pool import pool
from fewshot_nlp.comparison.results import Results
from fewshot_nlp.comparison.statistics import Estimate, estimate
from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import joined
from fewshot_nlp.sources import read_rows
from fewshot_nlp.tasks import Task

AS_IT_IS = "as it is"
LEAST = 10
"""Rows of a group, or with a change, from which its score is told."""


@dataclass(frozen=True)
class Robustness:
    """Scores by change and by group.

    Args:
        learner: its name.
        metric: the task's.
        base: of the texts as they are.
        noises: score, difference to the same texts as they are, and share of texts that changed, by kind of change.
        names: scores of the texts with first names, when these are of a group.
        groups: scores of the rows by value of the user's column.
        gaps: of names and of groups, the largest difference, with the two that it is between.
        notes: warnings.
    """

    learner: str
    metric: str
    base: Estimate
    noises: Mapping[str, tuple[Estimate, Estimate, float]]
    names: Mapping[str, Estimate] = field(default_factory=dict)
    groups: Mapping[str, Estimate] = field(default_factory=dict)
    gaps: Mapping[str, tuple[str, str, Estimate]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def headline(self) -> str:
        """The score, the change that costs most, and the largest gaps."""
        said = f"{self.learner}: {self.metric} {self.base}."
        if self.noises:
            worst = min(self.noises, key=lambda name: self.noises[name][1].mean)
            said += f" Texts in {worst} cost most: {self.noises[worst][1].signed}."
        for what, (most, least, gap) in self.gaps.items():
            sure = gap.half is not None and gap.mean > gap.half
            chance = "" if sure else ", which may be chance"
            said += f" Largest gap of {what}: {most} over {least}, {gap.signed}{chance}."
        return said

    def tables(self) -> dict[str, list[list[str]]]:
        """Rows with a head, by title."""
        noises = [
            [n, str(score), diff.signed, f"{share:.0%}"] for n, (score, diff, share) in self.noises.items()
        ]
        found = {"Changed texts": [["change", self.metric, "difference", "texts changed"], *noises]}
        for title, scores in (("Names", self.names), ("Groups", self.groups)):
            if scores:
                found[title] = [
                    ["group", self.metric],
                    *([name, str(score)] for name, score in scores.items()),
                ]
        return found

    def __str__(self) -> str:
        lines = [self.headline]
        for title, table in self.tables().items():
            lines += ["", title, *aligned(table)]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Headline, scores, gaps and notes."""
        noises = {
            n: {"score": s.mean, "difference": d.mean, "half": d.half} for n, (s, d, _) in self.noises.items()
        }
        means = {
            title: {n: e.mean for n, e in d.items()}
            for title, d in (("names", self.names), ("groups", self.groups))
        }
        gaps = {
            what: {"between": [a, b], "gap": g.mean, "half": g.half} for what, (a, b, g) in self.gaps.items()
        }
        return {"headline": self.headline, "noises": noises, **means, "gaps": gaps, "notes": list(self.notes)}

    def write_page(self, path: str | Path) -> Path:
        """Writes one HTML file."""
        sections = [Section(title, table) for title, table in self.tables().items()]
        return write_page(path, self.headline, [*sections, Section("Notes", notes=self.notes)])


def robustness(
    rows: Any,
    *,
    task: str,
    learner: str | None = None,
    learner_config: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
    encoder: str | None = None,
    k_shot: int = 5,
    repeats: int = 3,
    max_scored: int = 100,
    by: str | None = None,
    column_mapping: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Robustness:
    """Adapts to support sets of the rows as they are, and predicts others as they are and changed.

    Args:
        rows: as for `evaluate`, with whose arguments the others are named alike.
        task: name of the task.
        learner: None for the task's default.
        learner_config: its settings.
        task_config: the task's options.
        encoder: as for `evaluate`.
        k_shot: size of the support sets.
        repeats: support sets for each row; at least 2.
        max_scored: rows at most.
        by: a column of groups (a dialect, a speaker's gender) by whose values scores are told.
        column_mapping: as for `evaluate`.
        seed: of all draws.

    Raises:
        FewShotError: as `evaluate`, or the learner refuses the rows.
    """
    given = read_rows(rows, task, column_mapping)
    if by is not None and any(by not in row for row in given):
        raise FewShotError(f"Not every row has the column {by!r}, by which scores are wanted.")
    candidate = Candidate.of(task, learner, learner_config, task_config, encoder)
    reader = candidate.pipeline().task
    dataset, _ = own_rows(reader, given, None)
    reader.check_labels(dataset.label_names)
    plan = make_plan(dataset, [k_shot], max_scored, seed)
    values = {} if by is None else {key: str(row[by]) for key, row in row_of(reader, given).items()}
    groups = [values[input_of(reader, e)] for e in dataset.examples] if by else []
    return _Runner(candidate, reader, plan, k_shot, groups).run(repeats)


@dataclass(frozen=True)
class _Runner:
    candidate: Candidate
    task: Task
    plan: Plan
    k: int
    groups: Sequence[str]

    def run(self, repeats: int) -> Robustness:
        variants = {AS_IT_IS: None, **NOISES, **GROUPS}
        moved: dict[str, set[int]] = {name: set() for name in variants}
        records: dict[str, list[dict[int, Any]]] = {name: [{} for _ in range(repeats)] for name in variants}
        notes = set[str]()
        with pool("loky", 1) as number:
            grid = Grid(Results(None, {}), number, "loky", progress=True)
            for repeat in range(repeats):
                for tested, episode in self.plan.parts(self.k, repeat):
                    notes |= self._lacking(episode)
                    query = []
                    for name, change in variants.items():
                        new = [
                            e if change is None else changed(e, change, row)
                            for row, e in zip(tested, episode.query, strict=True)
                        ]
                        moved[name] |= {
                            r for r, a, b in zip(tested, new, episode.query, strict=True) if a != b
                        }
                        query += new
                    long = replace(episode, query=tuple(query))
                    [record] = grid.made([(self.candidate, long, part_key(self.candidate, long))])
                    if "refused" in record:
                        raise FewShotError(f"{self.candidate.name} could not be adapted: {record['refused']}")
                    pairs = list(zip(record["gold"], record["predicted"], strict=True))
                    for i, name in enumerate(variants):
                        mine = pairs[i * len(tested) : (i + 1) * len(tested)]
                        records[name][repeat] |= dict(zip(tested, mine, strict=True))
        return self._report(records, moved, sorted(notes))

    def _lacking(self, episode: Episode) -> set[str]:
        """Warnings on labels and groups that a support set does not have."""
        here = (
            {label for e in episode.support for label in self.task.labels_of(e)}
            if self.task.has_labels
            else set()
        )
        gone = [label for label in self.plan.labels if label not in here]
        found = {f"A support set has no row of: {joined(gone)}."} if gone else set[str]()
        if self.groups:
            place = {id(e): i for i, e in enumerate(self.plan.dataset.examples)}
            seen = {self.groups[place[id(e)]] for e in episode.support}
            left = sorted(set(self.groups) - seen)
            found |= {f"A support set has no row of the group: {joined(left)}."} if left else set()
        return found

    def _scores(self, records: Sequence[Mapping[int, Any]], rows: Sequence[int]) -> list[Record]:
        part = replace(self.plan, tested=tuple(rows))
        return [scored(part, self.task, "", self.k, r, mine) for r, mine in enumerate(records)]

    def _report(
        self, records: Mapping[str, list[dict[int, Any]]], moved: Mapping[str, set[int]], notes: list[str]
    ) -> Robustness:
        every = self.plan.tested
        base = self._scores(records[AS_IT_IS], every)
        noises = {}
        for name in NOISES:
            rows = sorted(moved[name])
            if len(rows) >= LEAST:
                mine, same = self._scores(records[name], rows), self._scores(records[AS_IT_IS], rows)
                noises[name] = (_mean(mine), _mean(mine, same), len(rows) / len(every))
            else:
                notes.append(f"{name}: {len(rows)} of {len(every)} texts change, too few to tell.")
        gaps: dict[str, tuple[str, str, Estimate]] = {}
        named = sorted(set().union(*(moved[group] for group in GROUPS)))
        names: dict[str, list[Record]] = {}
        if len(named) >= LEAST:
            names = {group: self._scores(records[group], named) for group in GROUPS}
            gaps["names"] = _gap(names)
        else:
            notes.append(
                f"names: {len(named)} of {len(every)} texts have a known first name, too few to tell."
            )
        groups: dict[str, list[Record]] = {}
        for value in sorted(set(self.groups)):
            rows = [row for row in every if self.groups[row] == value]
            if len(rows) >= LEAST:
                groups[value] = self._scores(records[AS_IT_IS], rows)
            else:
                notes.append(f"{value}: {len(rows)} scored rows, too few to tell.")
        if len(groups) > 1:
            gaps["groups"] = _gap(groups, paired=False)
        by_name, by_group = ({name: _mean(found) for name, found in part.items()} for part in (names, groups))
        learner, metric = self.candidate.name, self.task.primary_metric
        return Robustness(learner, metric, _mean(base), noises, by_name, by_group, gaps, tuple(notes))


def _mean(found: Sequence[Record], less: Sequence[Record] | None = None) -> Estimate:
    """Mean over repeats, or of differences on the same rows."""
    values = np.array([r["score"] for r in found])
    without = np.array([r["without"] for r in found])
    if less is not None:
        values = values - [r["score"] for r in less]
        without = without - np.array([r["without"] for r in less])
    return estimate(values, without)


def _gap(found: Mapping[str, Sequence[Record]], paired: bool = True) -> tuple[str, str, Estimate]:
    """The groups of the highest and the lowest mean, and their difference; of other rows its halves add in squares."""
    means = {name: _mean(records) for name, records in found.items()}
    most, least = (pick(means, key=lambda name: means[name].mean) for pick in (max, min))
    if paired:
        return most, least, _mean(found[most], found[least])
    a, b = means[most], means[least]
    half = None if a.half is None or b.half is None else float(np.hypot(a.half, b.half))
    return most, least, Estimate(a.mean - b.mean, half, None, a.n)
