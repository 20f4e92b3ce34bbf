"""The model card of a saved model: what it is, what was measured and on what, and how to use it.

A card states only what the model and its ``extra`` hold; what nobody measured is said to be not measured. It
reads these keys of ``extra``: ``scores`` (metrics by name, perhaps with "n_rows", "seed" and "dataset"; or a
`Report` as JSON), ``support_size``, ``meta_training`` (as `meta_train` writes it), ``sources`` (names, or
mappings with "name", "split" and "licence"), ``license`` and ``language``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from fewshot_nlp.backbone import Backbone
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.registry import about
from fewshot_nlp.sources import card_names, load_card
from fewshot_nlp.version import VERSION

TEMPLATE = Path(__file__).with_name("model_card_template.md")


@dataclass(frozen=True)
class Unadapted:
    """What a card needs to know of a pipeline that is not adapted to any support set.

    Args:
        pipeline: task and learner.
        extra: as for `save`.
    """

    pipeline: Pipeline
    extra: Mapping[str, Any]
    is_adapted: ClassVar[bool] = False
    labels: ClassVar[Sequence[str]] = ()
    descriptions: ClassVar[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Score:
    """A measured score; the half-width of its 95 % interval where there is one."""

    name: str
    value: float
    half_width: float | None = None


def model_card(model: Any, name: str) -> str:
    """The card in Markdown, with the Hub's metadata at its head.

    Args:
        model: a `FewShotModel`, or an `Unadapted` pipeline.
        name: "user/name", or the folder's name; the card's title, and what its code loads.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Environment, StrictUndefined

    pipeline, extra = model.pipeline, model.extra
    encoder = pipeline.learner.encoder
    scores, measured = read_scores(extra.get("scores") or {})
    sources = read_sources(extra)
    size = extra.get("support_size")
    environment = Environment(trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"cell": _cell, "code": _code, "settings": _settings}
    body = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=name,
        task=pipeline.task,
        usage=pipeline.task.usage,
        title=pipeline.task.usage.title or pipeline.task.name.replace("_", " "),
        learner=pipeline.learner,
        learner_line=about(type(pipeline.learner)),
        encoder=encoder,
        encoder_name=encoder.public_name,
        adapter=_adapter(encoder),
        adapted=model.is_adapted,
        support="a support set of unknown size" if size is None else f"{size} example{'s' * (size != 1)}",
        labels=model.labels,
        descriptions=model.descriptions,
        scores=scores,
        measured=measured,
        sources=sources,
        training=_training(extra.get("meta_training"), pipeline.task.primary_metric),
        version=VERSION,
    )
    return str(ModelCard(f"---\n{_metadata(model, name, scores, sources).to_yaml()}\n---\n\n{body}"))


def read_scores(scores: Mapping[str, Any]) -> tuple[list[Score], str]:
    """Scores, and in a sentence what they were measured on.

    Args:
        scores: a `Report` as JSON, or metrics by name with facts among them.
    """
    if "mean" in scores and "n_episodes" in scores:
        found = [Score(name, value, scores["ci95"].get(name)) for name, value in scores["mean"].items()]
        return found, (
            f"Means over {scores['n_episodes']} episodes (seed {scores['seed']}, SHA-256 of the episodes "
            f"`{scores['manifest_sha']}`), each with its own support set, not the one above; half-widths "
            "of the intervals by Student's t."
        )
    facts = {key: scores.get(key) for key in ("dataset", "n_rows", "seed")}
    found = [
        Score(name, value)
        for name, value in scores.items()
        if name not in facts and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    words = {"dataset": "on the data set", "n_rows": "number of rows", "seed": "seed"}
    told = [f"{words[key]}: {_cell(str(fact))}" for key, fact in facts.items() if fact is not None]
    return found, f"Measured once, without an interval{'; '.join(['', *told])}."


def read_sources(extra: Mapping[str, Any]) -> list[dict[str, str]]:
    """Name, split, licence and Hub name of the data sets that the model was meta-trained on.

    What `extra` leaves out is taken from the data set's card, if the package has one.
    """
    config = (extra.get("meta_training") or {}).get("config") or {}
    cards = set(card_names())
    result = []
    for given in [*(extra.get("sources") or []), *(config.get("data", {}).get("sources") or [])]:
        source = {"name": given} if isinstance(given, str) else given
        card = load_card(source["name"]) if source["name"] in cards else None
        result.append(
            {
                "name": source["name"] if card else Path(source["name"]).name,
                "split": source.get("split") or "not stated",
                "licence": source.get("licence") or (card.licence if card else "not stated"),
                "hub": card.hub.id if card and card.hub else "",
            }
        )
    return result


def _metadata(model: Any, name: str, scores: list[Score], sources: list[dict[str, str]]) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    pipeline, extra = model.pipeline, model.extra
    tag = pipeline.task.usage.pipeline_tag
    given = extra.get("scores") or {}
    dataset = str(given.get("dataset") or "unknown")
    facts = {key: given[key] for key in ("n_episodes", "n_rows", "seed") if given.get(key) is not None}
    results = [
        EvalResult(
            task_type=tag or "other",
            dataset_type=re.sub(r"[^\w./-]+", "-", dataset).strip("-") or "unknown",
            dataset_name=dataset,
            dataset_args=facts or None,
            metric_type=score.name,
            metric_name=score.name,
            metric_value=score.value,
            metric_args=None if score.half_width is None else {"ci95": score.half_width},
            verified=False,
        )
        for score in scores
        if isfinite(score.value) and "[" not in score.name  # scores of single labels are in the table alone
    ]
    tags = ["few-shot", pipeline.task.name, pipeline.learner.name]
    if pipeline.learner.encoder.adapter_config is not None:
        tags.append(_peft_type(pipeline.learner.encoder).lower())
    return ModelCardData(
        language=extra.get("language"),
        license=extra.get("license"),
        library_name="fewshot_nlp",
        pipeline_tag=tag,
        base_model=pipeline.learner.encoder.public_name,
        datasets=sorted({source["hub"] for source in sources if source["hub"]}) or None,
        tags=tags,
        model_name=name.split("/")[-1] if results else None,
        eval_results=results or None,
    )


_RUN = {
    ("outer", "meta_batch"): "number of episodes in a step",
    ("outer", "lr"): "learning rate",
    ("run", "seed"): "seed",
}
"""What a card tells of a run's settings."""


def _training(run: Mapping[str, Any] | None, metric: str) -> str:
    if not run:
        return ""
    config, validation = run.get("config") or {}, run.get("validation") or {}
    told = [f"Step {run.get('step', 'not stated')} of {config.get('outer', {}).get('steps', 'not stated')}"]
    told += [
        f"{words} {config[part][key]}" for (part, key), words in _RUN.items() if key in config.get(part, {})
    ]
    text = ", ".join(told) + "."
    if metric not in validation:
        return text + " Meta-validation: not measured."
    half = validation.get(f"{metric}_ci95")
    spread = "" if half is None else f" ± {half} (95 % interval)"
    step, episodes, seed = (validation.get(key, "not stated") for key in ("step", "n_episodes", "val_seed"))
    return text + (
        f" Meta-validation: {metric} {validation[metric]}{spread}; step {step}, number of episodes "
        f"{episodes}, seed {seed}. The step may have been chosen by it."
    )


def _adapter(encoder: Backbone) -> str:
    if encoder.adapter_config is None:
        return "none"
    where = "all layers" if encoder.top_layers is None else f"the last {encoder.top_layers} layers"
    size = sum(parameter.numel() for parameter in encoder.adapter.values())
    return f"{_peft_type(encoder)} (PEFT) in {where}, {size:,} parameters"


def _peft_type(encoder: Backbone) -> str:
    kind = encoder.adapter_config.peft_type
    return str(getattr(kind, "value", kind))


def _cell(text: str) -> str:
    """A text in one line of a Markdown table."""
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """A text in backticks in a Markdown table."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return fence + space + " ".join(text.split()).replace("|", "\\|") + space + fence


def _settings(values: Mapping[str, Any]) -> str:
    return (
        ", ".join(_code(f"{key}={json.dumps(value, ensure_ascii=False)}") for key, value in values.items())
        or "none"
    )
