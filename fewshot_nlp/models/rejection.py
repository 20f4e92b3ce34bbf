"""Whether a text fits any label that a classifier was adapted to, by how near it is to the support set.

Papers: Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors ("neighbours"); Snell et al. 2017,
Prototypical Networks ("prototypes": the nearest class mean); Hendrycks & Gimpel 2017, A Baseline for Detecting
Misclassified and Out-of-Distribution Examples ("probability"); Liu et al. 2020, Energy-based Out-of-distribution
Detection ("energy": the log-sum-exp of the scores); Vovk et al. 2005, Algorithmic Learning in a Random World (a stated
coverage). The default was chosen on validation texts (`evaluation/results/journal.md`).
Deviations: features are the frozen encoder's last layer, and similarity is the cosine. What is usual is told by the
support texts themselves, each against the others: for the first two rules left out one by one, for the last two by
models adapted to the other folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_nlp.episode import Example, Query
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.modules.linear_models import stratified_folds
from fewshot_nlp.pipeline import CHUNK, Pipeline, TaskModel
from fewshot_nlp.rows import Label

Rule = Literal["neighbours", "prototypes", "probability", "energy"]
DEFAULT_RULE: Rule = "prototypes"
PREFIX = "reject."
"""Begins the keys of decoding parameters that belong here."""
FOLDS = 3
COVERAGE = 0.95
"""Where none is stated and the examples allow it."""
WIDTH = 2.0
"""Where they do not: standard deviations below the mean at which a text no longer fits."""
WORDS = {
    "neighbours": "similarity to the nearest example",
    "prototypes": "similarity to the nearest label's mean",
    "probability": "probability of the likeliest label",
    "energy": "log-sum-exp of the scores",
}


@dataclass(frozen=True)
class Fits:
    """How well the support texts fit, and what new texts are compared with.

    Args:
        rule: how it is measured.
        usual: fit of each support text when it is left out, rising, shape (n,).
        keys: unit vectors that texts are compared with, shape (n or labels, d); none for rules on scores.
    """

    rule: Rule
    usual: Tensor
    keys: Tensor

    def threshold(self, coverage: float | None) -> float:
        """The fit below which a text is rejected.

        Args:
            coverage: the share of texts like the support set's that are kept, at least, in (0, 1); None for
                0.95 or, with fewer than 19 examples, a threshold two standard deviations below the mean.

        Raises:
            FewShotError: the support set is too small for this coverage.
        """
        n = len(self.usual)
        if coverage is None and n < 1 / (1 - COVERAGE) - 1 - 1e-9:
            return float(self.usual.mean() - WIDTH * self.usual.std()) if n > 1 else -np.inf
        coverage = COVERAGE if coverage is None else coverage
        if not 0 < coverage < 1:
            raise FewShotError(f"coverage is {coverage}, but must lie between 0 and 1.")
        # Rejected where the p-value (1 + rank) / (n + 1) is so small.
        place = int(np.floor((1 - coverage) * (n + 1) + 1e-9))
        if place < 1:
            raise FewShotError(
                f"A coverage of {coverage} takes {int(np.ceil(1 / (1 - coverage) - 1e-9)) - 1} examples, and there "
                f"are {n}; state a lower one, or none."
            )
        return float(self.usual[place - 1])

    def parameters(self) -> dict[str, Tensor]:
        """The tensors, to be saved with a model."""
        return {f"{PREFIX}{self.rule}.{name}": getattr(self, name) for name in ("usual", "keys")}


def kept_fits(model: TaskModel, rule: Rule) -> Fits | None:
    """What an earlier call found and the model keeps; None where there was none."""
    found = {n: model.decoding_parameters.get(f"{PREFIX}{rule}.{n}") for n in ("usual", "keys")}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    return Fits(rule, **tensors) if len(tensors) == len(found) else None


@torch.no_grad()
def fits_of_support(pipeline: Pipeline, model: TaskModel, examples: Sequence[Example], rule: Rule) -> Fits:
    """What is usual among the support texts; see the module.

    Raises:
        FewShotError: there is no such rule, or fewer than two examples.
    """
    if rule not in get_args(Rule):
        raise FewShotError(f"There is no rule {rule!r} of rejection. Known: {', '.join(get_args(Rule))}.")
    if len(examples) < 2:
        raise FewShotError(
            f"To know what fits no label takes two examples at least; the model has {len(examples)}."
        )
    labels = [model.labels.index(e.target) for e in examples]
    if rule in ("probability", "energy") and len(set(labels)) == len(labels):
        raise FewShotError(f"The rule {rule!r} takes two examples of a label at least; take another rule.")
    queries = [model.pipeline.task.asked(e) for e in examples]
    if rule in ("probability", "energy"):
        place = torch.from_numpy(stratified_folds(np.array(labels), FOLDS))
        fits = torch.zeros(len(examples))
        for fold in range(FOLDS):
            others = [e for e, out in zip(examples, place == fold, strict=True) if not out]
            asked = [q for q, out in zip(queries, place == fold, strict=True) if out]
            if asked:
                scores = _scores(pipeline.adapt(others, model.labels), asked)
                fits[place == fold] = _of_scores(scores, rule).cpu()
        usual = fits[place >= 0].sort().values  # a label's only example is never left out
        if rule == "energy" and float(usual.std()) < 1e-4:
            raise FewShotError(
                f"The scores of {pipeline.learner.name} are log-probabilities, whose energy is always 0; take another "
                "rule."
            )
        return Fits(rule, usual, torch.zeros(0))
    keys = unit_vectors(model.pipeline, queries, model.labels)
    target = F.one_hot(torch.tensor(labels), len(model.labels)).to(keys)
    if rule == "neighbours":
        usual = (keys @ keys.T).fill_diagonal_(-1.0).max(dim=1).values
        return Fits(rule, usual.sort().values, keys)
    sums = target.T @ keys
    left_out = F.normalize(sums[labels] - keys, dim=1)
    own = (keys * left_out).sum(dim=1)
    nearest = (keys @ F.normalize(sums, dim=1).T).masked_fill(target.bool(), -1.0).max(dim=1).values
    usual = torch.maximum(own, nearest)
    shown = target.sum(dim=0) > 0
    return Fits(rule, usual.sort().values, F.normalize(sums[shown], dim=1))


@torch.no_grad()
def fits(model: TaskModel, queries: Sequence[Query], found: Fits) -> Float[np.ndarray, " n"]:
    """How well each text fits; higher is better."""
    parts = []
    for start in range(0, len(queries), CHUNK):
        part = queries[start : start + CHUNK]
        if not len(found.keys):
            parts.append(_of_scores(_scores(model, part), found.rule))
            continue
        vectors = unit_vectors(model.pipeline, part, model.labels)
        parts.append((vectors @ found.keys.to(vectors).T).max(dim=1).values)
    return torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)


def with_fits(model: TaskModel, found: Fits) -> TaskModel:
    """The model that keeps them, also when it is saved."""
    return replace(model, decoding_parameters={**model.decoding_parameters, **found.parameters()})


def reason(fit: float, threshold: float, rule: Rule) -> str:
    """Why a text has no label."""
    return f"its {WORDS[rule]} is {fit:.2f}, below {threshold:.2f}"


@torch.no_grad()
def unit_vectors(
    pipeline: Pipeline, queries: Sequence[Query], labels: Sequence[Label]
) -> Float[Tensor, "n d"]:
    """Unit vectors of texts by the last layer of the frozen encoder."""
    learner = pipeline.learner
    with learner.encoder.as_loaded():
        features = learner.encoder.features(pipeline.queries(queries, labels))
    return F.normalize(learner.last_layer(features), dim=1)


def _scores(model: TaskModel, queries: Sequence[Query]) -> Float[Tensor, "n labels"]:
    return model.adapted.scores(model.pipeline.queries(queries, model.labels))


def _of_scores(scores: Float[Tensor, "n labels"], rule: Rule) -> Float[Tensor, " n"]:
    return scores.logsumexp(dim=1) if rule == "energy" else scores.log_softmax(dim=1).amax(dim=1).exp()
