"""Importing the package costs next to nothing, and every public name is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fewshot_nlp

ROOT = Path(fewshot_nlp.__file__).parents[1]
HEAVY = ("torch", "transformers", "datasets", "peft", "sklearn", "scipy")


@pytest.mark.parametrize("module", ["fewshot_nlp", "fewshot_nlp.cli"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


def test_all_is_sorted_and_every_name_resolves() -> None:
    # Sorted as ruff sorts __all__: constants, classes, functions.
    def kind(name: str) -> int:
        return 0 if name.isupper() else 1 if name[0].isupper() else 2

    assert fewshot_nlp.__all__ == sorted(set(fewshot_nlp.__all__), key=lambda name: (kind(name), name))
    for name in fewshot_nlp.__all__:
        assert getattr(fewshot_nlp, name) is not None
    assert set(fewshot_nlp.__all__) <= set(dir(fewshot_nlp))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="FewShotNothing"):
        fewshot_nlp.FewShotNothing  # noqa: B018
