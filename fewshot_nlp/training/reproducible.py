"""What repeating a run needs beside its seed: the settings in full with versions, and deterministic kernels."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import atomic_write
from fewshot_nlp.training.config import MetaTrainConfig
from fewshot_nlp.version import VERSION

LIBRARIES = ("transformers", "tokenizers", "peft", "accelerate", "numpy")


def versions() -> dict[str, str]:
    """Of this package, Python, torch and the libraries that decide what is computed."""
    found = {"fewshot_nlp": VERSION, "python": platform.python_version(), "torch": str(torch.__version__)}
    return found | {name: version(name) for name in LIBRARIES}


def save_resolved(config: MetaTrainConfig, folder: Path) -> None:
    """Writes ``<folder>/config.yaml``: every setting, defaults too, fit for ``--config``; versions in comments.

    A folder that already has one, with other versions, gets a warning: bits may differ from there on.

    Raises:
        FewShotError: the file cannot be written.
    """
    path = folder / "config.yaml"
    told = "".join(f"# {name} {number}\n" for name, number in versions().items())
    with atomic_write(path) as part:
        before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        changed = [line for line in before if line.startswith("#") and line not in told.splitlines()]
        if changed:
            logger.warning(
                "This run was begun with %s, and goes on with other versions: bits may differ from here on.",
                ", ".join(line.removeprefix("# ") for line in changed),
            )
        part.write_text(
            told + yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


@contextmanager
def deterministic_kernels(wanted: bool, device: torch.device) -> Iterator[None]:
    """In the block torch takes deterministic kernels only, or raises where there is none; afterwards as before.

    Raises:
        FewShotError: on a GPU, when CUBLAS_WORKSPACE_CONFIG is not set; it must be before the process starts.
    """
    if not wanted:
        yield
        return
    if device.type == "cuda" and not os.environ.get("CUBLAS_WORKSPACE_CONFIG"):
        raise FewShotError("deterministic needs the environment variable CUBLAS_WORKSPACE_CONFIG=:4096:8.")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=warns_only)
        cudnn.deterministic, cudnn.benchmark = before[1:]
