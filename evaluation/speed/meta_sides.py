"""One meta-gradient by this package and by learn2learn: same encoder, adapters, head, rates, steps and episodes."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.adapters import default_adapter
from fewshot_nlp.backbone.bundled import bundled_folder
from fewshot_nlp.episode import Episode
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sampling import NWayKShot
from fewshot_nlp.sources import load_rows
from fewshot_nlp.training.outer_step import meta_loss

STEPS, RATE, SCALE, N_WAY = 5, 0.1, 4.0, 5
Gradient = dict[str, Tensor]


def banking(n_episodes: int, k_shot: int = 5, n_query: int = 5) -> list[Episode]:
    """Episodes of BANKING77's training rows; they meet rows again as those of a long run do."""
    task = new_pipeline("classification", {}, Encoder.from_pretrained(), "maml", None).task
    sampler = NWayKShot(task.dataset(load_rows("banking77", "train"), "banking77"), N_WAY, k_shot, n_query)
    return [sampler.episode(i) for i in range(n_episodes)]


def start_values(adapter: Mapping[str, Tensor]) -> None:
    """Gives both sides' LoRA the same values, B's not zero as at its start, where A would have no gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in sorted(adapter):
            adapter[name].copy_(0.03 * torch.randn(adapter[name].shape, generator=generator))


class Ours:
    """The package as its meta-training runs it.

    Args:
        top_layers: of the encoder's, with LoRA; None for all.
        first_order: leave second derivatives out.
        steps: inner steps.
        bfloat16: autocast, as accelerate's mixed precision does.
        encoder: another than the bundled one.
    """

    def __init__(
        self,
        top_layers: int | None,
        first_order: bool,
        steps: int = STEPS,
        *,
        bfloat16: bool = False,
        encoder: Encoder | None = None,
    ) -> None:
        self.encoder = encoder or Encoder.from_pretrained()
        self.encoder.attach(default_adapter(), top_layers)
        start_values(self.encoder.adapter)
        config = {
            "head": "zeros",
            "inner_steps": steps,
            "inner_lr": RATE,
            "head_lr": RATE,
            "scale": SCALE,
            "first_order": first_order,
        }
        self.pipeline: Pipeline = new_pipeline("classification", {}, self.encoder, "maml", config)
        for parameter in self.encoder.adapter.values():
            parameter.requires_grad_(True)
        self.bfloat16 = bfloat16

    def gradient(self, episode: Episode) -> Gradient:
        """The gradient of the query's loss in the adapter's start values."""
        with self._precision():
            loss = meta_loss(self.pipeline, episode)
        names, values = zip(*self.encoder.adapter.items(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, values), strict=True))

    def meet(self, episode: Episode) -> None:
        """Shows the cache the episode's texts."""
        batch = self.pipeline.queries([*episode.support, *episode.query], episode.label_names)
        with torch.no_grad(), self._precision():
            self.encoder.features(batch)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if self.bfloat16 else nullcontext()


class Learn2Learn(nn.Module):
    """The peer as its users run it: `MAML.clone` and `adapt` over a Hugging Face model, padded batches, PEFT's LoRA.

    Args:
        top_layers: with LoRA; None for all; "full" for the whole model's weights instead of LoRA's.
        first_order: leave second derivatives out, and keep fused attention, which has no second derivative.
        steps: inner steps.
    """

    def __init__(self, top_layers: int | str | None, first_order: bool, steps: int = STEPS) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, AutoTokenizer

        super().__init__()
        folder = str(bundled_folder())
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        attention = "sdpa" if first_order else "eager"
        self.encoder: Any = AutoModel.from_pretrained(folder, attn_implementation=attention)
        if top_layers != "full":
            depth = self.encoder.config.num_hidden_layers
            layers = list(range(depth - int(top_layers or depth), depth))
            config = LoraConfig(
                r=8, lora_alpha=16, target_modules=["query", "value"], layers_to_transform=layers
            )
            self.encoder = get_peft_model(self.encoder, config)
            start_values({n: p for n, p in self.encoder.named_parameters() if p.requires_grad})
        self.head = nn.Linear(self.encoder.config.hidden_size, N_WAY)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.eval()
        self.steps = steps
        maml = learn2learn_maml()
        self.__dict__["maml"] = maml(
            self, RATE, first_order=first_order, allow_nograd=True, allow_unused=True
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Scores of the classes."""
        mask = batch["attention_mask"][..., None]
        hidden = self.encoder(**batch).last_hidden_state
        features = (hidden * mask).sum(1) / mask.sum(1)
        scores: Tensor = self.head(F.normalize(features, dim=-1) * SCALE)
        return scores

    def gradient(self, episode: Episode) -> Gradient:
        """The gradient of the query's loss in whatever is trained of the encoder."""
        (support, gold), (query, wanted) = (self._batch(episode, e) for e in (episode.support, episode.query))
        task = self.__dict__["maml"].clone()
        for _ in range(self.steps):
            task.adapt(F.cross_entropy(task(support), gold))
        self.zero_grad()
        F.cross_entropy(task(query), wanted).backward()
        return {
            name.removeprefix("base_model.model."): p.grad
            for name, p in self.encoder.named_parameters()
            if p.grad is not None
        }

    def _batch(self, episode: Episode, examples: Any) -> tuple[Mapping[str, Tensor], Tensor]:
        texts = [e.inputs["text"] for e in examples]
        targets = [episode.label_names.index(e.target) for e in examples]
        return self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt"), torch.tensor(
            targets
        )


def learn2learn_maml() -> Any:
    """`learn2learn.algorithms.MAML`, without the package's image data sets, which want a matching torchvision."""
    if "learn2learn" not in sys.modules:
        spec = find_spec("learn2learn")
        if spec is None or spec.submodule_search_locations is None:
            raise SystemExit(
                "This needs learn2learn; evaluation/results/speed.md tells how it was installed."
            )
        package = ModuleType("learn2learn")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["learn2learn"] = package
    from learn2learn.algorithms.maml import MAML

    return MAML


def disagreement(a: Gradient, b: Gradient) -> tuple[float, float]:
    """Norm of the difference over the norm of the first; and the cosine."""
    if sorted(a) != sorted(b):
        raise SystemExit(f"Other parameters: {sorted(set(a) ^ set(b))[:4]}")
    x, y = (torch.cat([g[name].flatten().double() for name in sorted(g)]) for g in (a, b))
    return float((x - y).norm() / x.norm()), float(F.cosine_similarity(x, y, dim=0))
