"""The page as a browser shows it."""

import re
import shutil
import subprocess

import pytest

from fewshot_nlp.comparison import Comparison
from fewshot_nlp.comparison.cells import Candidate

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = "<script>document.title = document.documentElement.scrollWidth + '/' + innerWidth</script></body>"


@pytest.fixture(scope="module")
def found():
    """Scores without a computation: a learner that gains, a baseline, and one that refused with a long reason."""
    names = ("a learner with a rather long name", "logistic regression", "refuser")
    records = [
        {
            "learner": name,
            "k_shot": k,
            "repeat": r,
            "score": 0.5 + 0.1 * i + 0.01 * r + 0.001 * k,
            "without": [],
        }
        | {"seconds": [0.5], "milliseconds": 1.0, "bytes": 1000}
        for i, name in enumerate(names[1::-1])
        for k in (1, 5, 10, 20, 50)
        for r in range(3)
    ]
    why = "it refuses, <b>since</b> " + "long " * 60
    records += [{"learner": "refuser", "k_shot": 1, "repeat": 0, "refused": why}]
    facts = {"task": "classification", "metric": "accuracy", "n_rows": 60, "n_scored": 60, "n_folds": [2, 6]}
    facts |= {"seed": 0, "seconds": 12.3}
    return Comparison(facts, ("A note.",), tuple(map(Candidate, names)), tuple(records))


def test_the_headline_and_the_reasons_stand_on_the_page(found, tmp_path):
    page = found.write_page(tmp_path / "page.html").read_text()
    assert found.headline in page.replace("&#39;", "'")
    assert "&lt;b&gt;since&lt;/b&gt;" in page
    assert 'name="viewport" content="width=device-width' in page
    assert re.search(r'class="wide"><table', page)  # a wide table scrolls by itself


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(found, tmp_path, width):
    page = found.write_page(tmp_path / "page.html")
    page.write_text(page.read_text().replace("</body>", MEASURE))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [BROWSER, *options, f"--window-size={width},1000", "--dump-dom", page.as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    wide, screen = map(int, re.search(r"<title>(\d+)/(\d+)</title>", said).groups())
    assert wide <= screen <= max(width, 500)  # the least that some browsers open
