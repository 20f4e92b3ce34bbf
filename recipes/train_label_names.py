"""Trains the start of entity recognition that the package ships: an adapter in the top layers and a head of label
names.

Rows of general, scientific and intent sources are read together; in each step a source asks for some of its types only,
the others are "O", so that the head learns to look for what it is asked for. The settings and the words for each type
stand in a YAML file. Resumes from its last checkpoint when started again with the same settings. On one core:

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=<data> accelerate launch --cpu --num_processes 1 recipes/train_label_names.py \
        --config recipes/ship/ner.yaml --output_dir runs/ner
"""

import argparse
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from accelerate import Accelerator
from source_training import Run
from torch import Tensor

from fewshot_nlp import FewShotError, FewShotNER
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.label_names import LabelNameHead
from fewshot_nlp.episode import Example
from fewshot_nlp.persistence.model_card import model_card
from fewshot_nlp.persistence.storage import new_pipeline, save
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.sources.loading import load_rows
from fewshot_nlp.tasks.label_words import readable
from fewshot_nlp.tasks.ner import NER

LINEAR = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
ABOUT = """## How it was made

On one core, resumable (settings, sources and the words for each type in the YAML):

```bash
OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=<data> accelerate launch --cpu --num_processes 1 recipes/train_label_names.py \\
    --config recipes/ship/ner.yaml --output_dir runs/ner
```

The adapter stands {share:g} of the way from the frozen encoder to the trained one. Medical, legal and finance texts
were not trained on. Scores on them (strict `entity_f1_strict_iob2`) are in `evaluation/results/quality.md`, the
record of each choice in `evaluation/results/journal.md`. Types called by codes need descriptions:
`adapt(rows, labels={{"GGP": "gene"}})`.
"""
AFTERWARDS = ("interpolation", "layers", "learner_config")
"""Settings that a finished run can be written with anew."""
logger = logging.getLogger("train_label_names")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result; a checkpoint of other settings is refused."""

    sources: dict[str, list[str]]  # data set to its splits
    names: dict[str, list[str]] = field(default_factory=dict)  # type to words for it, one drawn each time
    steps: int = 2400
    meta_batch: int = 32  # rows in a step, over all processes
    groups: int = 4  # sources in a step
    interpolation: float = 1.0  # share of the way from the frozen encoder to the trained one that ships
    layers: list[int] = field(default_factory=lambda: [3, 5])  # that the default learner reads, of six
    learner_config: dict[str, Any] = field(default_factory=dict)  # of the default learner; of no effect here
    longest: int = 60  # words of a row; longer rows are cut there
    by_type: float = 0.75  # share of rows that are drawn by a type in them
    subset: float = 0.5  # how often a source asks for some of its types only
    largest: float = 60.0  # bound of a source's weight, the root of rows x types
    lr: float = 1.5e-3
    head_lr: float = 1e-3
    rank: int = 32
    alpha: int = 64
    top_layers: int = 3
    seed: int = 0


class Source:
    """Rows of a data set, by type.

    Args:
        name: of its card.
        splits: of it.
        longest: words of a row.
    """

    def __init__(self, name: str, splits: list[str], longest: int) -> None:
        task = NER(scheme="bio")
        rows = [row for split in splits for row in load_rows(name, split)]
        cut = [
            Example({"tokens": e.inputs["tokens"][:longest]}, e.target[:longest]) for e in task.examples(rows)
        ]
        self.name = name
        self.examples = [e for e in cut if any(t.strip() for t in e.inputs["tokens"])]
        self.types = sorted({t for e in self.examples for t in task.labels_of(e)})
        self.having = {
            t: [i for i, e in enumerate(self.examples) if t in task.labels_of(e)] for t in self.types
        }

    def weight(self, largest: float) -> float:
        """How often it is drawn, relative to the others."""
        return float(min(largest, (len(self.examples) * len(self.types)) ** 0.5))

    def draw(
        self, random: np.random.Generator, n_rows: int, settings: Settings
    ) -> tuple[list[Example], list[str]]:
        """Some rows, and the types that are asked for."""
        types = self.types
        if len(types) > 1 and random.random() < settings.subset:
            chosen = random.choice(len(types), int(random.integers(1, len(types))), replace=False)
            types = [types[i] for i in sorted(chosen)]
        rows = []
        for _ in range(n_rows):
            if random.random() < settings.by_type:
                rows.append(int(random.choice(self.having[types[random.integers(len(types))]])))
            else:
                rows.append(int(random.integers(len(self.examples))))
        wanted = frozenset(types)
        restrict = NER(scheme="bio").restrict
        return [
            Example(e.inputs, restrict(e.target, wanted)) for e in (self.examples[i] for i in rows)
        ], types


def batch_of(
    sources: list[Source], step: int, settings: Settings
) -> list[tuple[int, list[Example], list[str], list[str]]]:
    """The rows of one step by source: its number, rows, types, and the types' words; a function of seed and step."""
    random = np.random.default_rng([settings.seed, step])
    weight = np.array([source.weight(settings.largest) for source in sources])
    drawn = random.choice(len(sources), settings.groups, replace=False, p=weight / weight.sum())
    found = []
    for number in drawn.tolist():
        rows, types = sources[number].draw(random, settings.meta_batch // settings.groups, settings)
        known = [settings.names.get(t, [readable(t)]) for t in types]
        found.append((number, rows, types, [words[random.integers(len(words))] for words in known]))
    return found


class Model:
    """Encoder and head, and the loss of a step.

    Args:
        settings: of the run.
        n_sources: each has a bias of its own for "O", which is left behind after training: sources differ in how much
            they leave out.
        device: of the encoder.
    """

    def __init__(self, settings: Settings, n_sources: int, device: torch.device) -> None:
        from peft import LoraConfig

        self.encoder = Encoder.from_pretrained(None)
        plain = Encoder.from_pretrained(None)
        self.encoder.attach(
            LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=LINEAR),
            settings.top_layers,
            settings.seed,
        )
        self.head = LabelNameHead(
            self.encoder.dimension, layer=self.encoder.layers[-1], seed=settings.seed
        ).to(device)
        self.head.rest_bias.requires_grad_(False)  # the sources have one each
        self.bias = torch.nn.Parameter(torch.zeros(n_sources, device=device))
        self.encoder.model.to(device)
        self.task = NER(scheme="bio")

        @cache
        def name_vector(text: str) -> Tensor:
            batch = self.task.collate((), ["x"], plain.tokenizer, with_targets=True, descriptions={"x": text})
            with torch.no_grad():
                return plain.features(batch)[0].to(device)

        self.name_vector = name_vector

    def loss(self, drawn: list[tuple[int, list[Example], list[str], list[str]]]) -> Tensor:
        """Mean cross-entropy of a word, each source by itself over the types that it was asked for."""
        everything = [e for _, rows, _, _ in drawn for e in rows]
        batch: SlotBatch = self.task.collate(everything, (), self.encoder.tokenizer, with_targets=False)
        features = self.encoder.features(batch)
        losses, at = [], 0
        for number, rows, types, words in drawn:
            classes = self.task.classes(types)
            place = {c: i for i, c in enumerate(classes)}
            gold = torch.tensor([place[t] for e in rows for t in e.target], device=features.device)
            names = torch.stack([self.name_vector(w) for w in words]).repeat_interleave(2, dim=0)
            names = torch.cat([torch.zeros_like(names[:1]), names])
            coarse = [0, *(1 + i // 2 for i in range(2 * len(types)))]
            state = self.head.linear_head(names, [False] + [True] * (len(classes) - 1), coarse)
            scores = self.head.linear_scores(state, features[at : at + len(gold)])
            shift = F.one_hot(torch.zeros((), dtype=torch.long), len(classes)).to(scores) * self.bias[number]
            losses.append(F.cross_entropy(scores + shift, gold))
            at += len(gold)
        return torch.stack(losses).mean()


def train(settings: Settings, folder: Path, stop_after: int) -> None:
    """Steps that are left, at most so many as a run may do, and then the model as it is."""
    accelerator = Accelerator()
    sources = [Source(name, splits, settings.longest) for name, splits in sorted(settings.sources.items())]
    model = Model(settings, len(sources), accelerator.device)
    head = {f"head.{n}": p for n, p in model.head.named_parameters() if p.requires_grad} | {
        "bias": model.bias
    }
    run = Run(
        model.encoder.adapter,
        head,
        lr=settings.lr,
        head_lr=settings.head_lr,
        steps=settings.steps,
        settings={k: v for k, v in asdict(settings).items() if k not in AFTERWARDS},
        data={source.name: str(len(source.examples)) for source in sources},
        folder=folder / "checkpoints",
    )
    run.resume()
    began, first, mean = time.perf_counter(), run.step, 0.0
    last = min(settings.steps, run.step + (stop_after or settings.steps))
    while run.step < last:
        mine = batch_of(sources, run.step, settings)[accelerator.process_index :: accelerator.num_processes]
        with accelerator.autocast():
            loss = model.loss(mine)
        loss.backward()
        run.update(accelerator)
        mean = float(loss.detach()) if run.step == first + 1 else 0.98 * mean + 0.02 * float(loss.detach())
        if run.step % 20 == 0 or run.step == last:
            each = (time.perf_counter() - began) / (run.step - first)
            logger.info("step %d of %d: loss %.3f, %.2f s a step", run.step, settings.steps, mean, each)
        if accelerator.is_main_process and (run.step % 100 == 0 or run.step == last):
            run.save()
    for parameter in run.parameters.values():
        parameter.requires_grad_(False)
    if accelerator.is_main_process:
        write(folder / "model", model, settings, run.step)


def write(folder: Path, model: Model, settings: Settings, step: int) -> None:
    """The model folder with its card; tensors as float16. The mean of the sources' biases stays with the head.

    LoRA's part is made smaller by ``interpolation`` (Wortsman et al. 2022, equation 1: between the weights before and
    after).
    """
    for name, parameter in model.encoder.adapter.items():
        if "lora_B" in name:
            parameter.data *= settings.interpolation
    config = asdict(settings) | {
        "outer": {"steps": settings.steps, "meta_batch": settings.meta_batch, "lr": settings.lr},
        "run": {"seed": settings.seed},
        "data": {
            "sources": [{"name": n, "split": s} for n, splits in settings.sources.items() for s in splits]
        },
    }
    model.head.rest_bias.data += model.bias.mean()
    encoder = model.encoder
    encoder.head = model.head.requires_grad_(False)
    encoder.choose_layers(settings.layers)
    pipeline = new_pipeline("ner", {"scheme": "bio"}, encoder, "context_probe", settings.learner_config)
    extra = {
        "license": "cc-by-sa-4.0",
        "language": "en",
        "meta_training": {"config": config, "step": step, "validation": None},
    }
    card = model_card(FewShotNER.of(pipeline, extra=extra), "ner").replace('("ner")', "()")
    head, limits = card.split("## Limits")
    card = f"{head}{ABOUT.format(share=settings.interpolation)}\n## Limits{limits}"
    save(folder, pipeline, extra=extra, files={"README.md": card}, half=True)
    logger.info("%s", folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument(
        "--stop_after", type=int, default=0, help="steps of this run; 0 for all that are left"
    )
    options = parser.parse_args()
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(asctime)s %(message)s")
    for noisy in ("httpx", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    values: dict[str, Any] = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    try:
        train(Settings(**values), options.output_dir, options.stop_after)
    except FewShotError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
