"""The pages for readers: their Python runs, prints what they show, and the site builds without a warning."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notebook_cells import printed, stored

from fewshot_nlp.backbone.bundled import bundled_folder

ROOT = Path(__file__).parents[2]
PAGES = [
    "README",
    "docs/coming_from",
    "docs/exports",
    "docs/how_many_examples",
    "docs/production",
    "docs/tours/answers",
    "docs/tours/classification",
    "docs/tours/entities",
    "docs/tours/translation",
]
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


def blocks(page: str) -> Iterator[tuple[str, str | None]]:
    """The Python of a page, and what it shows below each."""
    for found in BLOCK.finditer((ROOT / f"{page}.md").read_text(encoding="utf-8")):
        yield found[1], found[2] or None


@pytest.mark.skipif(bundled_folder() is None, reason="the offline extra is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run_in_turn_and_print_what_is_shown(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (code, shown) in enumerate(blocks(page), start=1):
        exec(compile(code, f"{page}.md, block {number}", "exec"), names)
        printed = capsys.readouterr().out
        assert shown is None or printed == shown


@pytest.mark.skipif(bundled_folder() is None, reason="the offline extra is not installed")
@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_prints_what_it_shows(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert printed(notebook) == stored(notebook)
    assert path.name in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))


def test_every_page_is_in_the_navigation_and_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not included in the" not in done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "predict_proba" in reference
    assert "set_score_request" not in reference
