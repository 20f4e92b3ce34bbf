"""Named-entity recognition: entities of several types in a text. A slot is a word."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from fewshot_nlp.episode import Example, Json, Query
from fewshot_nlp.errors import FewShotError, quoted
from fewshot_nlp.metrics.ner import entity_mistakes, entity_scores
from fewshot_nlp.rows import Label, as_list, as_text, as_words, shown
from fewshot_nlp.settings import Several
from fewshot_nlp.slots import Hints, Scores, SlotBatch
from fewshot_nlp.tasks.annotation import Annotation
from fewshot_nlp.tasks.base import Prediction, Row, Task, need_column
from fewshot_nlp.tasks.defaults import Defaults, Usage
from fewshot_nlp.tasks.entities import decoded_tags
from fewshot_nlp.tasks.label_words import check_descriptions
from fewshot_nlp.tasks.spans import checked_spans, spans_of
from fewshot_nlp.tasks.tags import (
    Repair,
    check_tags,
    spans_to_tags,
    tag_spans,
    word_shapes,
)
from fewshot_nlp.tasks.transitions import abstract, hidden_markov, legal_bio
from fewshot_nlp.tokenization.segmentation import CUT, cut_at, split_words
from fewshot_nlp.tokenization.windows import WindowTokenizer
from fewshot_nlp.tokenization.words import place_words, word_slots


class NER(Task, name="ner"):
    """Rows: ``{"tokens": [str], "ner_tags": [str]}`` with BIO tags, or ``{"text", "spans"}``.

    A span is ``{"start": int, "end": int, "label": str}`` in characters of the text, end exclusive.

    Args:
        scheme: classes of the slots: "io" has one class a type, and adjacent words of a type are
            one entity; "bio" has separate classes for the first word of an entity and the others.
        transitions: of the tags, counted on the support set: "hidden_markov" (with "bio"; see `hidden_markov`),
            "abstract" (with "io"; after StructShot, Yang & Katiyar 2020, who count on source data), or "none" ("bio"
            still forbids invalid sequences).
            None takes "hidden_markov" with "bio", else "none".
        pooling: a word's vector is that of its first sub-token, or the mean of all.
        repair: an ``I-X`` without a ``B-X`` becomes a ``B-X`` with "begin", and is refused with "error".
        cuts: words of plain text that are split, with marked positions (``"10|mg"``); `suited` finds those of a
            support set.
    """

    aliases = ("token-classification", "token_classification", "named-entity-recognition", "entities")
    columns = (("tokens", "ner_tags"), ("text", "spans"))
    target_columns = ("ner_tags", "spans")
    label_column = "ner_tags"
    word_tags = True
    primary_metric = "entity_f1_strict_iob2"
    sampler = "n_way_k2k_shot"
    augmentations = frozenset({"word_dropout", "mention_replacement", "token_replacement", "merge_labels"})
    default_learner = "context_probe"
    defaults: ClassVar = {"context_probe": Defaults(task={"scheme": "bio"}, encoder={"layers": (0.5,)})}
    ships = True
    usage = Usage(
        title="named-entity recognition",
        pipeline_tag="token-classification",
        model_class="FewShotNER",
        rows=[{"tokens": ["Give", "aspirin"], "ner_tags": ["O", "B-DRUG"]}],
        inputs=["Give 20 mg aspirin."],
    )

    scheme: Literal["io", "bio"] = "io"
    transitions: Literal["hidden_markov", "abstract", "none"] | None = None
    pooling: Literal["mean", "first"] = "mean"
    repair: Repair = "begin"
    cuts: Several[str] = ()

    @model_validator(mode="after")
    def _transitions_fit(self) -> Self:
        known = ("none", "hidden_markov" if self.scheme == "bio" else "abstract")
        if self.transitions not in (None, *known):
            raise FewShotError(
                f"transitions is {quoted(self.transitions)}, but with scheme {self.scheme!r} must be one of: "
                f"{', '.join(known)}."
            )
        return self

    def example(self, row: Row) -> Example:
        """A row as words and BIO tags."""
        if "text" in row and "tokens" not in row:
            text = self.query(row).inputs["text"]
            spans = checked_spans(
                need_column(row, "spans", object, '[{"start": 5, "end": 12, "label": "DRUG"}]')
            )
            return self._tagged(text, spans)
        inputs = self.query(row).inputs
        tags = need_column(row, "ner_tags", list, '["O", "B-DRUG"]')
        if len(tags) != len(inputs["tokens"]):
            raise FewShotError(
                f"{len(inputs['tokens'])} tokens but {len(tags)} tags; each token needs one tag. The tokens begin: "
                f"{quoted(' '.join(inputs['tokens'][:6]))}."
            )
        return Example(inputs, check_tags(tags, self.repair))

    def query(self, value: Any) -> Query:
        """A text, a list of words, or a row with the column ``text`` or ``tokens``."""
        if isinstance(value, str):
            value = {"text": value}
        elif not isinstance(value, Mapping):
            words = as_list(value)
            if words is None:
                raise FewShotError(
                    f"an input is {shown(value)}, but must be a text, words, or a row with them."
                )
            value = {"tokens": words}
        if "tokens" not in value:
            text = as_text(need_column(value, "text", object, '"Give 20 mg aspirin."'), "text")
            return Query({"text": text, "tokens": [text[a:b] for a, b in split_words(text, self.cuts)]})
        return Query({"tokens": as_words(value["tokens"], "tokens")})

    def abstained(self, labels: Sequence[Label]) -> Prediction:
        """No entity."""
        return {"target": [], "entities": []}

    def _tagged(self, text: str, spans: Sequence[Mapping[str, Any]]) -> Example:
        """Words of a text, split at the borders of spans, with their tags."""
        borders = [place for span in spans for place in (span["start"], span["end"])]
        offsets = cut_at(split_words(text, self.cuts), borders)
        return Example(
            {"text": text, "tokens": [text[a:b] for a, b in offsets]}, spans_to_tags(offsets, spans, text)
        )

    def suited(self, examples: Sequence[Example]) -> tuple["NER", list[Example]]:
        """The task whose ``cuts`` split words at the span borders of a support set, and the examples in its words.

        A word with a span border inside is split at the same position in all texts. A border between a digit and a
        letter ("10mg") splits all words between digits and letters.
        """
        texts = [e for e in examples if "text" in e.inputs]
        cuts = set(self.cuts)
        for example in texts:
            text, offsets = (
                example.inputs["text"],
                place_words(example.inputs["tokens"], example.inputs["text"])[1],
            )
            for start, end in split_words(text):
                pieces = [text[a:b] for a, b in offsets if start <= a and b <= end]
                cuts |= {CUT.join(pieces)} if len(pieces) > 1 else set()
        if cuts == set(self.cuts):
            return self, list(examples)
        task = replace(self, cuts=tuple(sorted(cuts)))
        return task, [task._again(e) if "text" in e.inputs else e for e in examples]

    def _again(self, example: Example) -> Example:
        return self._tagged(example.inputs["text"], spans_of(example))

    def asked(self, example: Example) -> Query:
        """A text in the words that prediction finds in it, whatever its gold spans cut."""
        return self.query(example.inputs["text"]) if "text" in example.inputs else example.query

    def paired(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> tuple[list[Json], list[Json]]:
        """Tags of the same words: those of a text are cut at the borders of gold and predicted entities alike."""
        pairs = [
            self._paired(e, p) if "text" in e.inputs else (e.target, p["target"])
            for e, p in zip(examples, predictions, strict=True)
        ]
        return [gold for gold, _ in pairs], [predicted for _, predicted in pairs]

    def _paired(self, example: Example, prediction: Prediction) -> tuple[Json, Json]:
        text, gold = example.inputs["text"], spans_of(example)
        found = [{**e, "label": e["entity_group"]} for e in prediction["entities"]]
        words = cut_at(
            split_words(text, self.cuts), (s[k] for s in (*gold, *found) for k in ("start", "end"))
        )
        return spans_to_tags(words, gold, text), spans_to_tags(words, found, text)

    def labels_of(self, example: Example) -> dict[Label, int]:
        """Mentions of each entity type."""
        found: dict[Label, int] = dict(Counter(tag[2:] for tag in example.target if tag.startswith("B-")))
        return found

    def restrict(self, target: Json, labels: frozenset[Label]) -> Json:
        """Tags of other types become ``O``."""
        return [tag if tag[2:] in labels else "O" for tag in target]

    def rename(self, target: Json, names: Mapping[Label, Label]) -> Json:
        """The tags with renamed types."""
        return [tag if tag == "O" else f"{tag[:2]}{names[tag[2:]]}" for tag in target]

    @property
    def _per_type(self) -> int:
        """Number of classes of each type: 1 with "io", 2 with "bio"."""
        return 1 if self.scheme == "io" else 2

    def classes(self, labels: Sequence[Label]) -> tuple[Label, ...]:
        """``O`` and the types, or ``O`` and the BIO tags of the types."""
        if self.scheme == "io":
            return ("O", *labels)
        return ("O", *(f"{prefix}-{label}" for label in labels for prefix in "BI"))

    def collate(
        self,
        items: Sequence[Query],
        labels: Sequence[Label],
        tokenizer: WindowTokenizer,
        *,
        with_targets: bool,
        descriptions: Mapping[Label, str] | None = None,
    ) -> SlotBatch:
        """One slot a word, and one for each class of a described type."""
        check_descriptions(descriptions, labels)
        classes, words = self.classes(labels), descriptions or {}
        types = [label for label in labels for _ in range(self._per_type)]
        label_slots = [i for i, label in enumerate(types, start=1) if label in words]
        names = [words[types[i - 1]] for i in label_slots]
        places = [place_words(item.inputs["tokens"], item.inputs.get("text")) for item in items]
        windows, spans, groups = word_slots(tokenizer, places, names)
        n_slots = len(groups) - len(label_slots)
        return SlotBatch(
            items=tuple(items),
            windows=windows,
            types=None,
            spans=spans,
            groups=torch.from_numpy(groups),
            classes=classes,
            pooling=self.pooling,
            normaliser="classes",
            targets=self._targets(items, label_slots, labels) if with_targets else None,
            hints=Hints(
                word_shape=self._word_shape(items, len(label_slots)),
                coarse=None if self.scheme == "io" else (0, *(1 + i // 2 for i in range(2 * len(labels)))),
                label_slots=torch.arange(len(groups)) >= n_slots if label_slots else None,
            ),
        )

    @staticmethod
    def _word_shape(items: Sequence[Query], n_label_slots: int) -> Tensor:
        shapes = torch.from_numpy(word_shapes([item.inputs["tokens"] for item in items]))
        return torch.cat([shapes, torch.zeros(n_label_slots, shapes.shape[1])])

    def _targets(self, items: Sequence[Query], label_slots: Sequence[int], labels: Sequence[Label]) -> Tensor:
        n = self._per_type
        number = {
            f"{t}-{label}": 1 + n * i + (t == "I") * (n - 1) for i, label in enumerate(labels) for t in "BI"
        }
        tags = [tag for item in items if isinstance(item, Example) for tag in item.target]
        return torch.tensor(
            [0 if tag == "O" else number[tag] for tag in tags] + list(label_slots), dtype=torch.long
        )

    def calibrate(self, support: SlotBatch, scores: Tensor | None = None) -> dict[str, Tensor]:
        """Tag transitions, as the option says, counted on the support set; without examples the BIO constraints."""
        examples = support.select(~support.label_slot_mask)
        tags = examples.gold.numpy()
        sentences = np.split(tags, np.flatnonzero(np.diff(examples.groups.numpy())) + 1) if len(tags) else []
        if self.scheme == "bio":
            tags_of = list(map(str, support.classes))
            counted = self.transitions in (None, "hidden_markov") and sentences
            decoding_parameters = hidden_markov(tags_of, sentences) if counted else legal_bio(tags_of)
        elif self.transitions == "abstract" and sentences:
            decoding_parameters = abstract(support.n_classes, sentences)
        else:
            return {}
        return {name: torch.from_numpy(value).float() for name, value in decoding_parameters.items()}

    def decode(
        self,
        scores: Scores,
        batch: SlotBatch,
        decoding_parameters: Mapping[str, Tensor] | None = None,
    ) -> list[Prediction]:
        """BIO tags of every item, and its entities with probabilities and character offsets."""
        log = batch.log_probabilities(scores).cpu().numpy()
        rule = {name: value.numpy() for name, value in (decoding_parameters or {}).items()}
        given = [(item.inputs["tokens"], item.inputs.get("text")) for item in batch.items]
        found = decoded_tags(given, log, batch.groups.numpy(), batch.classes, self._per_type, rule)
        return [{"target": tags, "entities": entities} for tags, entities in found]

    def shown(self, prediction: Prediction) -> Any:
        """The entities, in order: type, score in (0, 1], words, and character offsets.

        A text given as a list of words has offsets into those words joined by single spaces.
        """
        return prediction["entities"]

    def annotation(self, query: Query, prediction: Prediction) -> Annotation:
        """The text with its entities and tags."""
        words = query.inputs["tokens"]
        text = place_words(words, query.inputs.get("text"))[0]
        spans = [(e["start"], e["end"], e["entity_group"]) for e in prediction["entities"]]
        least = min((float(e["score"]) for e in prediction["entities"]), default=None)
        return Annotation(text, spans, words=words, tags=prediction["target"], marks=True, score=least)

    def highlights(self, example: Example) -> tuple[str, list[tuple[int, int, str]], str]:
        """The text with its entities."""
        text, offsets = place_words(example.inputs["tokens"], example.inputs.get("text"))
        spans = tag_spans(example.target)
        return text, [(offsets[first][0], offsets[last - 1][1], label) for label, first, last in spans], ""

    def mistakes(self, gold: Json, predicted: Json) -> list[tuple[str, str]]:
        """Of each entity that is not right; see `entity_mistakes`."""
        return entity_mistakes(tag_spans(gold), tag_spans(predicted))

    def output(self, prediction: Prediction, labels: Sequence[Label], row: Row) -> dict[str, Any]:
        """The entities; and the tags, for inputs given as words."""
        tags = {"predicted_tags": prediction["target"]} if "tokens" in row else {}
        return {**tags, "entities": prediction["entities"]}

    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[Label]
    ) -> dict[str, float]:
        """`entity_scores`."""
        return entity_scores(gold, predicted)
