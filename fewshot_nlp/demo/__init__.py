"""The demonstration: three domains from a few examples each, shown in the terminal and on a page of its own.

Every number is computed in the run. A further task is one more entry in `SECTIONS`.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from joblib import Parallel, delayed

from fewshot_nlp.comparison.pool import pool
from fewshot_nlp.demo.classification import CLASSIFICATION
from fewshot_nlp.demo.measure import DomainResult, run_domain
from fewshot_nlp.demo.ner import NER
from fewshot_nlp.demo.page import write_page
from fewshot_nlp.demo.question_answering import QUESTION_ANSWERING
from fewshot_nlp.demo.section import DOMAINS, Section
from fewshot_nlp.demo.terminal import Terminal
from fewshot_nlp.demo.translation import TRANSLATION
from fewshot_nlp.errors import FewShotError

SECTIONS: tuple[Section, ...] = (CLASSIFICATION, NER, QUESTION_ANSWERING, TRANSLATION)
N_SEEDS = 5

__all__ = ["SECTIONS", "run_demo"]


def run_demo(
    out: Path,
    seed: int = 0,
    *,
    n_seeds: int = N_SEEDS,
    sections: Sequence[Section] = SECTIONS,
    domains: Sequence[str] = DOMAINS,
    encoder: str | None = None,
    n_jobs: int = 1,
) -> Path:
    """Adapts, predicts and measures, prints the results, and writes them to ``out/index.html``.

    Args:
        out: folder for the page; it is made.
        seed: the first seed; support sets are drawn with ``seed`` to ``seed + n_seeds - 1``.
        n_seeds: number of support sets for each score, from 2.
        sections: tasks to show.
        domains: domains to show.
        encoder: folder or Hub name; None for the bundled one.
        n_jobs: processes; each works on one task in one domain.

    Returns:
        The page.

    Raises:
        FewShotError: fewer than 2 seeds, which give no interval.
    """
    if n_seeds < 2:
        raise FewShotError(f"n_seeds is {n_seeds}, but an interval needs at least 2.")
    seeds = range(seed, seed + n_seeds)
    terminal = Terminal()
    begin = time.perf_counter()
    results: dict[Section, list[DomainResult]] = {}
    terminal.title()
    jobs = [
        delayed(run_domain)(section, domain, seeds, encoder) for section in sections for domain in domains
    ]
    with pool("loky", n_jobs):
        found_in_turn = iter(Parallel(return_as="generator")(jobs))
        for section in sections:
            terminal.section(section)
            for domain in domains:
                with terminal.waiting(f"{section.title}, {domain}"):
                    result = next(found_in_turn)
                terminal.domain(result)
                results.setdefault(section, []).append(result)
    for section, found in results.items():
        terminal.scores(section, found)
    seconds = time.perf_counter() - begin
    page = write_page(out, results, seconds)
    terminal.end(page, seconds)
    return page
