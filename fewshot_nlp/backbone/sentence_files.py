"""Settings in the files of a sentence-transformers model: pooling, window, letter case.

`SentenceTransformer` reads `modules.json`, which names a folder for each module, a file of the transformer's own
(`sentence_bert_config.json` or one of its older names) and `config_sentence_transformers.json`. Steps that an
`Encoder` does not support are refused, unless ``pooling`` is given: then these files are not read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fewshot_nlp.backbone.pooling import TextPooling
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.persistence.disk import first_line

ReadJson = Callable[[str], Any]
"""A file's content by its name within the model, None where there is no such file."""

LENGTH_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the transformer's file, the newest first; the first one that is there counts."""
MODES: dict[str, TextPooling] = {
    "cls": "first",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "sqrt_mean",
    "weightedmean": "weighted_mean",
}
"""Their names for modes of pooling, and ours. Others, such as the last token of decoders, are refused."""
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of the older form of the pooling file."""
HARMLESS = ("Transformer", "Pooling", "Normalize", "Dropout")
"""Modules that keep the direction of a vector, or are read here."""
AS_USUAL: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "config_args": ({},),
    "config_kwargs": ({},),
    "processing_kwargs": ({},),
    "query_expansion": ({}, False),
}
"""Keys of the transformer's file that change what it gives, and the values for which they do not."""


class Hints(NamedTuple):
    """Settings from the files.

    Args:
        pooling: a mode of `pool_spans`; None where they say nothing.
        max_length: tokens in a window; None where they say nothing.
        lower_case: whether texts are lower-cased before they are tokenised.
    """

    pooling: TextPooling | None = None
    max_length: int | None = None
    lower_case: bool = False


def read_hints(source: str, read: ReadJson, pooling: TextPooling | None = None) -> Hints:
    """The hints of a model's files.

    Args:
        source: the model's name, for messages.
        read: function of a file name to its content.
        pooling: the user's setting; None takes that of the files.

    Raises:
        FewShotError: the files are damaged, or need a step that `Encoder` does not support, and no pooling is given.
    """
    try:
        modules = _modules(read)
        own = _own_file(read, next((path for kind, path in modules if kind == "Transformer"), ""))
        length = own.get("max_seq_length") or _arguments(own).get("model_max_length")
        hints = Hints(pooling, int(length) if length else None, bool(own.get("do_lower_case", False)))
        if pooling is not None:
            return hints
        obstacle = _obstacle(modules, own, read("config_sentence_transformers.json") or {})
        folder = next((path for kind, path in modules if kind == "Pooling"), "1_Pooling")
        modes = _modes(read(_within(folder, "config.json")) or {})
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise FewShotError(
            f"The sentence-transformers files of {source} are damaged ({type(error).__name__}: {first_line(error)}); "
            "fetch or save the model again."
        ) from None
    if obstacle is None and (len(modes) > 1 or any(mode not in MODES for mode in modes)):
        obstacle = f"pools by {' and '.join(map(str, modes))}"
    if obstacle is not None:
        raise FewShotError(
            f"{source} {obstacle}, which is not supported here; pass pooling='mean' (or another mode) to read its "
            "transformer alone."
        )
    return hints._replace(pooling=MODES[modes[0]] if modes else None)


def transformer_folder(read: ReadJson) -> str:
    """The folder of the transformer within a model, "" where it is the model's own or the files do not say."""
    try:
        return next((path for kind, path in _modules(read) if kind == "Transformer"), "")
    except (TypeError, AttributeError):
        return ""


def _modules(read: ReadJson) -> list[tuple[str, str]]:
    """Kind and folder of each module."""
    return [
        (str(module.get("type", "")).rsplit(".", 1)[-1], str(module.get("path", "")))
        for module in read("modules.json") or []
    ]


def _own_file(read: ReadJson, folder: str) -> dict[str, Any]:
    """The transformer's file: that of the newest name."""
    files = (read(_within(folder, name)) for name in LENGTH_FILES)
    return dict(next((found for found in files if found), {}))


def _arguments(own: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the tokenizer in the transformer's file, under either name."""
    return {**(own.get("tokenizer_args") or {}), **(own.get("processor_kwargs") or {})}


def _obstacle(
    modules: Sequence[tuple[str, str]], own: Mapping[str, Any], config: Mapping[str, Any]
) -> str | None:
    """What the files ask for that `Encoder` does not support; None if nothing."""
    unknown = [kind for kind, _ in modules if kind not in HARMLESS]
    if unknown:
        return f"has a module {unknown[0]} after its transformer"
    odd = [key for key, usual in AS_USUAL.items() if own.get(key) is not None and own[key] not in usual]
    text = (own.get("modality_config") or {}).get("text", {"method_output_name": "last_hidden_state"})
    if odd or text.get("method_output_name") != "last_hidden_state":
        key = odd[0] if odd else "modality_config"
        return f"has {key} = {own[key]!r}"
    name = config.get("default_prompt_name")
    prompt = (config.get("prompts") or {}).get(name)
    return f"puts the prompt {prompt!r} before every text" if name and prompt else None


def _modes(config: Mapping[str, Any]) -> list[str]:
    """The pooling modes of either form of the file."""
    given = config.get("pooling_mode")
    if given is not None:
        return [given] if isinstance(given, str) else list(given)
    return [mode for flag, mode in FLAGS.items() if config.get(flag)]


def _within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def lower_cased(tokenizer: Any) -> Any:
    """A fast tokenizer that lower-cases texts first; offsets refer to the original text."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
    backend.normalizer = normalizers.Sequence(steps)
    return tokenizer
