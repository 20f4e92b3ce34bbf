"""Trains the start of question answering that the package ships: an adapter and a span head on general questions.

Several sources are read together, each context cut to a random stretch around its answer, which makes a step two to
three times as cheap as whole contexts do. Resumes from its last checkpoint when started again with the same settings.
One process on one core:

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=<data> accelerate launch --cpu --num_processes 1 \
        recipes/train_question_answering.py --config recipes/ship/question_answering.yaml \
        --output_dir runs/question_answering

Add ``--mixed_precision bf16`` where the processor has instructions for bfloat16, and there only.

Contexts of the validation and test splits of SQuAD are left out, whichever source they come from.
"""

import argparse
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from source_training import Run, read_arguments
from torch import nn

from fewshot_nlp import FewShotError, FewShotQA
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.persistence.model_card import model_card
from fewshot_nlp.persistence.storage import load, new_pipeline, save
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sources.loading import load_rows

SOURCES = ("squad_v1", "squad_v2", "squadshifts_amazon", "squadshifts_newwiki", "squadshifts_reddit")
NEVER = [(name, split) for name in ("squad_v1", "squad_v2") for split in ("validation", "test")]
LINEAR = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
ADAPTING: dict[str, Any] = {"start": "meta", "n_classes": 2, "scope": "head", "C": 0.1}
"""How the model adapts to a support set later; of no effect here."""
LONGEST_QUESTION = 250
"""Characters."""
logger = logging.getLogger("train_question_answering")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result; a checkpoint of other settings is refused."""

    steps: int = 1200
    meta_batch: int = 16  # rows in a step, over all processes
    lr: float = 2e-3
    head_lr: float = 1e-2
    train: str = "adapter"  # or "all" weights but the embeddings
    rank: int = 64  # of LoRA
    first_words: int = 40  # words of a stretch at the first step, on average; short ones are cheap
    last_words: int = 110  # and at the last
    negatives: float = 0.05  # share of stretches beside the answer
    limit: int = 0  # rows of each source; 0 for all
    seed: int = 0


def sources(limit: int) -> list[dict[str, Any]]:
    """Distinct training rows of all sources, without the contexts that SQuAD is evaluated on."""
    closed = {row["context"] for name, split in NEVER for row in load_rows(name, split)}
    rows = [row for name in SOURCES for row in load_rows(name, "train")[: limit or None]]
    chosen = [
        row for row in rows if row["context"] not in closed and len(row["question"]) <= LONGEST_QUESTION
    ]
    return list({(row["question"], row["context"]): row for row in reversed(chosen)}.values())[::-1]


def crop(
    row: dict[str, Any], generator: np.random.Generator, words: float, settings: Settings
) -> dict[str, Any]:
    """A stretch of the context that holds the first answer, or, rarely, none of the answers."""
    context, answers = row["context"], row["answers"]
    edges = [0, *(i + 1 for i, c in enumerate(context) if c == " "), len(context)]
    size = int(words * generator.uniform(0.6, 1.4))
    last = len(edges) - 1 - size
    spans = [(s, s + len(t)) for s, t in zip(answers["answer_start"], answers["text"], strict=True)]
    if last <= 0:
        return row
    first = int(generator.integers(0, last + 1))
    if spans and generator.random() >= settings.negatives:
        start, end = spans[0]
        lowest = max(0, int(np.searchsorted(edges, end)) - size)
        highest = min(last, int(np.searchsorted(edges, start, side="right")) - 1)
        first = int(generator.integers(min(lowest, highest), highest + 1))
    low, high = edges[first], edges[min(first + size, len(edges) - 1)]
    if spans and spans[0][0] >= low:
        high = max(high, spans[0][1]) if spans[0][0] < high else high
    kept = [(s, e) for s, e in spans if low <= s and e <= high]
    return {
        "question": row["question"],
        "context": context[low:high],
        "answers": {"text": [context[s:e] for s, e in kept], "answer_start": [s - low for s, _ in kept]},
    }


def batch_rows(rows: list[dict[str, Any]], step: int, settings: Settings) -> list[dict[str, Any]]:
    """The rows of one step: epochs are permutations, crops depend on the row's number in the stream alone."""
    result = []
    words = settings.first_words + (settings.last_words - settings.first_words) * step / settings.steps
    for number in range(step * settings.meta_batch, (step + 1) * settings.meta_batch):
        epoch, place = divmod(number, len(rows))
        order = np.random.default_rng([settings.seed, 0, epoch]).permutation(len(rows))
        generator = np.random.default_rng([settings.seed, 1, number])
        result.append(crop(rows[order[place]], generator, words, settings))
    return result


def build(settings: Settings, device: torch.device, start: Path | None) -> Pipeline:
    """The bundled encoder with its adapter, and a fine-tuning learner with a meta-learned span head."""
    from peft import LoraConfig

    if start is not None:
        pipeline = load(start, learner="fine_tune", learner_config=ADAPTING).pipeline
        pipeline.learner.encoder.model.to(device)
        pipeline.learner.to(device)
        return pipeline
    encoder = Encoder.from_pretrained(None)
    if settings.train == "adapter":
        encoder.attach(
            LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=LINEAR), seed=settings.seed
        )
    pipeline = new_pipeline("question_answering", {}, encoder, "fine_tune", ADAPTING)
    encoder.model.to(device)
    pipeline.learner.to(device)
    return pipeline


def trainable(pipeline: Pipeline) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """What moves by name: the adapter (or the layers), and the head."""
    encoder = pipeline.learner.encoder
    layers = {n: p for n, p in encoder.parameters().items() if not n.startswith(("embeddings.", "pooler."))}
    head = {f"learner.{n}": p for n, p in pipeline.learner.named_parameters()}
    return encoder.adapter or layers, head


def train(settings: Settings, folder: Path, stop_after: int, start: Path | None) -> None:
    """Steps that are left, at most so many as a run may do, and then the model as it is."""
    accelerator = Accelerator()
    pipeline = build(settings, accelerator.device, start)
    learner, task = pipeline.learner, pipeline.task
    rows = sources(settings.limit)
    body, head = trainable(pipeline)
    run = Run(
        body,
        head,
        lr=settings.lr,
        head_lr=settings.head_lr,
        steps=settings.steps,
        settings=asdict(settings),
        data={"rows": str(len(rows))},
        folder=folder / "checkpoints",
    )
    run.resume()
    began, first, mean = time.perf_counter(), run.step, 0.0
    last = min(settings.steps, run.step + (stop_after or settings.steps))
    while run.step < last:
        mine = batch_rows(rows, run.step, settings)[accelerator.process_index :: accelerator.num_processes]
        batch = task.collate(task.examples(mine), (), learner.encoder.tokenizer, with_targets=True)
        with accelerator.autocast():
            loss = learner.meta_loss(batch, batch)
        loss.backward()
        run.update(accelerator)
        mean = float(loss.detach()) if run.step == first + 1 else 0.98 * mean + 0.02 * float(loss.detach())
        if run.step % 20 == 0 or run.step == last:
            speed = (run.step - first) * settings.meta_batch / (time.perf_counter() - began)
            logger.info("step %d of %d: loss %.3f, %.1f rows/s", run.step, settings.steps, mean, speed)
        if accelerator.is_main_process and (run.step % 100 == 0 or run.step == last):
            run.save()
    for parameter in run.parameters.values():
        parameter.requires_grad_(False)
    if settings.train == "all":
        learner.encoder.mark_trained()
    for parameter in learner.parameters():
        parameter.requires_grad_()
    if accelerator.is_main_process:
        write(folder / "model", pipeline, settings, run.step)


def write(folder: Path, pipeline: Pipeline, settings: Settings, step: int) -> None:
    """The model folder with its card; tensors as float16."""
    config = asdict(settings) | {
        "outer": {"steps": settings.steps, "meta_batch": settings.meta_batch, "lr": settings.lr},
        "run": {"seed": settings.seed},
        "data": {"sources": [{"name": name, "split": "train"} for name in SOURCES]},
    }
    extra = {
        "license": "cc-by-sa-4.0",
        "language": "en",
        "meta_training": {"config": config, "step": step, "validation": None},
    }
    card = model_card(FewShotQA.of(pipeline, extra=extra), "question_answering")
    save(folder, pipeline, extra=extra, files={"README.md": card}, half=True)
    logger.info("%s", folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output_dir", required=True, type=Path)
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument(
        "--stop_after", type=int, default=0, help="steps of this run; 0 for all that are left"
    )
    parser.add_argument("--start", type=Path, help="model folder whose adapter and head to begin with")
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(asctime)s %(message)s")
    for noisy in ("httpx", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        values = read_arguments(parser)
        folder, stop_after, start = (values.pop(name) for name in ("output_dir", "stop_after", "start"))
        train(Settings(**values), folder, stop_after, start and Path(start))
    except FewShotError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
