"""The demonstration in the terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from fewshot_nlp.comparison.page import Marked, aligned
from fewshot_nlp.demo.measure import DomainResult, gain
from fewshot_nlp.demo.section import DemoTask

STYLES = ("bold cyan", "bold magenta", "bold green", "bold yellow", "bold blue", "bold red", "bold white")
"""Of marks, by their colour on the page."""
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

    def title(self, text: str) -> None:
        """The opening line."""
        self._console.print(Text(text, "bold"))

    def task(self, task: DemoTask) -> None:
        """A task's heading."""
        self._console.print()
        self._console.print(Rule(Text(task.title, "bold"), align="left", style="dim"))
        self._console.print(Text(f"support set: {task.support}; new inputs, not from the corpus:", "dim"))

    def domain(self, result: DomainResult) -> None:
        """Predictions for the new inputs of a domain, and the table of scores, the best in bold."""
        head = Text(f"\n{result.domain}", "bold")
        head.append(f"  {result.n_support} rows, adapted in {result.seconds:.2f} s", "dim")
        self._console.print(head)
        for text in result.shown:
            self._console.print(Padding(_rendered(text), (0, 0, 0, 2)))
        best = result.comparison.best.name
        for line in aligned(result.comparison.table()):
            self._console.print(Text(line, "bold" if line.startswith(f"{best}  ") else ""), soft_wrap=True)

    def gain(self, task: DemoTask, results: Sequence[DomainResult]) -> None:
        """What adapting gained, and how the scores were made."""
        self._console.print(Text(f"\n{gain(results)}"))
        self._console.print(Text(f"{results[0].comparison.protocol} {task.note}", "dim"))

    def end(self, page: Path, seconds: float) -> None:
        """Where the page is."""
        self._console.print(f"\n{seconds:.0f} s. The same as a page: {page}", soft_wrap=True)


def _rendered(pieces: Marked) -> Text:
    text = Text()
    for words, kind, told in pieces:
        if not kind:
            text.append(words)
            continue
        style = STYLES[int(kind.removeprefix("c"))]
        text.append("[", "dim").append(words, style).append(f" {told}]", "dim")
    return text
