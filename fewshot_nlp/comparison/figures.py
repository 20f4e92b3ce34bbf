"""Figures of a page as SVG, by matplotlib; none where it is not installed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fewshot_nlp.errors import logger

if TYPE_CHECKING:
    from fewshot_nlp.comparison.report import Comparison

MOST_LABELS = 20
LONGEST = 60
"""Characters of a label's name."""
Drawing = Callable[..., str | None]
"""Draws into the axes that it gets first; its result is the figure's name, or None where there are no data."""


def drawn(drawing: Drawing, *data: Any, size: tuple[float, float] = (7, 4)) -> list[tuple[str, str]]:
    """A drawing's name and SVG; empty without data or without matplotlib, which is logged.

    Args:
        drawing: one of this module.
        data: what it draws.
        size: inches.
    """
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning('No figures without matplotlib: pip install "fewshot_nlp[plots]".')
        return []
    figure = Figure(figsize=size, layout="constrained")
    name = drawing(figure.add_subplot(), *data)
    if name is None:
        return []
    out = StringIO()
    FigureCanvasSVG(figure).print_svg(out)
    return [(name, out.getvalue()[out.getvalue().index("<svg") :])]


def learning_curve(axes: Any, found: "Comparison") -> str | None:
    """Score by examples, a line a learner, with intervals."""
    for c in found.candidates:
        points = [(k, s) for k in found.shots if (s := found.score(c.name, k)) is not None]
        if points:
            axes.errorbar(
                [k for k, _ in points],
                [s.mean for _, s in points],
                yerr=[s.half or 0.0 for _, s in points],
                fmt="o--" if c == found.baseline or c.kind != "learner" else "o-",
                capsize=3,
                label=c.name,
            )
    axes.set(xlabel="examples", ylabel=str(found.facts["metric"]), xscale="log")
    axes.set_xticks(found.shots, [str(k) for k in found.shots])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return "Learning curve"


def heat_map(
    axes: Any, rows: Sequence[str], columns: Sequence[str], values: ArrayLike, name: str
) -> str | None:
    """A table in colours, with its numbers; NaN stays empty."""
    table = np.asarray(values, float)
    if not np.isfinite(table).any():
        return None
    axes.imshow(table, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    digits = ".0f" if high > 1 else ".2f"
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            color = "white" if value < (low + high) / 2 else "black"
            axes.text(j, i, f"{value:{digits}}", ha="center", va="center", color=color, fontsize=8)
    return name


def quality_cost(
    axes: Any, names: Sequence[str], seconds: ArrayLike, scores: ArrayLike, metric: str
) -> str | None:
    """Score by seconds to adapt; a line joins those that no other beats in both."""
    x, y = np.maximum(np.asarray(seconds, float), 1e-3), np.asarray(scores, float)
    if len(x) < 2:
        return None
    axes.scatter(x, y)
    for name, at, score in zip(names, x, y, strict=True):
        axes.annotate(name, (at, score), textcoords="offset points", xytext=(5, 4), fontsize=8)
    front = [i for i in np.argsort(x, kind="stable") if not ((x <= x[i]) & (y > y[i])).any()]
    axes.plot(x[front], y[front], "--", linewidth=1)
    axes.set(xscale="log", xlabel="seconds to adapt", ylabel=metric)
    axes.margins(x=0.25)
    return "Quality and cost"


def reliability(axes: Any, found: Mapping[str, tuple[Any, Any]]) -> str | None:
    """Share that is right by confidence in ten bins, a line a learner; on the diagonal confidences are true.

    Args:
        axes: to draw into.
        found: confidences and whether each was right, by name; bins with fewer than five decisions are left out.
    """
    for name, (sure, right) in found.items():
        bins = np.minimum((sure * 10).astype(int), 9)
        count, total, hits = (np.bincount(bins, w, 10) for w in (None, sure, right))
        many = count >= 5
        axes.plot(total[many] / count[many], hits[many] / count[many], "o-", label=name)
    if not found:
        return None
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    return "Reliability"


def confusion(axes: Any, pairs: Sequence[tuple[Any, Any]], name: str) -> str | None:
    """Gold by predicted labels, in shares of the gold label's rows; the commonest labels where there are many."""
    gold = Counter(str(g) for g, _ in pairs)
    labels = sorted(label for label, _ in gold.most_common(MOST_LABELS))
    if len(labels) < 2 or any(isinstance(p, list | dict) for _, p in pairs):
        return None
    if max(map(len, labels)) > LONGEST:  # texts, not labels
        return None
    counts = Counter((str(g), str(p)) for g, p in pairs)
    table = [[counts[g, p] / gold[g] for p in labels] for g in labels]
    heat_map(axes, labels, labels, table, "")
    axes.set(xlabel=f"predicted by {name}", ylabel="gold")
    return "Confusion"
