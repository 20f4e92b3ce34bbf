"""How much of a comparison fits into a time, from the seconds that one part of each learner took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.plan import HELD_OUT, Plan

LEAST_SCORED = 10
LEAST_REPEATS = 3
"""Fewer support sets have no useful interval."""
EFFICIENCY = 0.8
"""Share of their number by which several processes are faster than one."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a learner.

    Args:
        adapt: to adapt once, by size. Other sizes are on the line through the smallest and the largest of them; where
            there is one, the time grows as the root of the size.
        text: to predict one row.
    """

    adapt: Mapping[int, float]
    text: float

    def of(self, k: int) -> float:
        """Seconds to adapt once to a support set of size K."""
        (k1, s1), (k2, s2) = min(self.adapt.items()), max(self.adapt.items())
        if k1 == k2:
            return s1 * float(max(1.0, k / k1) ** 0.5)
        return max(0.0, s1 + (s2 - s1) * (k - k1) / (k2 - k1))


def seconds_of(plan: Plan, candidates: Sequence[Candidate], costs: Mapping[str, Cost], n_jobs: int) -> float:
    """Seconds of one repeat.

    Args:
        plan: the plan.
        candidates: those that use a support set count; the others are predicted once, whatever the repeats.
        costs: of each by name; a name that is missing costs nothing.
        n_jobs: processes.
    """
    mine = [costs[c.name] for c in candidates if c.name in costs]
    folds = [1 if plan.held_out else n for n in plan.n_folds]
    adapting = sum(n * cost.of(k) for k, n in zip(plan.shots, folds, strict=True) for cost in mine)
    total = adapting + len(plan.shots) * len(plan.tested) * sum(cost.text for cost in mine)
    return total / (1 if n_jobs == 1 else EFFICIENCY * n_jobs)


def fitting(
    plan: Plan,
    candidates: Sequence[Candidate],
    costs: Mapping[str, Cost],
    n_jobs: int,
    left: float,
    budget: float,
    reused: float = 0.0,
    most: int = HELD_OUT,
) -> Plan:
    """The largest of the plan and its `Plan.cheaper` ones of which three repeats fit into the time that is left.

    Its notes say what was left out, and why. Where none fits it is the cheapest.

    Args:
        plan: what was asked for.
        candidates: what is compared.
        costs: as for `seconds_of`.
        n_jobs: processes.
        left: seconds.
        budget: seconds that were allowed in all, for the note.
        most: rows that are scored at most where one fold alone is.
        reused: seconds that went into parts which plans that hold one half out need anyway.
    """

    def least(p: Plan) -> float:
        return LEAST_REPEATS * seconds_of(p, candidates, costs, n_jobs)

    options = [plan, *plan.cheaper(most)]
    chosen = next((p for p in options if least(p) <= left + reused * p.held_out), min(options, key=least))
    return replace(chosen, notes=(*chosen.notes, *_told(plan, chosen, least(plan), left, budget)))


def rows_in_time(seconds: float, budget: float) -> int:
    """Rows that are scored where one half is held out: as many as take 40 % of the budget at two sizes, 10 to 30.

    Args:
        seconds: to predict one row by all candidates.
        budget: seconds in all.
    """
    many = 0.4 * budget / max(2 * LEAST_REPEATS * seconds, 1e-9)
    return int(min(HELD_OUT, max(LEAST_SCORED, many)))


def _told(plan: Plan, chosen: Plan, seconds: float, left: float, budget: float) -> list[str]:
    done = []
    gone = [str(k) for k in plan.shots if k not in chosen.shots]
    if gone:
        done.append(f"{', '.join(gone)} examples were left out")
    if chosen.held_out and not plan.held_out:
        done.append(f"only {len(chosen.tested)} rows, of one half, are scored")
    if not done:
        return []
    why = f"{LEAST_REPEATS} repeats of all would take about {seconds:.0f} s"
    text = f"{' and '.join(done)}: {why}, and {max(0, left):.0f} of {budget:.0f} s are left."
    return [text[0].upper() + text[1:]]
