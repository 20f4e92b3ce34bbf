"""A Hugging Face sequence-to-sequence model seen as an extractor of one feature vector a decoder position."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nlp.backbone.base import Backbone
from fewshot_nlp.backbone.batching import chunks, padded_tokens
from fewshot_nlp.backbone.bundled import TRANSLATION, resolve, translation_folder
from fewshot_nlp.backbone.loading import load_seq2seq
from fewshot_nlp.backbone.vocabulary import VocabularyHead
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.tokenization.pairs import PairTokenizer


class Seq2Seq(Backbone):
    """Features of decoder positions: the decoder's last hidden states, the input of the model's own head.

    Args:
        model: any `AutoModelForSeq2SeqLM`, in eval mode.
        tokenizer: its tokenizer.
        name: folder or Hub name that it was loaded from.
        revision: Hub revision.
        max_length: largest number of tokens of source and target.
    """

    setting_types = MappingProxyType({"max_length": int})
    tokenizer: PairTokenizer
    head: VocabularyHead
    token_budget = 4096
    """Tokens in one forward pass, padding included."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(model, name, revision)
        limit = int(getattr(model.config, "max_position_embeddings", None) or 512)
        limit = min(limit, int(min(getattr(tokenizer, "model_max_length", limit) or limit, 10**6)))
        if max_length is not None and not 8 <= max_length <= limit:
            raise FewShotError(
                f"max_length is {max_length}, but must be from 8 to the model's window of {limit} tokens."
            )
        start = getattr(model.generation_config, "decoder_start_token_id", None)
        start = model.config.decoder_start_token_id if start is None else start
        if start is None:
            start = tokenizer.bos_token_id
        self.tokenizer = PairTokenizer(
            tokenizer, max_length or limit, int(start), self.n_classes, instructions_of(model.config)
        )
        self._parts = _Parts(model)
        self._check_head()
        self.head = VocabularyHead(self)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        revision: str | None = None,
        dtype: Any = None,
        attn_implementation: str | None = None,
        device_map: Any = None,
        max_length: int | None = None,
    ) -> "Seq2Seq":
        """Loads a model from a folder or the Hub; for None the German-English model that ships with the package.

        Args:
            name: folder, Hub name, or None.
            revision: Hub revision (branch, tag or commit).
            dtype: weights' type, e.g. `torch.bfloat16`; default float32.
            attn_implementation: transformers' attention.
            device_map: as in transformers, e.g. "cuda"; default the CPU.
            max_length: largest number of tokens of source and target; default the model's window.

        Raises:
            FewShotError: there is no such model, its files are damaged or unsafe, or it is not sequence-to-sequence.
        """
        source = str(translation_folder()) if name in (None, TRANSLATION) else resolve(str(name))
        model, tokenizer = load_seq2seq(
            source,
            revision=revision,
            dtype=dtype,
            attn_implementation=attn_implementation,
            device_map=device_map,
        )
        return cls(model, tokenizer, name=source, revision=revision, max_length=max_length)

    @property
    def dimension(self) -> int:
        """Length of a feature vector."""
        return int(self.model.config.hidden_size)

    @property
    def n_classes(self) -> int:
        """Size of the vocabulary that the head predicts."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def settings(self) -> dict[str, Any]:
        """The window."""
        return {"max_length": self.tokenizer.max_length}

    @property
    def public_name(self) -> str | None:
        """The Hub name, or that of the shipped model; None for a folder and for trained weights."""
        if self.trained:
            return None
        if Path(self.name).is_absolute() or Path(self.name).exists():
            return TRANSLATION if self.name == str(translation_folder()) else None
        return self.name

    def features(
        self,
        batch: SlotBatch,
        fast_weights: Mapping[str, Tensor] | None = None,
        *,
        double_backward: bool = False,
    ) -> Float[Tensor, "n_slots dimension"]:
        """The decoder's last hidden state at each slot, with the slot's window as decoder input."""
        if double_backward:
            self._second_order()
        sources = batch.sources
        lengths = [max(len(s), len(w)) for s, w in zip(sources, batch.windows, strict=True)]
        window_of = torch.from_numpy(batch.spans[:, 1])
        rows, order = [], []
        for chunk in chunks(lengths, self.token_budget):
            place = torch.full((len(batch.windows),), -1)
            place[chunk] = torch.arange(len(chunk))
            chosen = torch.nonzero(place[window_of] >= 0)[:, 0]
            texts, windows = [sources[i] for i in chunk], [batch.windows[i] for i in chunk]
            hidden = self._again(self._hidden, texts, windows, fast_weights, double_backward)
            spans = batch.spans[chosen.numpy()]
            rows.append(hidden[place[window_of[chosen]], torch.from_numpy(spans[:, 2])])
            order.append(torch.from_numpy(spans[:, 0]))
        if not rows:
            return torch.zeros(0, self.dimension, device=self.device, dtype=self.feature_dtype)
        back = torch.argsort(torch.cat(order)).to(self.device)
        return torch.cat(rows)[back].to(self.feature_dtype)

    def _hidden(
        self,
        sources: Sequence[Sequence[int]],
        windows: Sequence[Sequence[int]],
        fast_weights: Mapping[str, Tensor] | None,
        double_backward: bool = False,
    ) -> Float[Tensor, "n length d"]:
        pad = self.tokenizer.tokenizer.pad_token_id or 0
        inputs = {
            "source": padded_tokens(sources, pad, self.device),
            "mask": padded_tokens([[1] * len(row) for row in sources], 0, self.device),
            "target": padded_tokens(windows, pad, self.device),
        }
        hidden: Tensor = self.run_part("hidden", fast_weights, math_attention=double_backward, **inputs)
        return hidden

    def run_part(self, part: str, fast_weights: Mapping[str, Tensor] | None, **inputs: Any) -> Any:
        """One pass of a part of the model: ``hidden``, ``head`` or ``generate`` of `_Parts`."""
        weights = {f"model.{name}": value for name, value in (fast_weights or {}).items()}
        return self._call(self._parts, weights, part, **inputs)

    @torch.no_grad()
    def _check_head(self) -> None:
        """Raises `FewShotError` if logits differ from the head applied to the decoder's last hidden states."""
        source = [[i % self.n_classes for i in range(3, 9)]]
        window = [[self.tokenizer.start, *source[0][:3]]]
        device = self.device
        expected = self.model(
            input_ids=torch.tensor(source, device=device),
            decoder_input_ids=torch.tensor(window, device=device),
        ).logits[0]
        got = self.run_part("head", None, features=self._hidden(source, window, None)[0])
        error, scale = float((got - expected).abs().max()), float(expected.abs().max())
        if error > (1e-3 if self.model.dtype == torch.float32 else 0.05) * max(scale, 1.0):
            raise FewShotError(
                f"{self.name}: {type(self.model).__name__} makes its scores in a way that is not known here (they "
                f"differ by {error:.1e}); take a Marian, T5, BART, mBART, M2M100 or NLLB model."
            )


class _Parts(nn.Module):
    """Parts of a model as calls of one module, so that `functional_call` works for each of them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, part: str, **inputs: Any) -> Any:
        return getattr(self, part)(**inputs)

    def hidden(self, source: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        states = self.model.get_encoder()(input_ids=source, attention_mask=mask).last_hidden_state
        output = self.model.get_decoder()(
            input_ids=target, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def head(self, features: Tensor) -> Tensor:
        if getattr(self.model.config, "scale_decoder_outputs", False):  # T5
            features = features * self.model.config.d_model**-0.5
        logits: Tensor = self.model.get_output_embeddings()(features)
        bias = getattr(self.model, "final_logits_bias", None)
        return logits if bias is None else logits + bias.to(logits)[0]

    def generate(self, **inputs: Any) -> Tensor:
        ids: Tensor = self.model.generate(**inputs)
        return ids


def instructions_of(config: Any) -> dict[str, str]:
    """Task prefixes of a model (T5) from its files, by direction ("en_to_de")."""
    tasks = getattr(config, "task_specific_params", None) or {}
    return {
        name.removeprefix("translation_"): settings["prefix"]
        for name, settings in tasks.items()
        if name.startswith("translation_") and "prefix" in settings
    }
