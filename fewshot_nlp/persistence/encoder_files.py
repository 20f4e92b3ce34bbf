"""The encoder of a model folder: a Hub name, or its weights in ``encoder/``; settings, adapter, head of label names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fewshot_nlp.backbone import BACKBONES, Backbone
from fewshot_nlp.backbone.adapters import adapter_from_json, adapter_to_json
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.bounded import BoundedMemory, foreign
from fewshot_nlp.persistence.disk import first_line, write_tensors
from fewshot_nlp.persistence.model_files import AGAIN, CONFIG, ENCODER, TENSORS, check_form

DTYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_FORM: dict[str, Any] = {
    "name": str | None,
    "revision": str | None,
    "fingerprint": str,
    "dtype": str,
    "adapter": dict | None,
    "top_layers": int | None,
    "depth": int | None,
    "head": dict | None,
}
"""Keys and types of the encoder's JSON; its own settings stand beside them."""


def encoder_to_json(encoder: Backbone, copied: bool) -> dict[str, Json]:
    """The encoder as JSON, for `encoder_from_json`; without its name where it is ``copied``."""
    name = None if copied else encoder.public_name
    return {
        "name": name,
        "revision": None if name is None else encoder.revision,
        "fingerprint": encoder.fingerprint,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        **encoder.settings,
        "adapter": None if encoder.adapter_config is None else adapter_to_json(encoder.adapter_config),
        "top_layers": encoder.top_layers,
        "depth": int(encoder.model.config.num_hidden_layers) if "layers" in encoder.settings else None,
        "head": encoder.head.settings if isinstance(encoder.head, LabelNameHead) else None,
    }


def encoder_from_json(
    backbone: str, config: Mapping[str, Any], folder: Path, options: Mapping[str, Any]
) -> Backbone:
    """The encoder of a model folder, with its adapter and its head as they start; the folder's tensors go in later.

    Args:
        backbone: its kind, a key of `BACKBONES`.
        config: what `encoder_to_json` gave.
        folder: the model folder.
        options: `dtype`, `device_map`, `attn_implementation` of the user, and `base`, a folder to load it from.

    Raises:
        FewShotError: a damaged or forged folder, or an encoder of other weights than the one that was saved.
    """
    kind = BACKBONES[backbone]
    check_form(config, {**_FORM, **kind.setting_types}, folder / CONFIG)
    saved_dtype = DTYPES.get(config["dtype"])
    if saved_dtype is None:
        raise FewShotError(
            f"{folder / CONFIG} is damaged: {config['dtype'][:40]!r} is no dtype of weights; {AGAIN}."
        )
    given = {key: value for key, value in options.items() if value is not None}
    encoder = _load(kind, config, folder, {"dtype": saved_dtype, **given})
    if encoder.model.dtype == saved_dtype and encoder.fingerprint != config["fingerprint"]:
        raise FewShotError(
            f"{folder} was adapted on an encoder with fingerprint {config['fingerprint'][:12]}..., but "
            f"{encoder.name} has {encoder.fingerprint[:12]}...: its weights have changed. Adapt again."
        )
    if config["adapter"] is not None:
        _attach(encoder, config, folder)
    if config["head"] is not None:
        encoder.head = _head(config["head"], encoder, folder)
    return encoder


def save_encoder(encoder: Backbone, folder: Path) -> None:
    """The base weights under the names that transformers knows, without the adapter's; tied ones once."""
    shared = {name for name, _ in encoder.model.named_parameters(remove_duplicate=False)} - set(
        encoder.parameters()
    )
    tensors = {
        name.replace(".base_layer.", "."): tensor.detach().cpu().contiguous()
        for name, tensor in encoder.model.state_dict().items()
        if name not in encoder.adapter and name not in shared
    }
    folder.mkdir()
    encoder.model.config.save_pretrained(folder)
    if encoder.vocabulary is not None:
        encoder.model.generation_config.save_pretrained(folder)
    encoder.tokenizer.tokenizer.save_pretrained(folder)
    write_tensors({n: t.clone() for n, t in tensors.items()}, folder / TENSORS, {"format": "pt"})


def choose_layers(encoder: Backbone, layers: Any, folder: Path) -> None:
    """Reads other layers of the encoder."""
    choose = getattr(encoder, "choose_layers", None)
    if choose is None:
        raise FewShotError(
            f"{folder} holds a sequence-to-sequence model, whose layers cannot be chosen; leave layers out."
        )
    choose(layers)


def bytes_of_tensors(folder: Path) -> int:
    """Size of the files of tensors in a folder and its encoder, which bounds what they can hold."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _load(kind: Any, config: Mapping[str, Any], folder: Path, options: Mapping[str, Any]) -> Backbone:
    """The encoder that is named, or that lies in the folder, with the layers that were read."""
    settings = {key: config[key] for key in kind.setting_types}
    view = settings.get("layers")
    if view is not None and config["depth"] is not None:  # all layers that were there, whichever are read
        settings["layers"] = [config["depth"]]
    name, base = config["name"], options.get("base")
    options = {key: value for key, value in options.items() if key != "base"}
    if base is not None:
        encoder: Backbone = kind.from_pretrained(base, **{**settings, **options})
    elif name is None and not (folder / ENCODER).exists():
        raise FewShotError(
            f"{folder} was saved without its encoder; say where that is: from_pretrained(..., base=its folder)."
        )
    elif name is None:
        with foreign(folder / ENCODER), BoundedMemory(folder, 2 * bytes_of_tensors(folder)):
            encoder = kind.from_pretrained(folder / ENCODER, **{**settings, **options})
    else:
        if not _HUB_NAME.fullmatch(name) or Path(name).exists():
            raise FewShotError(
                f"{folder / CONFIG} names the encoder {name[:60]!r}, a place on this machine; a model folder may name "
                f"one of the Hub, or hold its own: {AGAIN}."
            )
        encoder = kind.from_pretrained(name, revision=config["revision"], **{**settings, **options})
    if view is not None:
        choose_layers(encoder, view, folder)
    return encoder


def _attach(encoder: Backbone, config: Mapping[str, Any], folder: Path) -> None:
    try:
        adapter = adapter_from_json(config["adapter"])
    except Exception as error:
        raise FewShotError(
            f"{folder / CONFIG} has an adapter that this version of peft does not know "
            f"({first_line(error)[:120]}); upgrade peft."
        ) from error
    base = 2 * sum(parameter.numel() for parameter in encoder.parameters().values())
    with foreign(folder), BoundedMemory(folder, base + 8 * bytes_of_tensors(folder)):
        encoder.attach(adapter, config["top_layers"])


def _head(values: Mapping[str, Any], encoder: Backbone, folder: Path) -> LabelNameHead:
    check_form(values, {"layer": int, "width": int}, folder / CONFIG)
    n_layers = int(encoder.model.config.num_hidden_layers)
    if not (1 <= values["layer"] <= n_layers and 1 <= values["width"] <= 1 << 16):
        raise FewShotError(
            f"{folder / CONFIG} is damaged: its head reads layer {values['layer']} in width {values['width']}, but the "
            f"encoder has {n_layers} layers; {AGAIN}."
        )
    with BoundedMemory(folder, 8 * bytes_of_tensors(folder)):
        head = LabelNameHead(int(encoder.model.config.hidden_size), **values)
    return head.requires_grad_(False).to(encoder.device, encoder.feature_dtype)
