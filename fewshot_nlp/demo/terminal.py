"""The demonstration in the terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fewshot_nlp.demo.measure import DomainResult
from fewshot_nlp.demo.section import ADAPTED, Section, Shown

STYLES = ("bold cyan", "bold magenta", "bold green", "bold yellow", "bold blue", "bold red", "bold white")
WIDTH = 104


class Terminal:
    """Prints results as they come; in a pipe without colours, with the same words."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        self._console = console if console.width <= WIDTH else Console(highlight=False, width=WIDTH)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what is being done, while it is."""
        with self._console.status(f"[dim]{what}[/dim]", spinner="dots"):
            yield

    def title(self) -> None:
        """The opening line."""
        self._console.print(
            Text("fewshot_nlp: four tasks in three domains, from a few examples each", "bold")
        )

    def section(self, section: Section) -> None:
        """A task's heading."""
        self._console.print()
        self._console.print(Rule(Text(section.title, "bold"), align="left", style="dim"))
        self._console.print(Text(f"support set: {section.support}; new inputs, not from the corpus:", "dim"))

    def domain(self, result: DomainResult) -> None:
        """Predictions for the new inputs of a domain."""
        head = Text(f"\n{result.domain}", "bold")
        head.append(f"  {result.n_support} rows, adapted in {result.seconds:.2f} s", "dim")
        self._console.print(head)
        for shown in result.shown:
            self._console.print(Padding(_rendered(shown, result.labels), (0, 0, 0, 2)))

    def scores(self, section: Section, results: Sequence[DomainResult]) -> None:
        """The table of held-out scores."""
        first = results[0]
        table = Table(
            title_justify="left", title_style="bold", box=None, padding=(0, 3, 0, 0), header_style="dim"
        )
        table.title = f"\n{section.title}: {first.metric} on held-out rows"
        table.add_column("method")
        for result in results:
            table.add_column(result.domain, justify="right")
        for method in first.scores:
            name = f"{method} ({first.learner})" if method == ADAPTED else method
            cells = [
                Text(
                    f"{r.scores[method].mean:.3f} ± {r.scores[method].half:.3f}",
                    "bold" if best(r, method) else "",
                )
                for r in results
            ]
            table.add_row(name, *cells)
        table.add_row("held-out rows", *map(held_out_rows, results), style="dim")
        self._console.print(table)
        self._console.print(Text(gain(section, results)))
        self._console.print(Text(footnote(section, first), "dim"))

    def end(self, page: Path, seconds: float) -> None:
        """Where the page is."""
        self._console.print(f"\n{seconds:.0f} s. The same as a page: {page}", soft_wrap=True)


def held_out_rows(result: DomainResult) -> str:
    """Number of scored rows, a range where the seeds differ."""
    low, high = result.n_rows
    return str(low) if low == high else f"{low} to {high}"


def best(result: DomainResult, method: str) -> bool:
    """Whether no other method has a higher mean."""
    return result.scores[method].mean == max(score.mean for score in result.scores.values())


def gain(section: Section, results: Sequence[DomainResult]) -> str:
    """What adapting gained over the domains; nothing where another encoder has no scores without it."""
    if section.before not in results[0].scores:
        return ""
    each = [r.scores[ADAPTED].mean - r.scores[section.before].mean for r in results]
    mean = sum(each) / len(each)
    return (
        f"Adapting {'gained' if mean > 0 else 'lost' if mean < 0 else 'changed'} {abs(mean):.3f} {results[0].metric} "
        f'beside "{section.before}" in the mean of the domains, {min(each):+.3f} in the worst.'
    )


def footnote(section: Section, result: DomainResult) -> str:
    """What the scores are."""
    first, last = result.seeds[0], result.seeds[-1]
    return (
        f"Mean ± half of its 95 % interval (Student's t) over {len(result.seeds)} support sets (seeds "
        f"{first} to {last}), each scored on every row outside it. The interval tells how much the choice "
        f"of support rows matters, on these small corpora written for this package. {section.note}"
    )


def _rendered(shown: Shown, labels: Sequence[str]) -> Text:
    text = Text()
    if shown.question:
        text.append(f"{shown.question}\n", "italic")
    for piece in shown.pieces:
        if piece.tag is None:
            text.append(piece.text)
            continue
        style = STYLES[labels.index(piece.tag) % len(STYLES)]
        text.append("[", "dim").append(piece.text, style).append(f" {piece.tag}", style.removeprefix("bold "))
        text.append(f" {piece.score:.2f}]" if piece.score is not None else "]", "dim")
    for rank, (answer, score) in enumerate(shown.answers):
        text.append("\n  → " if rank == 0 else ", then ", "dim")
        text.append(answer, "bold" if rank == 0 else "dim")
        text.append("" if score is None else f" {score:.2f}", "dim")
    return text
