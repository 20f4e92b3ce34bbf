"""The demonstration: three domains from a few examples each, shown in the terminal and on a page.

Every number is computed in the run. A further task is one more entry in `TASKS_SHOWN`.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from joblib import Parallel, delayed

from fewshot_nlp.comparison.page import Section, write_page
from fewshot_nlp.comparison.pool import pool
from fewshot_nlp.demo.classification import CLASSIFICATION
from fewshot_nlp.demo.measure import DomainResult, gain, run_domain
from fewshot_nlp.demo.ner import NER
from fewshot_nlp.demo.question_answering import QUESTION_ANSWERING
from fewshot_nlp.demo.section import DOMAINS, DemoTask
from fewshot_nlp.demo.terminal import Terminal
from fewshot_nlp.demo.translation import TRANSLATION

TASKS_SHOWN: tuple[DemoTask, ...] = (CLASSIFICATION, NER, QUESTION_ANSWERING, TRANSLATION)
TITLE = "fewshot_nlp: four tasks in three domains, from a few examples each"
CORPORA = (
    "The corpora are small and were written for this package. All texts are invented; no person, company or case in "
    "them is real. For rows of your own: fewshot-nlp adapt --task ner --data rows.jsonl --out my-model."
)

__all__ = ["TASKS_SHOWN", "run_demo"]


def run_demo(
    out: Path,
    seed: int = 0,
    *,
    tasks: Sequence[DemoTask] = TASKS_SHOWN,
    domains: Sequence[str] = DOMAINS,
    encoder: str | None = None,
    repeats: int | None = None,
    n_jobs: int = 1,
) -> Path:
    """Adapts, predicts and measures, prints the results, and writes them to ``out/index.html``.

    Args:
        out: folder for the page; it is made.
        seed: of the support sets.
        tasks: what to show.
        domains: domains to show.
        encoder: folder or Hub name; None for what ships.
        repeats: support sets that are scored; None for each task's own number.
        n_jobs: processes; each works on one task in one domain.

    Returns:
        The page.
    """
    terminal = Terminal()
    begin = time.perf_counter()
    results: dict[DemoTask, list[DomainResult]] = {}
    terminal.title(TITLE)
    jobs = [delayed(run_domain)(task, domain, seed, encoder, repeats) for task in tasks for domain in domains]
    with pool("loky", n_jobs):
        found_in_turn = iter(Parallel(return_as="generator")(jobs))
        for task in tasks:
            terminal.task(task)
            for domain in domains:
                with terminal.waiting(f"{task.title}, {domain}"):
                    result = next(found_in_turn)
                terminal.domain(result)
                results.setdefault(task, []).append(result)
            terminal.gain(task, results[task])
    sections = [part for task, found in results.items() for part in _sections(task, found)]
    page = write_page(out / "index.html", TITLE, [*sections, Section("", notes=[CORPORA])])
    terminal.end(page, time.perf_counter() - begin)
    return page


def _sections(task: DemoTask, results: Sequence[DomainResult]) -> list[Section]:
    opening = f"Support set: {task.support}. The inputs below are new; nobody wrote down their answers."
    parts = [Section(task.title, notes=[opening, gain(results), task.note])]
    for result in results:
        found = result.comparison
        told = f"{result.n_support} rows, adapted in {result.seconds:.2f} s. {found.headline}"
        title = f"{task.title}, {result.domain}"
        parts.append(Section(title, found.table(), found.best.name, (), [told, found.protocol], result.shown))
    return parts
