"""How unlike each other the sources of a mixture are, from a sample of their texts; no model is run."""

from collections.abc import Mapping
from itertools import pairwise
from math import exp

import numpy as np
from jaxtyping import Float

from fewshot_nlp.episode import Json, TaskDataset
from fewshot_nlp.sampling import generator
from fewshot_nlp.training.leakage import words_of

NO_WORD = ""
"""Stands for the words of a text that has none."""


def mixture_diversity(
    data: Mapping[str, TaskDataset], shares: Mapping[str, float], rows: int
) -> dict[str, Json]:
    """Diversity of a mixture over its sources' mean TF-IDF vectors.

    Args:
        data: the sources.
        shares: how often each is drawn; they add up to 1.
        rows: rows of each to look at, at least 1; always the same ones.

    Returns:
        ``effective_sources``: the exponential of the shares' entropy, from 1 to the number of sources;
        ``vendi_score``: the same where like sources count as one: the exponential of the entropy of the eigenvalues of
        ``sqrt(share_i share_j) cosine_ij``, the probability-weighted Vendi score (Friedman and Dieng 2023);
        ``mean_distance``: 1 - cosine of two episodes' sources, given that they differ; 0 for one source;
        ``nearest``: the two sources most alike, and their cosine.
    """
    names = sorted(data)
    p = np.array([shares[name] for name in names])
    cosine = _cosines([_sample(data[name], rows) for name in names])
    pairs = np.outer(p, p) * (1 - np.eye(len(names)))
    result: dict[str, Json] = {
        "sources": len(names),
        "effective_sources": round(_effective(p), 3),
        "vendi_score": round(_effective(np.linalg.eigvalsh(np.sqrt(np.outer(p, p)) * cosine)), 3),
        "mean_distance": round(float((pairs * (1 - cosine)).sum() / pairs.sum()) if pairs.any() else 0.0, 3),
    }
    if len(names) > 1:
        i, j = divmod(int(np.argmax(cosine - 2 * np.eye(len(names)))), len(names))
        result["nearest"] = [names[i], names[j], round(float(cosine[i, j]), 3)]
    return result


def in_words(found: Mapping[str, Json]) -> str:
    """One line for people."""
    told = (
        f"The mixture has {found['sources']} sources, {found['effective_sources']:g} in effect by how often they are "
        f"drawn, {found['vendi_score']:g} by their texts as well (Vendi score); mean distance "
        f"{found['mean_distance']:g}"
    )
    if "nearest" not in found:
        return f"{told}."
    return told + ", nearest: {} and {} (cosine {:g}).".format(*found["nearest"])


def _sample(data: TaskDataset, rows: int) -> list[list[str]]:
    rng = generator(data.fingerprint, {"sampler": "diversity"}, 0, 0)
    chosen = rng.permutation(len(data))[:rows].tolist()
    return [[word for words in words_of(data.examples[i]) for word in words] for i in chosen]


def _cosines(texts: list[list[list[str]]]) -> Float[np.ndarray, "n_sources n_sources"]:
    """Cosine similarities of the sources' mean TF-IDF vectors."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    weigh = TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True)
    vectors = weigh.fit_transform([words or [NO_WORD] for rows in texts for words in rows])
    ends = np.cumsum([0, *map(len, texts)]).tolist()
    means = np.stack([np.asarray(vectors[a:b].mean(axis=0)).ravel() for a, b in pairwise(ends)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means @ means.T)


def _effective(shares: Float[np.ndarray, " n"]) -> float:
    """The exponential of the entropy of numbers that add up to 1."""
    some = shares[shares > 1e-12]
    return exp(-float((some * np.log(some)).sum()))
