"""Trains the translation model that the package ships: a small Marian, German to English, and its vocabulary.

The corpus is a gzipped table of source, English and German. Each epoch draws every source as often as `SHARES` says;
the domains that adaptation is measured on (medical, legal, business) are left out. The rate is constant until the
last ``decay`` steps, so that a run can be made longer: start it again with more steps. Resumes from its last
checkpoint. On two cores, about 100 minutes:

    OMP_NUM_THREADS=2 accelerate launch --cpu --num_processes 1 recipes/pretrain_seq2seq.py \
        --config recipes/ship/translation.yaml --corpus <data>/de_en_pairs.tsv.gz --output_dir runs/marian_de_en

On an accelerator leave ``--cpu`` out, add ``--mixed_precision bf16``, and take a larger model.
"""

import argparse
import gzip
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from source_training import read_arguments
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel, MarianTokenizer
from transformers.utils.logging import disable_progress_bar

from fewshot_nlp import FewShotError
from fewshot_nlp.training.checkpoint import Checkpoint, load_newest, save_checkpoint

SHARES = {
    "tatoeba": 3.0,
    "multi30k_de_en": 1.5,
    "bcontrast_chat_de_en": 1.0,
    "ding": 0.35,
    "mo_de": 0.5,
    "lohelp": 0.7,
    "mdn": 0.1,
    "cpp": 0.06,
}
"""Times that an epoch reads each source; the domains to adapt to (openehr, the legal ones, smb) are left out."""
PAD, EOS, UNK = 0, 1, 2
LONGEST = 64
"""Tokens of a side; longer pairs are left out of training."""
HELD_OUT = 400
MUON_STEPS = 5
logger = logging.getLogger("pretrain_seq2seq")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result; a checkpoint of other settings is refused, but for ``steps`` and ``decay``."""

    seed: int = 0
    vocabulary: int = 6000
    width: int = 256
    inner: int = 1024
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 1
    meta_batch: int = 2500  # tokens in a step, of the two sides' mean, over all processes
    lr: float = 0.02  # of matrices, by Muon
    other_lr: float = 2e-3  # of embeddings, biases and norms, by Adam
    label_smoothing: float = 0.0
    dropout: float = 0.0
    warm: int = 100  # steps


Pairs = tuple[list[list[int]], list[list[int]], Tensor]


def read_corpus(path: Path) -> dict[str, list[tuple[str, str]]]:
    """German and English by source."""
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in SHARES}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                source, english, german = line.rstrip("\n").split("\t")
                if source in found:
                    found[source].append((german, english))
    except OSError as error:
        raise FewShotError(f"The corpus {path} cannot be read: {error.strerror or error}.") from error
    return found


def train_vocabulary(corpus: dict[str, list[tuple[str, str]]], folder: Path, size: int) -> MarianTokenizer:
    """A sentencepiece vocabulary of both languages, as a Marian tokeniser."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "source"
    if not (folder / "vocab.json").exists():
        texts = (
            text
            for name, pairs in sorted(corpus.items())
            for pair in pairs[:: max(1, round(0.5 / SHARES[name]))]
            for text in pair
        )
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts,
            model_prefix=str(prefix),
            vocab_size=size,
            character_coverage=0.9999,
            model_type="unigram",
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNK,
            bos_id=-1,
            num_threads=2,
            minloglevel=1,
            normalization_rule_name="nmt_nfkc",
        )
        Path(f"{prefix}.vocab").unlink()
        (folder / "source.model").rename(folder / "source.spm")
        (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
        vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    return MarianTokenizer(
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        vocab=str(folder / "vocab.json"),
        source_lang="de",
        target_lang="en",
        model_max_length=512,
    )


def encode(corpus: dict[str, list[tuple[str, str]]], vocabulary: Path) -> dict[str, list[np.ndarray]]:
    """Token ids of both sides by source, pairs that are too long left out."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    result = {}
    for name, pairs in corpus.items():
        sides = [pieces.encode([pair[i] for pair in pairs], num_threads=2) for i in (0, 1)]
        result[name] = [
            (np.array([*de, EOS], np.int16), np.array([*en, EOS], np.int16))
            for de, en in zip(*sides, strict=True)
            if 0 < len(de) < LONGEST and 0 < len(en) < LONGEST
        ]
    return result


def batches(encoded: dict[str, Any], settings: Settings) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Batches without end: pairs of near length together, in a random order; a function of the seed alone."""
    epoch = 0
    while True:
        random = np.random.default_rng([settings.seed, epoch])
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for name, share in SHARES.items():
            order = np.concatenate([random.permutation(len(encoded[name])) for _ in range(int(share) + 1)])
            pairs += [encoded[name][i] for i in order[: round(share * len(encoded[name]))]]
        keys = np.array([[len(de) + len(en), len(de)] for de, en in pairs]) + random.random((len(pairs), 2))
        order = np.lexsort(keys.T[::-1])
        size = np.array([(len(pairs[i][0]) + len(pairs[i][1])) / 2 for i in order]).cumsum()
        cuts = np.searchsorted(size, np.arange(settings.meta_batch, size[-1], settings.meta_batch))
        for part in random.permutation(np.array(np.split(order, cuts), dtype=object)):
            yield [pairs[i] for i in part]
        epoch += 1


def pad(rows: list[np.ndarray]) -> Tensor:
    """Rows as one matrix, filled up with `PAD`."""
    matrix = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for row, ids in zip(matrix, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(matrix)


def loss_of(model: nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]], smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of a target token; logits are made for real tokens only."""
    inner = model.module if hasattr(model, "module") else model
    device = inner.device
    source, target = pad([de for de, _ in pairs]).to(device), pad([en for _, en in pairs]).to(device)
    start = torch.full((len(pairs), 1), PAD, device=device)
    hidden = inner.model(
        input_ids=source,
        attention_mask=(source != PAD).long(),
        decoder_input_ids=torch.cat([start, target[:, :-1]], dim=1),
        use_cache=False,
    ).last_hidden_state
    real = target != PAD
    return F.cross_entropy(inner.lm_head(hidden[real]), target[real], label_smoothing=smoothing)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal by Newton-Schulz steps (Jordan et al. 2024), in float32.

    `torch.optim.Muon` does it in bfloat16, for which many processors have no fast product, and one matrix at a time.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "top": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every matrix."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
                self.state[p].setdefault("exp_avg", torch.zeros_like(p)).lerp_(p.grad, 0.05)
            for shape, same in shapes.items():
                moved = torch.stack([p.grad.lerp(self.state[p]["exp_avg"], 0.95) for p in same])
                moved = orthogonal(moved) * max(1, shape[0] / shape[1]) ** 0.5
                for p, direction in zip(same, moved, strict=True):
                    p.sub_(direction, alpha=group["lr"])


def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values brought near one: five steps of the quintic of Jordan et al."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(MUON_STEPS):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.transpose(1, 2) if tall else x


class Run:
    """A model, its optimizers, and the rate of each step."""

    def __init__(self, settings: Settings, model: MarianMTModel, folder: Path) -> None:
        self.settings, self.model, self.folder = settings, model, folder
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        matrices = [p for n, p in self.parameters.items() if p.dim() == 2 and "layers" in n]
        others = [p for n, p in self.parameters.items() if p.dim() != 2 or "layers" not in n]
        adam = torch.optim.AdamW(others, lr=settings.other_lr, betas=(0.9, 0.98), weight_decay=0.0)
        adam.param_groups[0]["top"] = settings.other_lr
        self.optimizers = [Muon(matrices, settings.lr), adam]
        self.step = 0

    def update(self, accelerator: Accelerator, steps: int, decay: int) -> None:
        """One step with the mean gradient of all processes."""
        for parameter in self.parameters.values():
            if accelerator.num_processes > 1:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
        nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        share = min((self.step + 1) / self.settings.warm, max(0.01, (steps - self.step) / decay), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * share
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1

    def save(self) -> None:
        """A checkpoint."""
        tensors: dict[str, Tensor] = {f"parameter.{n}": p for n, p in self.parameters.items()}
        for optimizer in self.optimizers:
            for name, parameter in self.parameters.items():
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{key}.{name}"] = value
        config = asdict(self.settings)
        found = Checkpoint(step=self.step, tensors=tensors, config=config, fingerprints={}, best=None)
        save_checkpoint(self.folder, found, keep_last=2)

    def resume(self) -> None:
        """Takes up the newest checkpoint, where there is one."""
        found = load_newest(self.folder, asdict(self.settings), {})
        if found is None:
            return
        self.step = found.step
        with torch.no_grad():
            for optimizer in self.optimizers:
                mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
                for name, parameter in self.parameters.items():
                    if id(parameter) not in mine:
                        continue
                    parameter.copy_(found.tensors[f"parameter.{name}"])
                    optimizer.state[parameter] = {
                        key: found.tensors[f"{key}.{name}"].to(parameter.device)
                        for key in ("exp_avg", "exp_avg_sq", "step")
                        if f"{key}.{name}" in found.tensors
                    }
        logger.info("going on from step %d", found.step)


def build(settings: Settings) -> MarianMTModel:
    """The untrained model."""
    torch.manual_seed(settings.seed)
    return MarianMTModel(
        MarianConfig(
            vocab_size=settings.vocabulary,
            decoder_vocab_size=settings.vocabulary,
            d_model=settings.width,
            encoder_layers=settings.encoder_layers,
            decoder_layers=settings.decoder_layers,
            encoder_attention_heads=settings.heads,
            decoder_attention_heads=settings.heads,
            encoder_ffn_dim=settings.inner,
            decoder_ffn_dim=settings.inner,
            activation_function="relu",
            dropout=settings.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            max_position_embeddings=512,
            scale_embedding=True,
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            forced_eos_token_id=None,
            bos_token_id=None,
        )
    )


def train(
    settings: Settings, corpus: Path, folder: Path, steps: int, decay: int, minutes: float, start: Path | None
) -> None:
    """Steps that are left, and then the model as it is."""
    accelerator = Accelerator()
    texts = read_corpus(corpus)
    if start is not None and not (folder / "tokenizer").exists():
        (folder / "tokenizer").mkdir(parents=True)
        for name in ("source.spm", "target.spm", "vocab.json"):
            shutil.copy(start / name, folder / "tokenizer" / name)
    tokenizer = train_vocabulary(texts, folder / "tokenizer", settings.vocabulary)
    encoded = encode(texts, folder / "tokenizer" / "source.spm")
    random = np.random.default_rng([settings.seed, 1 << 20])
    held = set(random.choice(len(encoded["tatoeba"]), HELD_OUT, replace=False).tolist())
    watched = [pair for i, pair in enumerate(encoded["tatoeba"]) if i in held]
    encoded["tatoeba"] = [pair for i, pair in enumerate(encoded["tatoeba"]) if i not in held]
    model = build(settings).to(accelerator.device)
    if start is not None:
        model.load_state_dict(MarianMTModel.from_pretrained(start, dtype=torch.float32).state_dict())
    run = Run(settings, model, folder / "checkpoints")
    run.resume()
    began, first = time.perf_counter(), run.step
    stream = batches(encoded, settings)
    for _ in range(run.step):
        next(stream)
    model.train()
    while run.step < steps:
        mine = next(stream)[accelerator.process_index :: accelerator.num_processes]
        with accelerator.autocast():
            loss = loss_of(model, mine, settings.label_smoothing)
        loss.backward()
        run.update(accelerator, steps, decay)
        if run.step % 100 == 0 or run.step == steps:
            model.eval()
            with torch.no_grad():
                validation = float(loss_of(model, watched))
            model.train()
            each = (time.perf_counter() - began) / (run.step - first)
            logger.info("step %d of %d: held-out loss %.4f, %.2f s a step", run.step, steps, validation, each)
        late = minutes > 0 and time.perf_counter() - began > 60 * minutes
        if accelerator.is_main_process and (run.step % 200 == 0 or run.step == steps or late):
            run.save()
        if late:
            break
    if accelerator.is_main_process:
        write(folder / "model", model, tokenizer)


def write(folder: Path, model: MarianMTModel, tokenizer: MarianTokenizer) -> None:
    """The model folder; tensors as float16. It is decoded to full length: at 1.0 a small model ends too early."""
    model.generation_config.length_penalty = 1.5
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    logger.info("%s", folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=5000, help="in all")
    parser.add_argument("--decay", type=int, default=1000, help="last steps, in which the rate falls to 0")
    parser.add_argument("--minutes", type=float, default=0, help="of this run; 0 for all steps that are left")
    parser.add_argument("--start", type=Path, help="model folder whose weights and vocabulary to begin with")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not sys.stderr.isatty():
        disable_progress_bar()
    for noisy in ("httpx", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        values = read_arguments(parser)
        corpus, folder = values.pop("corpus"), values.pop("output_dir")
        rest = [values.pop(name) for name in ("steps", "decay", "minutes", "start")]
        train(Settings(**values), corpus, folder, *rest)
    except FewShotError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
