"""Translation by a sequence-to-sequence model: a slot is a position of the decoder, a class a token."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from fewshot_nlp.episode import Example, Json, Query
from fewshot_nlp.errors import FewShotError, listed, logger, quoted
from fewshot_nlp.metrics.translation import corpus_scores
from fewshot_nlp.rows import Label, as_text
from fewshot_nlp.slots import DecoderInputs, Scores, SlotBatch
from fewshot_nlp.tasks.base import Prediction, Row, Task, need_column
from fewshot_nlp.tasks.conflicts import Conflicts
from fewshot_nlp.tasks.defaults import Defaults, Usage
from fewshot_nlp.tasks.glossary import checked_glossary, find_terms, with_terms

DEMAND_BONUS = 3.0
"""Added to the log-probability of a glossary term's first token."""
MAX_RATIO = 2.0
"""Tokens of a translation at most, as a multiple of its source's, where no pair says more."""


class Translation(Task, name="translation"):
    """Rows as in `datasets`: ``{"translation": {"de": str, "en": str}}``.

    Args:
        source: key of the language to translate from; None takes the model's own source language.
        target: key of the language to translate into; None takes the model's own.
        source_code: the model's code for the source language where it needs one that differs from ``source``
            ("deu_Latn", "de_DE").
        target_code: the same for the target language.
        num_beams: beams of the search, from 1 (greedy).
        length_penalty: scores are divided by the length to this power; above 1 favours long translations. None takes
            the model's own.
        max_ratio: tokens of a translation at most, as a multiple of its source's (and 10 more), from 0.1 to 1000. None
            takes the largest ratio among the support set's pairs, and at least 2.
        glossary: terms of the source language to words that a translation of them must contain (see `find_terms`).
        prefix: put before every text (T5: "translate German to English: "). None takes the model's own for these
            languages, where its files have one.
    """

    aliases = ("mt", "nmt", "machine-translation", "translate")
    columns = (("translation",),)
    primary_metric = "chrf"
    has_labels = False
    backbone = "seq2seq"
    augmentations = frozenset({"paraphrase_rate"})
    default_learner = "fine_tune"
    defaults: ClassVar = {
        "fine_tune": Defaults(
            learner={"epochs": 5, "folds": 3, "bfloat16": None},
            bundled={"scope": "all", "lr": 1e-3, "steps": 50, "max_interpolation": 0.75},
        ),
        "nearest_neighbour": Defaults(
            learner={"k": 8, "metric": "euclidean", "temperature": None, "half": True}  # kNN-MT
        ),
    }
    usage = Usage(
        title="translation",
        pipeline_tag="translation",
        model_class="FewShotTranslator",
        rows=[{"translation": {"de": "Guten Tag.", "en": "Good day."}}],
        inputs=["Guten Morgen."],
    )

    source: str | None = None
    target: str | None = None
    source_code: str | None = None
    target_code: str | None = None
    num_beams: Annotated[int, Field(ge=1, le=64)] = 4
    length_penalty: Annotated[float, Field(ge=-5, le=5)] | None = None
    max_ratio: Annotated[float, Field(ge=0.1, le=1000)] | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)
    prefix: str | None = None

    @field_validator("glossary", mode="before")
    @classmethod
    def _checked(cls, glossary: Any) -> dict[str, str]:
        return checked_glossary({} if glossary is None else glossary)

    @model_validator(mode="after")
    def _languages_differ(self) -> Self:
        if self.source is not None and self.source == self.target:
            raise FewShotError(f"Source and target are both {quoted(self.source)}; they must differ.")
        return self

    @classmethod
    def of_languages(cls, languages: Sequence[str]) -> Self:
        """From the first language to the second."""
        if len(languages) != 2:
            raise FewShotError(
                f"Translation needs two languages, source and target, not: {', '.join(languages)}."
            )
        return cls(source=languages[0], target=languages[1])

    def example(self, row: Row) -> Example:
        """A row's two sides."""
        pair = need_column(row, "translation", Mapping, '{"de": "Guten Tag.", "en": "Good day."}')
        source, target = self._keys(pair)
        sides = [as_text(_side(pair, key), key) for key in (source, target)]
        if sides[0].strip() == sides[1].strip() and len(sides[0].split()) > 3:
            raise FewShotError(
                f"source and target are the same text, {sides[0][:40]!r}; leave such rows out."
            )
        return Example({"text": sides[0]}, sides[1])

    def query(self, value: Any) -> Query:
        """A text, a row with a "text", or a row of two sides, whose target is ignored."""
        if isinstance(value, Mapping) and "text" in value and "translation" not in value:
            value = value["text"]
        elif isinstance(value, Mapping):
            pair = need_column(value, "translation", Mapping, '{"de": "Guten Tag."}')
            value = _side(pair, self._keys(pair)[0])
        return Query({"text": as_text(value, "text")})

    def abstained(self, labels: Sequence[Label]) -> Prediction:
        """No text."""
        return {"target": ""}

    def bind(self, tokenizer: Any) -> Self:
        """The task with the model's own languages where none are given; warns if the given ones differ."""
        directions = tokenizer.directions
        given = self.source or directions[0], self.target or directions[1]
        if given[0] is not None and given[0] == given[1]:
            raise FewShotError(
                f"Source and target are both {quoted(given[0])}; set the other one in task_config."
            )
        if all(directions) and given != directions:
            logger.warning(
                "The model translates %s to %s, but the task is %s to %s: expect nonsense, or load another model.",
                *directions,
                *given,
            )
        prefix = self.prefix
        if prefix is None:
            prefix = tokenizer.instructions.get(f"{given[0]}_to_{given[1]}", "")
        return replace(self, source=given[0], target=given[1], prefix=prefix)

    def settled(self, examples: Sequence[Example], conflicts: Conflicts = "refuse") -> list[Example]:
        """All of them: a text may have several translations."""
        return list(examples)

    def labels_of(self, example: Example) -> dict[Label, int]:
        """Empty: translations are not a closed set of labels."""
        return {}

    def restrict(self, target: Json, labels: frozenset[Label]) -> Json:
        """The target itself."""
        return target

    def collate(
        self,
        items: Sequence[Query],
        labels: Sequence[Label],
        tokenizer: Any,
        *,
        with_targets: bool,
        descriptions: Mapping[Label, str] | None = None,
    ) -> SlotBatch:
        """With targets, one slot for each target token and the end token; its window is the decoder input before it."""
        codes = self.source_code or self.source, self.target_code or self.target
        texts = [item.inputs["text"] for item in items]
        if not with_targets:
            # A shared vocabulary can copy terms that stand in the source in the target language.
            texts = [with_terms(text, self.glossary) for text in texts]
        prefix = tokenizer.prefix(codes[1])
        gold = [i.target for i in items if isinstance(i, Example)] if with_targets else []
        rows = tokenizer.targets(gold, codes[1]) if with_targets else [[] for _ in items]
        n_slots = np.array([len(row) for row in rows], int)
        owner = np.repeat(np.arange(len(rows)), n_slots)
        first = np.cumsum(n_slots) - n_slots
        place = np.arange(len(owner)) - first[owner] + len(prefix) - 1
        return SlotBatch(
            items=tuple(items),
            windows=[[*prefix, *row[:-1]] for row in rows],
            types=None,
            spans=np.stack([np.arange(len(owner)), owner, place, place + 1], axis=1).astype(np.int64),
            groups=torch.from_numpy(owner),
            classes=tokenizer.classes,
            pooling="first",
            normaliser="classes",
            targets=torch.tensor([t for row in rows for t in row], dtype=torch.long)
            if with_targets
            else None,
            decoder=DecoderInputs(
                sources=tokenizer.sources([(self.prefix or "") + text for text in texts], *codes)
            ),
        )

    def calibrate(self, support: SlotBatch, scores: Tensor | None = None) -> dict[str, Tensor]:
        """How much longer than their sources translations may be: as in the support set, where that is not given."""
        assert support.decoder.sources is not None
        sources = torch.tensor([len(row) for row in support.decoder.sources])
        targets = torch.bincount(support.groups, minlength=len(sources))
        if self.max_ratio is not None or not len(sources):
            return {}
        return {"max_ratio": (targets / sources).max().clamp_min(MAX_RATIO)}

    def generation_options(
        self, batch: SlotBatch, tokenizer: Any, decoding_parameters: Mapping[str, Tensor] | None = None
    ) -> dict[str, Any]:
        """Options of beam search, the longest translations, and the glossary's words for each."""
        learned = float((decoding_parameters or {}).get("max_ratio", MAX_RATIO))
        options: dict[str, Any] = {
            "num_beams": self.num_beams,
            "length_penalty": self.length_penalty,
            "max_ratio": learned if self.max_ratio is None else self.max_ratio,
        }
        if self.glossary:
            found = [
                {term for _, _, term in find_terms(item.inputs["text"], self.glossary)}
                for item in batch.items
            ]
            wanted = [[words for term, words in self.glossary.items() if term in terms] for terms in found]
            flat = [words for row in wanted for words in row]
            language = self.target_code or self.target
            spelled = dict(zip(flat, tokenizer.bare_targets(flat, language), strict=True))
            self._check_spelling(spelled, tokenizer)
            demands = [[spelled[words] for words in row] for row in wanted]
            options |= {"demands": demands, "demand_bonus": DEMAND_BONUS}
        return options

    def read_tokens(
        self, tokens: Sequence[Sequence[int]], batch: SlotBatch, tokenizer: Any
    ) -> list[Prediction]:
        """The texts of generated tokens."""
        return [{"target": text} for text in tokenizer.decode(tokens)]

    def decode(
        self,
        scores: Scores,
        batch: SlotBatch,
        decoding_parameters: Mapping[str, Tensor] | None = None,
    ) -> list[Prediction]:
        """Not used: translations are generated; see `read_tokens`."""
        raise NotImplementedError

    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[Label]
    ) -> dict[str, float]:
        """`corpus_scores`."""
        return corpus_scores(gold, predicted)

    def _keys(self, pair: Mapping[str, Any]) -> tuple[str, str]:
        if {"source", "target"} <= pair.keys():
            return "source", "target"
        if self.source is None or self.target is None:
            first, second = [*map(str, pair), "de", "en"][:2]
            raise FewShotError(
                f"it has the languages {listed(map(str, pair))}, but which is the source is not known; set "
                f"task_config={{'source': {quoted(first)}, 'target': {quoted(second)}}}."
            )
        return self.source, self.target

    def _check_spelling(self, spelled: Mapping[str, Sequence[int]], tokenizer: Any) -> None:
        unknown = tokenizer.tokenizer.unk_token_id
        for words, row in spelled.items():
            if unknown in row or not row:
                raise FewShotError(
                    f"The model's vocabulary cannot spell the glossary's {quoted(words)}; choose other words for it."
                )


def _side(pair: Mapping[str, Any], language: str) -> Any:
    if language not in pair:
        raise FewShotError(
            f"there is no {quoted(language)} among its languages, only: {listed(map(str, pair)) or 'none'}; put the "
            f"text under {quoted(language)}."
        )
    return pair[language]
