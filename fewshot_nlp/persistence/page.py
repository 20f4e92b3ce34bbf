"""HTML pages from templates of the package, each one file that needs no other."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import atomic_write, user_path


def write_page(path: str | Path, package: str, **values: Any) -> Path:
    """Renders the ``page.html.j2`` of a package to a file, whole or not at all."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files(package).joinpath("page.html.j2").read_text(encoding="utf-8")
    page = user_path(path)
    if not page.name or page.is_dir():
        raise FewShotError(f"The page's path is {str(path)!r}, which is a folder; name a file.")
    with atomic_write(page) as part:
        part.write_text(environment.from_string(source).render(values), encoding="utf-8")
    return page
