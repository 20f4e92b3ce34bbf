"""Trains the start of question answering that the package ships: an adapter and a span head on general questions.

Several sources are read together, each context cut to a random stretch around its answer, which makes a step two to
three times as cheap as whole contexts do. Resumes from its last checkpoint when started again with the same settings.
One process on one core, about 35 minutes:

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=<data> accelerate launch --cpu --num_processes 1 --mixed_precision bf16 \
        recipes/train_question_answering.py --output_dir runs/question_answering

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

from fewshot_nlp import FewShotError
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sources.loading import load_rows
from fewshot_nlp.storage import new_pipeline, save
from fewshot_nlp.training.checkpoint import Checkpoint, load_newest, save_checkpoint

SOURCES = ("squad_v1", "squad_v2", "squadshifts_amazon", "squadshifts_newwiki", "squadshifts_reddit")
NEVER = [(name, split) for name in ("squad_v1", "squad_v2") for split in ("validation", "test")]
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


def build(settings: Settings, device: torch.device) -> Pipeline:
    """The bundled encoder with its adapter, and a fine-tuning learner with a meta-learned span head."""
    from peft import LoraConfig

    encoder = Encoder.from_pretrained(None)
    scope = "all"
    if settings.train == "adapter":
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank,
            target_modules=[
                "query",
                "key",
                "value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ],
        )
        encoder.attach(lora, seed=settings.seed)
        scope = "adapter"
    pipeline = new_pipeline(
        "question_answering", {}, encoder, "fine_tune", {"scope": scope, "start": "meta", "n_classes": 2}
    )
    encoder.model.to(device)
    pipeline.learner.to(device)
    return pipeline


def train(settings: Settings, folder: Path) -> None:
    accelerator = Accelerator()
    pipeline = build(settings, accelerator.device)
    learner, task = pipeline.learner, pipeline.task
    moving = learner.encoder.adapter or {
        n: p for n, p in learner.encoder.parameters().items() if "embeddings" not in n and "pooler" not in n
    }
    for parameter in moving.values():
        parameter.requires_grad_()
    head = dict(learner.named_parameters())
    trained = {**moving, **{f"learner.{n}": p for n, p in head.items()}}
    optimiser = torch.optim.AdamW(
        [
            {"params": list(moving.values()), "lr": settings.lr},
            {"params": list(head.values()), "lr": settings.head_lr},
        ],
        weight_decay=0.01,
    )
    warm = max(1, settings.steps // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / warm, max(0.02, 1 - s / settings.steps))
    )
    rows = sources(settings.limit)
    step = resume(folder / "checkpoints", settings, trained, optimiser, schedule, len(rows))
    began, mean = time.perf_counter(), None
    first = step
    while step < settings.steps:
        mine = batch_rows(rows, step, settings)[accelerator.process_index :: accelerator.num_processes]
        batch = task.collate(task.examples(mine), (), learner.encoder.tokenizer, with_targets=True)
        with accelerator.autocast():
            loss = learner.meta_loss(batch, batch)
        loss.backward()
        if accelerator.num_processes > 1:
            for parameter in trained.values():
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        step += 1
        mean = float(loss.detach()) if mean is None else 0.98 * mean + 0.02 * float(loss.detach())
        if step % 20 == 0 or step == settings.steps:
            speed = (step - first) * settings.meta_batch / (time.perf_counter() - began)
            logger.info("step %d of %d: loss %.3f, %.1f rows/s", step, settings.steps, mean, speed)
        if accelerator.is_main_process and (step % 100 == 0 or step == settings.steps):
            checkpoint(folder / "checkpoints", settings, trained, optimiser, step, len(rows))
    for parameter in moving.values():
        parameter.requires_grad_(False)
    if settings.train == "all":
        learner.encoder.mark_trained()
    if accelerator.is_main_process:
        save(folder / "model", pipeline, extra={"training": asdict(settings)})


def checkpoint(folder, settings, trained, optimiser, step, n_rows) -> None:
    tensors = {f"parameter.{n}": p for n, p in trained.items()}
    for name, parameter in trained.items():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = optimiser.state[parameter][key]
    save_checkpoint(
        folder,
        Checkpoint(
            step=step, tensors=tensors, config=asdict(settings), fingerprints={"rows": str(n_rows)}, best=None
        ),
        keep_last=1,
    )


def resume(folder, settings, trained, optimiser, schedule, n_rows) -> int:
    found = load_newest(folder, asdict(settings), {"rows": str(n_rows)})
    if found is None:
        return 0
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(found.tensors[f"parameter.{name}"])
            optimiser.state[parameter] = {
                "step": torch.tensor(float(found.step)),
                **{key: found.tensors[f"{key}.{name}"].clone() for key in ("exp_avg", "exp_avg_sq")},
            }
    schedule.last_epoch = found.step - 1
    schedule.step()
    return found.step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", required=True, type=Path)
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    values = vars(parser.parse_args())
    folder = values.pop("output_dir")
    logging.basicConfig(
        level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR,
        format="%(asctime)s %(message)s",
    )
    for noisy in ("httpx", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        train(Settings(**values), folder)
    except FewShotError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
