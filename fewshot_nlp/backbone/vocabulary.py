"""The language-model head of a sequence-to-sequence model, and generation with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fewshot_nlp.backbone.batching import chunks, padded_tokens
from fewshot_nlp.backbone.head import Head, State
from fewshot_nlp.backbone.processors import Bounds, ForcedPhrases, Rescore
from fewshot_nlp.slots import Features, Scores, SlotBatch

if TYPE_CHECKING:
    from fewshot_nlp.backbone.base import Backbone
    from fewshot_nlp.backbone.seq2seq import Seq2Seq

Score = Callable[[Tensor, Tensor], Tensor]
"""Features and prior log-probabilities [n_rows, n_classes] of the next tokens to log-probabilities."""


class VocabularyHead(Head):
    """Log-probabilities of all tokens of the vocabulary, for learners that build on them.

    Args:
        backbone: the model that owns the head.
    """

    def __init__(self, backbone: "Seq2Seq") -> None:
        self.backbone = backbone

    def fit(self, backbone: "Backbone", names: SlotBatch, support: SlotBatch) -> State:
        """An empty state: the head is part of the model, and a vocabulary has no label names."""
        return {}

    def scores(
        self,
        state: State,
        view: Features,
        fast_weights: Mapping[str, Tensor] | None = None,
    ) -> Scores:
        """Log-probabilities of the tokens, with the fast weights."""
        features = view.to(self.backbone.model.dtype)
        logits = self.backbone.run_part("head", fast_weights, features=features)
        return torch.log_softmax(logits.to(self.backbone.feature_dtype), dim=-1)

    def join(
        self,
        prior: Scores,
        score: Callable[[SlotBatch], Scores],
        batch: SlotBatch,
        state: State,
        weight: float,
    ) -> Scores:
        """The learner's scores with ``prior`` as `DecoderInputs.prior`; the learner chooses the weight."""
        return score(replace(batch, decoder=replace(batch.decoder, prior=prior)))

    @torch.no_grad()
    def generate(
        self,
        batch: SlotBatch,
        score: Score,
        fast_weights: Mapping[str, Tensor] | None = None,
        *,
        num_beams: int = 4,
        length_penalty: float | None = None,
        max_ratio: float = 2.0,
        demands: Sequence[Sequence[Sequence[int]]] | None = None,
        demand_bonus: float = 0.0,
    ) -> list[list[int]]:
        """Token ids generated after each window, without the window and without special tokens at the end.

        Args:
            batch: windows and their sources, without slots.
            score: function of features and the model's own log-probabilities to those of decoding.
            fast_weights: values used instead of the parameters of the same names.
            num_beams: beams; 1 is greedy.
            length_penalty: as in transformers: exponent of the length that scores are divided by; None takes the
                model's.
            max_ratio: largest length of an output, as a multiple of its source's length (plus 10 tokens).
            demands: for each window the token sequences that its output must contain.
            demand_bonus: added to the log-probability of tokens that start or continue such a sequence.
        """
        from transformers import LogitsProcessorList

        tokenizer, sources = self.backbone.tokenizer, batch.sources
        result: list[list[int]] = [[] for _ in sources]
        for chunk in chunks([len(row) for row in sources], max(1, self.backbone.token_budget // num_beams)):
            windows = [batch.windows[i] for i in chunk]
            room = tokenizer.max_length - len(windows[0])
            needs = [demands[i] if demands is not None else [] for i in chunk]
            lengths = [
                max_ratio * len(sources[i]) + sum(map(len, n)) for i, n in zip(chunk, needs, strict=True)
            ]
            limits = [min(room, int(length) + 10) for length in lengths]
            rescore = Rescore(score)
            processors: list[Any] = [rescore]
            if any(needs):
                processors.append(
                    ForcedPhrases(needs, limits, num_beams, tokenizer.end, len(windows[0]), demand_bonus)
                )
            processors.append(Bounds(limits, num_beams, tokenizer.end, len(windows[0])))
            inputs = self._inputs(
                [sources[i] for i in chunk], windows, num_beams, length_penalty, max(limits)
            )
            inputs["logits_processor"] = LogitsProcessorList(processors)
            with self.backbone.alone(), rescore.watching(self.backbone.model.get_decoder()):
                output = self.backbone.run_part("generate", fast_weights, **inputs)
            rows = output[:, len(windows[0]) :].tolist()
            for i, row in zip(chunk, rows, strict=True):
                result[i] = self._until_end(row)
        return result

    def _inputs(
        self,
        sources: Sequence[Sequence[int]],
        windows: Sequence[Sequence[int]],
        num_beams: int,
        length_penalty: float | None,
        limit: int,
    ) -> dict[str, Any]:
        """Arguments of transformers' ``generate``."""
        from transformers import GenerationConfig

        device, tokenizer = self.backbone.device, self.backbone.tokenizer
        pad = tokenizer.tokenizer.pad_token_id or 0
        own = self.backbone.model.generation_config
        if length_penalty is None:
            length_penalty = getattr(own, "length_penalty", None)
        config = GenerationConfig(
            decoder_start_token_id=int(windows[0][0]),
            eos_token_id=tokenizer.end,
            pad_token_id=pad,
            bad_words_ids=getattr(own, "bad_words_ids", None),
            max_new_tokens=limit,
            num_beams=num_beams,
            length_penalty=length_penalty
            if num_beams > 1
            else None,  # transformers warns of one without beams
            early_stopping=False,  # not before no beam can become better than what has ended
            do_sample=False,
            output_hidden_states=False,  # what is unset comes from the model's own file
            output_attentions=False,
        )
        return {
            "input_ids": padded_tokens(sources, pad, device),
            "attention_mask": padded_tokens([[1] * len(row) for row in sources], 0, device),
            "decoder_input_ids": torch.tensor([list(row) for row in windows], device=device),
            "generation_config": config,
        }

    def _until_end(self, row: list[int]) -> list[int]:
        ends = (self.backbone.tokenizer.end, self.backbone.tokenizer.tokenizer.pad_token_id or 0)
        return row[: next((i for i, t in enumerate(row) if t in ends), len(row))]
