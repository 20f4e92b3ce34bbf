"""What a learner gets wrong on labelled rows: causes, which texts and labels suffer, and the worst support sets.

Rows are predicted as `fewshot_nlp.comparison.evaluate` does: each by a model adapted to a support set of others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.grid import Grid
from fewshot_nlp.comparison.own_rows import own_rows
from fewshot_nlp.comparison.page import Marked, Section, aligned, write_page
from fewshot_nlp.comparison.plan import make_plan
from fewshot_nlp.comparison.pool import pool
from fewshot_nlp.comparison.results import Results
from fewshot_nlp.comparison.statistics import Estimate
from fewshot_nlp.episode import Episode, Example, Json, canonical_json, write_episodes
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.sources import read_rows, write_rows
from fewshot_nlp.tasks import Task
from fewshot_nlp.training.leakage import words_of

SHOWN = 12
"""Texts on a page."""


@dataclass(frozen=True)
class Scored:
    """A row's prediction in one repeat.

    Args:
        example: the row, with its gold target.
        predicted: target.
        mistakes: of `Task.mistakes`.
        score: of the row alone, by the task's metric.
        traits: its length in words, the share of its words that the support set has, and, where there are labels, how
            many rows its rarest label has in the support set.
        episode: its number.
    """

    example: Example
    predicted: Json
    mistakes: Sequence[tuple[str, str]]
    score: float
    traits: Mapping[str, float]
    episode: int


@dataclass(frozen=True)
class Mistakes:
    """What was found.

    Args:
        task: the rows' task.
        learner: its name.
        scored: each row in each repeat.
        episodes: what the learner was adapted to and scored on.
        rows: the user's row of each input.
    """

    task: Task
    learner: str
    scored: Sequence[Scored] = field(repr=False)
    episodes: Sequence[Episode] = field(repr=False)
    rows: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def causes(self) -> list[tuple[str, int]]:
        """Kinds of mistakes with their number, the commonest first."""
        return Counter(kind for s in self.scored for kind, _ in s.mistakes).most_common()

    @property
    def about(self) -> list[tuple[str, str, int]]:
        """Kind, what it is about, and number, the commonest first."""
        found = Counter(pair for s in self.scored for pair in s.mistakes)
        return [(kind, what, n) for (kind, what), n in found.most_common()]

    def groups(self) -> list[tuple[str, str, int, float, float | None]]:
        """Trait, its range, number of predictions, mean score and half of its interval, for each third of a trait."""
        found = []
        for trait in self.scored[0].traits:
            values = np.array([s.traits[trait] for s in self.scored])
            scores = np.array([s.score for s in self.scored])
            edges = np.unique(np.quantile(values, [1 / 3, 2 / 3]))
            place = np.searchsorted(edges, values, side="left")
            for third in np.unique(place):
                mine = values[place == third]
                mean, half = mean_and_interval(scores[place == third])
                span = f"{mine.min():.3g}" + (f" to {mine.max():.3g}" if mine.max() > mine.min() else "")
                found.append((trait, span, len(mine), mean, half))
        return found

    def worst(self, n: int = 5) -> list[tuple[float, Episode]]:
        """The episodes of the lowest scores, with them."""
        scores = [
            float(np.mean([s.score for s in self.scored if s.episode == i]))
            for i in range(len(self.episodes))
        ]
        order = sorted(range(len(scores)), key=scores.__getitem__)[:n]
        return [(scores[i], self.episodes[i]) for i in order]

    def write_worst(self, path: str | Path, n: int = 5) -> int:
        """Writes the rows of the worst episodes, supports included, as a source of hard tasks; returns their number.

        `fewshot-nlp train --sources` takes the file. The episodes themselves stand beside it, as
        `fewshot-nlp evaluate --episodes_file` takes them.
        """
        found = [episode for _, episode in self.worst(n)]
        examples = {
            input_of(self.task, e): e for episode in found for e in (*episode.support, *episode.query)
        }
        write_rows(path, [self.rows[key] for key in examples if key in self.rows])
        write_episodes(Path(path).with_suffix(".episodes.jsonl"), found)
        return len(examples)

    @property
    def headline(self) -> str:
        """How many predictions are wrong, and the commonest causes."""
        wrong = sum(bool(s.mistakes) for s in self.scored)
        causes = ", ".join(f"{kind} {n}" for kind, n in self.causes[:5])
        told = f"{wrong} of {len(self.scored)} predictions have mistakes"
        return f"{self.learner}: {told}{': ' * bool(causes)}{causes}."

    def tables(self) -> list[list[list[str]]]:
        """Causes, what they are about, and scores by group; each with a head."""
        total = max(1, sum(n for _, n in self.causes))
        return [
            [["cause", "number", "share"], *([kind, str(n), f"{n / total:.0%}"] for kind, n in self.causes)],
            [["cause", "of", "number"], *([kind, what, str(n)] for kind, what, n in self.about[:SHOWN])],
            [
                ["trait", "from", "predictions", self.task.primary_metric],
                *(
                    [trait, span, str(n), str(Estimate(mean, half, None, n))]
                    for trait, span, n, mean, half in self.groups()
                ),
            ],
        ]

    def __str__(self) -> str:
        lines = [self.headline]
        for table in self.tables():
            lines += ["", *aligned(table)]
        worst = [f"{score:.3f} with the support set of {e.episode_id}" for score, e in self.worst(3)]
        return "\n".join([*lines, "", "worst: " + "; ".join(worst)])

    def to_json(self) -> dict[str, Any]:
        """Headline, causes and groups."""
        groups = [
            dict(zip(("trait", "range", "n", "mean", "half"), group, strict=True)) for group in self.groups()
        ]
        return {
            "headline": self.headline,
            "causes": dict(self.causes),
            "about": [list(found) for found in self.about],
            "groups": groups,
        }

    def write_page(self, path: str | Path) -> Path:
        """Writes one HTML file, with the texts that went worst."""
        causes, about, groups = self.tables()
        wrong = sorted((s for s in self.scored if s.mistakes), key=lambda s: s.score)
        texts = [marked(self.task, s) for s in {canonical_json(s.example.inputs): s for s in wrong}.values()]
        sections = [Section("", causes), Section("Of what", about), Section("Which texts", groups)]
        return write_page(path, self.headline, [*sections, Section("Texts", texts=texts[:SHOWN])])


def marked(task: Task, scored: Scored) -> Marked:
    """A text in pieces: what was right, what was invented or is wrong, and what was missed."""
    text, gold, note = task.highlights(scored.example)
    _, predicted, _ = task.highlights(Example(scored.example.inputs, scored.predicted))
    marks = [(a, b, "right", told) for a, b, told in predicted if (a, b, told) in gold]
    marks += [(a, b, "wrong", told) for a, b, told in predicted if (a, b, told) not in gold]
    marks += [(a, b, "missed", told) for a, b, told in gold if (a, b, told) not in predicted]
    pieces: list[tuple[str, str, str]] = []
    at = 0
    for a, b, kind, told in sorted(marks):
        a = max(a, at)  # an overlap is shown once
        if a < b:
            pieces += [(text[at:a], "", ""), (text[a:b], kind, told)]
            at = b
    pieces.append((text[at:], "", ""))
    if not marks:
        said = "; ".join(" ".join(pair) for pair in scored.mistakes)
        pieces.append((f" {note} " if note else " ", "wrong", said))
    return pieces


def find_mistakes(
    rows: Any,
    *,
    task: str,
    learner: str | None = None,
    learner_config: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
    encoder: str | None = None,
    k_shot: int = 5,
    repeats: int = 3,
    max_scored: int = 200,
    group_column: str | None = None,
    column_mapping: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Mistakes:
    """Predicts labelled rows by models adapted to others, and says what goes wrong; arguments as for `evaluate`.

    Raises:
        FewShotError: as `evaluate`, or the learner refuses the rows.
    """
    given = read_rows(rows, task, column_mapping)
    candidate = Candidate.of(task, learner, learner_config, task_config, encoder)
    reader = candidate.pipeline().task
    dataset, _ = own_rows(reader, given, group_column)
    reader.check_labels(dataset.label_names)
    plan = make_plan(dataset, [k_shot], max_scored, seed)
    found: list[Scored] = []
    episodes: list[Episode] = []
    with pool("loky", 1) as number:
        grid = Grid(Results(None, {}), number, "loky", progress=True)
        parts = [part for r in range(repeats) for part in grid.jobs(plan, candidate, k_shot, r)]
        for _ in grid.made(job for _, job in parts):
            pass
    for _, (_, episode, key) in parts:
        record = grid.results.parts[key]
        if "refused" in record:
            raise FewShotError(f"{candidate.name} could not be adapted: {record['refused']}")
        found += _scored(reader, episode, record, len(episodes))
        episodes.append(episode)
    return Mistakes(reader, candidate.name, found, episodes, row_of(reader, given))


def input_of(task: Task, example: Example) -> str:
    """What tells an input from others."""
    return canonical_json(task.asked(example).inputs)


def row_of(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows by their input; the first of those with the same."""
    found: dict[str, Mapping[str, Any]] = {}
    for example, row in zip(task.examples(rows), rows, strict=True):
        found.setdefault(input_of(task, example), row)
    return found


def _scored(task: Task, episode: Episode, record: Mapping[str, Json], number: int) -> list[Scored]:
    known = {word for e in episode.support for words in words_of(e) for word in words}
    seen = Counter(label for e in episode.support for label in task.labels_of(e)) if task.has_labels else {}
    found = []
    for example, gold, predicted in zip(episode.query, record["gold"], record["predicted"], strict=True):
        words = [word for text in words_of(example) for word in text]
        traits: dict[str, float] = {
            "words": float(len(words)),
            "share of words in the support set": sum(w in known for w in words) / max(1, len(words)),
        }
        if task.has_labels:
            labels = task.labels_of(example)
            traits["support rows of its rarest label"] = float(min((seen[x] for x in labels), default=0))
        score = task.metrics([gold], [predicted], episode.label_names)[task.primary_metric]
        made = Example(example.inputs, gold)
        found.append(Scored(made, predicted, task.mistakes(gold, predicted), score, traits, number))
    return found
