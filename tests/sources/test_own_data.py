"""The page on files of one's own: each of its snippets is run, in an empty folder."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
SNIPPETS = {
    section.split("\n")[0]: code
    for section in SECTIONS
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
}


def test_every_section_but_the_last_has_a_snippet():
    assert list(SNIPPETS) == [section.split("\n")[0] for section in SECTIONS[:-1]]


@pytest.mark.parametrize("section", list(SNIPPETS))
def test_snippets_run(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[section], f"{PAGE.name}: {section}", "exec"), {"__name__": "__main__"})
