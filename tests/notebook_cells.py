"""Notebooks run cell by cell in one process; as a program it stores what they print: ``notebook_cells.py a.ipynb``."""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def printed(notebook: dict[str, Any]) -> list[str]:
    """What each code cell prints, run in order in the working folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        with redirect_stdout(io.StringIO()) as out:
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        found.append(out.getvalue())
    return found


def stored(notebook: dict[str, Any]) -> list[str]:
    """What each code cell is shown to print."""
    return ["".join(line for o in c["outputs"] for line in o["text"]) for c in code_cells(notebook)]


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for number, (cell, text) in enumerate(
            zip(code_cells(notebook), printed(notebook), strict=True), start=1
        ):
            stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
            cell |= {"execution_count": number, "outputs": [stream] if text else []}
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
