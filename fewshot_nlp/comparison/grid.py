"""Parts of a comparison as jobs of one pool, whatever plan they are from; and the score of the cell that they make."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from joblib import Parallel, delayed

from fewshot_nlp.comparison.cells import Candidate, Record, part_key, run_part, scored
from fewshot_nlp.comparison.plan import Drawn
from fewshot_nlp.comparison.pool import Where
from fewshot_nlp.comparison.results import Results
from fewshot_nlp.episode import Episode
from fewshot_nlp.progress import progress_bar
from fewshot_nlp.tasks import Task

Job = tuple[Candidate, Episode, str]
"""A candidate, what it is adapted to and scored on, and the part's key."""
Part = tuple[list[int], Job]
"""The rows that a job scores, and the job."""


@dataclass(frozen=True)
class Grid:
    """Makes parts where there is room, keeps each as it comes, and makes none twice."""

    results: Results
    n_jobs: int
    backend: Where
    progress: bool

    def jobs(self, plan: Drawn, candidate: Candidate, k: int, repeat: int) -> list[Part]:
        """The parts of a cell; K is 0 for a candidate without a support set, whose repeats are all the same."""
        candidate, found = candidate.at(repeat), plan.parts(k or plan.shots[0], repeat if k else 0)
        return [(rows, (candidate, episode, part_key(candidate, episode))) for rows, episode in found]

    def made(self, jobs: Iterable[Job], until: float = inf) -> Iterator[Record]:
        """Finished parts, kept as they come; those of before are not made again.

        Args:
            jobs: in the order of their importance.
            until: no part is begun after this time, by `time.perf_counter`.
        """
        todo = {job[2]: job for job in jobs}
        yield from (self.results.parts[key] for key in todo if key in self.results.parts)
        new = [job for key, job in todo.items() if key not in self.results.parts]
        with progress_bar(total=len(new), shown=None if self.progress else False, unit=" parts") as bar:
            for record in self.computed(new, until):
                self.results.add(record)
                bar.update()
                yield record

    def computed(self, jobs: Sequence[Job], until: float = inf) -> Iterator[Record]:
        """Parts as they are finished, in any order; nothing is kept."""
        many = len(jobs) if self.backend != "ray" else 4 * self.n_jobs  # Ray gives a batch's results together
        alone = self.backend == "loky" and len(jobs) < 2  # in this process, which has loaded the learners
        kind = "list" if self.backend == "ray" else "generator_unordered"
        with Parallel(n_jobs=1 if alone else None, return_as=kind) as made:  # Ray starts its processes once
            for start in range(0, len(jobs), max(1, many)):
                some = (j for j in jobs[start : start + many] if time.perf_counter() < until)
                yield from made(delayed(run_part)(*job) for job in some)

    def cells(
        self, plan: Drawn, candidates: Sequence[Candidate], task: Task, repeats: Iterable[int]
    ) -> list[Record]:
        """Scores of all candidates and sizes in some repeats."""
        grid = [(c, k) for c in candidates for k in (plan.shots if c.uses_support else (0,))]
        parts = {(c.name, k, r): self.jobs(plan, c, k, r) for r in repeats for c, k in grid}
        for _ in self.made(job for found in parts.values() for _, job in found):
            pass
        cells = (self.cell(plan, task, *cell, found) for cell, found in parts.items())
        return [cell for cell in cells if cell is not None]

    def cell(
        self, plan: Drawn, task: Task, name: str, k: int, repeat: int, found: Sequence[Part]
    ) -> Record | None:
        """The score of a cell, its cost, or why it was refused; None where a part of it was not made."""
        keys = [job[2] for _, job in found]
        if any(key not in self.results.parts for key in keys):
            return None
        records = [self.results.parts[key] for key in keys]
        why = next((r["refused"] for r in records if "refused" in r), None)
        if why is not None:
            return {"learner": name, "k_shot": k, "repeat": repeat, "refused": why}
        rows = {
            row: pair
            for (tested, _), r in zip(found, records, strict=True)
            for row, pair in zip(tested, zip(r["gold"], r["predicted"], strict=True), strict=True)
        }
        cost = {
            "seconds": [r["adapt"] for r in records],
            "milliseconds": 1000 * sum(r["predict"] for r in records) / len(rows),
            "bytes": max(r["bytes"] for r in records),
        }
        decided = {
            key: [value for r in records for value in r[key]]
            for key in ("gold", "predicted", "confidence")
            if all(key in r for r in records)
        }
        return scored(plan, task, name, k, repeat, rows) | cost | decided
