"""Settings in the files of a sentence-transformers model: pooling, window, letter case.

`SentenceTransformer` reads `modules.json`, which names a folder for each module, a file of the transformer's own
(`sentence_bert_config.json` or one of its older names) and `config_sentence_transformers.json`. Steps that an
`Encoder` does not support are refused, unless ``pooling`` is given: then these files are not read.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from fewshot_nlp.errors import FewShotError

ReadJson = Callable[[str], Any]
"""A file's content by its name within the model, None where there is no such file."""

LENGTH_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Names of the transformer's file, the newest first; the first one that is there counts."""
MODES: dict[str, Literal["mean", "first"]] = {"cls": "first", "mean": "mean"}
"""Pooling that both have: their name for it, and ours."""
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
HARMLESS = ("Transformer", "Pooling", "Normalize", "Dropout")
"""Modules that leave directions as they are, or are read here."""


class Hints(NamedTuple):
    """Settings from the files.

    Args:
        pooling: "mean" or "first"; None where they say nothing.
        max_length: tokens in a window; None where they say nothing.
        lower_case: whether texts are lower-cased before they are tokenised.
    """

    pooling: Literal["mean", "first"] | None = None
    max_length: int | None = None
    lower_case: bool = False


def read_hints(source: str, read: ReadJson, pooling: Literal["mean", "first"] | None = None) -> Hints:
    """The hints of a model's files.

    Args:
        source: the model's name, for messages.
        read: function of a file name to its content.
        pooling: the user's setting; None takes that of the files.

    Raises:
        FewShotError: the files need a step that `Encoder` does not support, and no pooling is given.
    """
    modules = read("modules.json") or []
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    first = next(
        (str(m.get("path", "")) for m, k in zip(modules, kinds, strict=True) if k == "Transformer"), ""
    )
    files = (read(_within(first, name)) for name in LENGTH_FILES)
    own: dict[str, Any] = next((found for found in files if found is not None), {})
    length = own.get("max_seq_length")
    hints = Hints(pooling, int(length) if length else None, bool(own.get("do_lower_case", False)))
    if pooling is not None:
        return hints
    unknown = [kind for kind in kinds if kind not in HARMLESS]
    if unknown:
        raise _refused(source, f"has a module {unknown[0]} after its transformer")
    prompt = (read("config_sentence_transformers.json") or {}).get("default_prompt_name")
    if prompt:
        raise _refused(source, f"puts the prompt {prompt!r} before every text")
    folder = next(
        (str(m["path"]) for m, k in zip(modules, kinds, strict=True) if k == "Pooling"), "1_Pooling"
    )
    modes = _modes(read(_within(folder, "config.json")) or {})
    if len(modes) > 1 or any(mode not in MODES for mode in modes):
        raise _refused(source, f"pools by {' and '.join(modes)}")
    return hints._replace(pooling=MODES[modes[0]] if modes else None)


def _modes(config: Mapping[str, Any]) -> list[str]:
    """The pooling modes of either form of the file."""
    given = config.get("pooling_mode")
    if given is not None:
        return [given] if isinstance(given, str) else list(given)
    return [mode for flag, mode in FLAGS.items() if config.get(flag)]


def _within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _refused(source: str, what: str) -> FewShotError:
    return FewShotError(
        f"{source} {what}, which is not supported here; pass pooling='mean' or pooling='first' to read its transformer "
        "alone, in that way."
    )


def lower_cased(tokenizer: Any) -> Any:
    """A fast tokenizer that lower-cases texts first; offsets refer to the original text."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
    backend.normalizer = normalizers.Sequence(steps)
    return tokenizer
