"""A merged encoder with its head as a model of transformers: for sequences, tokens, or question answering."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.exports.linear import LINEAR, Linear, linear_map
from fewshot_nlp.exports.merging import merged
from fewshot_nlp.modules.state import fast_weights
from fewshot_nlp.pipeline import TaskModel

SMALL = 1e-4
"""A tanh of inputs times this is linear, up to a relative error of 1e-6 for inputs up to 20."""


def write_transformers(model: TaskModel, folder: Path) -> None:
    """Writes config, weights and tokenizer for ``AutoModelFor...`` and ``pipeline``.

    Raises:
        FewShotError: the scores are not linear in the output of one layer, or transformers has no such model.
    """
    encoder, learner = model.pipeline.learner.encoder, model.pipeline.learner
    assert isinstance(encoder, Encoder)
    task = model.pipeline.task
    batch = model.pipeline.queries([task.query(value) for value in task.usage.inputs], model.labels)
    if len(encoder.layers) > 1:
        raise FewShotError(
            f"Features are read from the layers {encoder.layers}, but models of transformers have their head on one; "
            "adapt with layers=(-1,), or take format='onnx'."
        )
    with torch.no_grad(), encoder.as_loaded():
        features = learner.features(batch, fast_weights(model.adapted.state))
    head = linear_map(model, batch, features)
    if head is None:
        raise FewShotError(
            f"The scores of {learner.name} are not linear in the features, so transformers has no model for them; take "
            f"format='onnx', or {LINEAR}; for entities with the scheme 'io'."
        )
    base = merged(encoder, fast_weights(model.adapted.state), encoder.layers[-1])
    kind = {"text": _texts, "mean": _tokens, "first": _tokens}[batch.pooling]
    kind = _answers if batch.normaliser == "positions" else kind
    whole = kind(base, head, encoder)
    if batch.normaliser != "positions":
        names = [_tag(name, model) for name in batch.classes]
        whole.config.id2label = dict(enumerate(names))
        whole.config.label2id = {name: number for number, name in enumerate(names)}
    if batch.normaliser == "independent":
        whole.config.problem_type = "multi_label_classification"
    whole.save_pretrained(folder)
    tokenizer = encoder.tokenizer.tokenizer
    tokenizer.model_max_length = encoder.tokenizer.max_length
    tokenizer.save_pretrained(folder)


def _tag(name: Any, model: TaskModel) -> str:
    """A class's name; a type of entities as transformers writes it, with a prefix."""
    tagged = model.pipeline.task.word_tags and name != "O" and not str(name).startswith(("B-", "I-"))
    return f"I-{name}" if tagged else str(name)


def _made(auto: str, base: Any, n_labels: int) -> Any:
    """A model of transformers around a base."""
    import transformers

    config = base.config.__class__.from_dict({**base.config.to_dict(), "num_labels": n_labels})
    try:
        with torch.random.fork_rng(devices=[]):
            whole = getattr(transformers, auto).from_config(config)
    except ValueError as error:
        raise FewShotError(
            f"transformers has no {auto} for {config.model_type}; take format='onnx'."
        ) from error
    body = getattr(whole, whole.base_model_prefix)
    body.load_state_dict(base.state_dict(), strict=False)
    return whole.eval()


@torch.no_grad()
def _set(layer: Any, head: Linear, what: str) -> None:
    if not isinstance(layer, nn.Linear) or layer.weight.shape != head.weight.shape:
        raise FewShotError(f"The head of {what} is not one linear layer; take format='onnx'.")
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(len(head.bias)))
    layer.weight.copy_(head.weight)
    layer.bias.copy_(head.bias)


def _tokens(base: Any, head: Linear, encoder: Encoder) -> Any:
    whole = _made("AutoModelForTokenClassification", base, len(head.bias))
    _set(getattr(whole, "classifier", None), head, type(whole).__name__)
    return whole


def _answers(base: Any, head: Linear, encoder: Encoder) -> Any:
    whole = _made("AutoModelForQuestionAnswering", base, 2)
    _set(getattr(whole, "qa_outputs", None), head, type(whole).__name__)
    return whole


def _texts(base: Any, head: Linear, encoder: Encoder) -> Any:
    """Sequence classification reads the first token, by a dense layer and a tanh, which small inputs pass as is."""
    if encoder.pooling != "first":
        raise FewShotError(
            f"Texts are pooled by {encoder.pooling!r}, but AutoModelForSequenceClassification reads the first token; "
            "load the encoder with pooling='first' and adapt again, or take format='onnx'."
        )
    whole = _made("AutoModelForSequenceClassification", base, len(head.bias))
    body = getattr(whole, whole.base_model_prefix)
    inner = getattr(whole, "classifier", None)
    dense, out = (
        (getattr(getattr(body, "pooler", None), "dense", None), inner)
        if isinstance(inner, nn.Linear)
        else (getattr(inner, "dense", None), getattr(inner, "out_proj", None))
    )
    width = head.weight.shape[1]
    _set(dense, Linear(SMALL * torch.eye(width), torch.zeros(width)), type(whole).__name__)
    _set(out, Linear(head.weight / SMALL, head.bias), type(whole).__name__)
    _check(whole, base, head)
    return whole


def _check(whole: Any, base: Any, head: Linear) -> None:
    """Raises `FewShotError` where a family does something else between the first token and the scores."""
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        wanted: Tensor = nn.functional.linear(base(input_ids=ids).last_hidden_state[:, 0], *head)
        error = float((whole(input_ids=ids).logits - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))
    if not error < 1e-3:
        raise FewShotError(
            f"{type(whole).__name__} does more between the first token and its scores (they differ by {error:.1e}); "
            "take format='onnx'."
        )
