"""The temperature of the tuned default, learned on texts of other tasks: `fewshot_nlp.learners.contrastive.scale_of`.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/temperature.py gather scores
    python evaluation/temperature.py fit scores

`gather` adapts to support sets from train and keeps the untempered log-probabilities of validation texts, a file each.
`fit` chooses the one number with the least mean log-loss over these files: of all sets, and of all but one, on which it
is then measured. No target of a benchmark is among the sets, but covid_q.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import support_set
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fewshot_nlp import FewShotClassifier
from fewshot_nlp.learners.contrastive import BEFORE, TUNED
from fewshot_nlp.learners.stacked_probe import INFORMATION
from fewshot_nlp.metrics.calibration import expected_calibration_error
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks.label_words import readable

SETS = (
    *("trec6", "csabstruct", "snips_intents", "scicite", "stackoverflow20", "clinc150", "covid_q"),
    *("acl_arc", "ag_news"),
)
MOST_LABELS, TEXTS = 20, 400


def gather(folder: Path, sets: list[str], shots: list[int], seeds: int) -> None:
    """Writes a file for each set, size and seed; those that are there stay."""
    model = FewShotClassifier.from_pretrained(learner_config={"calibrate": False})
    task, folder = model.pipeline.task, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for k, seed, name in [(k, seed, name) for k in shots for seed in range(seeds) for name in sets]:
        path = folder / f"{name}-{k}-{seed}.npz"
        if path.exists():
            continue
        support = support_set(task.dataset(load_rows(name, "train"), name), "classification", k, seed)
        labels = task.labels(support)
        kept = np.random.default_rng([seed, k]).permutation(labels)[:MOST_LABELS].tolist()
        support = tuple(e for e in support if e.target in kept)
        labels = task.labels(support)
        adapted = model.pipeline.adapt(support, labels, {label: readable(label) for label in labels})
        texts = [e for e in task.examples(load_rows(name, "validation")) if e.target in labels]
        texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:TEXTS]]
        with torch.no_grad():
            scores = adapted.adapted.scores(model.pipeline.queries([e.query for e in texts], labels))
        gold = [labels.index(e.target) for e in texts]
        before, tuned = (float(adapted.adapted.state[part + INFORMATION]) for part in (BEFORE, TUNED))
        np.savez(path, scores=scores.numpy(), gold=gold, before=before, tuned=tuned)
        print(path.name, f"{(scores.argmax(dim=1).numpy() == gold).mean():.3f}", flush=True)


def log_probabilities(file: Any, overfit: float) -> Any:
    """Of a file's texts, tempered as by `scale_of`; 0 for untempered ones."""
    inverse = np.exp(-overfit * max(0.0, file["tuned"] - file["before"]) * (1 - file["before"]))
    return log_softmax(inverse * file["scores"], axis=1)


def log_loss(overfit: float, files: list[Any]) -> float:
    """Mean over the files of their texts' mean log-loss."""
    found = [log_probabilities(f, overfit)[np.arange(len(f["gold"])), f["gold"]].mean() for f in files]
    return -float(np.mean(found))


def fit(folder: Path) -> str:
    """The number, and a table of calibration error and log-loss with each set left out in turn."""
    files = [(*path.stem.rsplit("-", 2)[:2], dict(np.load(path))) for path in sorted(folder.glob("*.npz"))]

    def learned(chosen: list[Any]) -> float:
        return float(minimize_scalar(log_loss, bounds=(0, 5), args=(chosen,), method="bounded").x)

    lines = [
        "| set left out | examples | accuracy | calibration error, before | after | log-loss, before | after |"
    ]
    lines += ["|---" * 7 + "|"]
    for name, k in sorted({(name, k) for name, k, _ in files}, key=lambda key: (key[0], int(key[1]))):
        own = learned([f for other, _, f in files if other != name])
        mine = [f for other, size, f in files if (other, size) == (name, k)]
        cells = []
        for overfit in (0.0, own):
            found = np.concatenate([log_probabilities(f, overfit) for f in mine])
            right = found.argmax(axis=1) == np.concatenate([f["gold"] for f in mine])
            error = expected_calibration_error(np.exp(found.max(axis=1)), right)
            cells.append((error, log_loss(overfit, mine)))
        (e0, l0), (e1, l1) = cells
        lines.append(f"| {name} | {k} | {right.mean():.3f} | {e0:.3f} | {e1:.3f} | {l0:.3f} | {l1:.3f} |")
    lines += ["", f"{learned([f for _, _, f in files]):.3f} on all"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["gather", "fit"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--k-shot", nargs="*", type=int, default=[4, 8, 16])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "gather":
        gather(options.folder, options.sets, options.k_shot, options.seeds)
    else:
        print(fit(options.folder))


if __name__ == "__main__":
    main()
