"""Named-entity recognition: entities of several types in a text. A slot is a word."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_nlp.episode import Example, Json, Query
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.metrics.ner import entity_scores
from fewshot_nlp.slots import SlotBatch
from fewshot_nlp.tasks.base import Prediction, Row, Task, check_descriptions, need_column, need_text
from fewshot_nlp.tasks.defaults import Defaults, Usage
from fewshot_nlp.tasks.tags import (
    Repair,
    check_tags,
    spans_to_tags,
    split_words,
    tag_spans,
    word_shapes,
    words_of,
)
from fewshot_nlp.tasks.transitions import abstract, hidden_markov, legal_bio, viterbi
from fewshot_nlp.tokenization.windows import WindowTokenizer
from fewshot_nlp.tokenization.words import word_slots


class NER(Task, name="ner"):
    """Rows: ``{"tokens": [str], "ner_tags": [str]}`` with BIO tags, or ``{"text", "spans"}``.

    A span is ``{"start": int, "end": int, "label": str}`` in characters of the text, end exclusive.

    Args:
        scheme: classes that slots are scored for: "io" has one class a type, and neighbouring words of a type are
            one entity; "bio" tells the first word of an entity from the others.
        transitions: of the tags, counted on the support set: "hidden_markov" (with "bio"; see `hidden_markov`),
            "abstract" (with "io"; StructShot, Yang & Katiyar 2020), or "none" (but "bio" forbids what BIO does).
        pooling: a word's vector is its first sub-token's, or the mean of all.
        repair: what an ``I-X`` without a ``B-X`` becomes: "begin" makes it a ``B-X``, "error" refuses it.
    """

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

    def __init__(
        self,
        *,
        scheme: Literal["io", "bio"] = "io",
        transitions: Literal["hidden_markov", "abstract", "none"] | None = None,
        pooling: Literal["mean", "first"] = "mean",
        repair: Repair = "begin",
    ) -> None:
        transitions = transitions or ("hidden_markov" if scheme == "bio" else "none")
        for name, value, known in (
            ("scheme", scheme, ("io", "bio")),
            ("transitions", transitions, ("none", "hidden_markov" if scheme == "bio" else "abstract")),
            ("pooling", pooling, ("mean", "first")),
            ("repair", repair, ("begin", "error")),
        ):
            if value not in known:
                raise FewShotError(f"{name} is {value!r}, but must be one of: {', '.join(known)}.")
        self.scheme, self.transitions, self.pooling, self.repair = scheme, transitions, pooling, repair

    def example(self, row: Row) -> Example:
        """A row as words and BIO tags."""
        if "text" in row and "tokens" not in row:
            inputs = self.query(row).inputs
            spans = need_column(row, "spans", (list, tuple), '[{"start": 5, "end": 12, "label": "DRUG"}]')
            for span in spans:
                if not isinstance(span, Mapping) or {"start", "end", "label"} - set(span):
                    raise FewShotError(f"a span is {span!r}, but must have 'start', 'end' and 'label'.")
            return Example(inputs, spans_to_tags(split_words(inputs["text"]), spans, inputs["text"]))
        inputs = self.query(row).inputs
        tags = need_column(row, "ner_tags", (list, tuple), '["O", "B-DRUG"]')
        if len(tags) != len(inputs["tokens"]):
            raise FewShotError(
                f"{len(inputs['tokens'])} tokens but {len(tags)} tags; each token needs one tag. The tokens begin: "
                f"{' '.join(inputs['tokens'][:6])!r}."
            )
        return Example(inputs, check_tags(tags, self.repair))

    def query(self, value: Any) -> Query:
        """A text, a list of words, or a row with the column ``text`` or ``tokens``."""
        if isinstance(value, str):
            value = {"text": value}
        elif isinstance(value, list | tuple):
            value = {"tokens": value}
        elif not isinstance(value, Mapping):
            raise FewShotError(
                f"an input is a {type(value).__name__}, but must be a text, words, or a row with them."
            )
        if "tokens" not in value:
            text = need_text(need_column(value, "text", str, '"Give 20 mg aspirin."'), "text")
            return Query({"text": text, "tokens": words_of(text)})
        tokens = need_column(value, "tokens", (list, tuple), '["Give", "aspirin"]')
        wrong = next((t for t in tokens if not isinstance(t, str)), None)
        if wrong is not None:
            raise FewShotError(f"a token is {wrong!r} of type {type(wrong).__name__}, but must be a text.")
        if not any(t.strip() for t in tokens):
            raise FewShotError("'tokens' is empty; leave such rows out.")
        return Query({"tokens": list(tokens)})

    def labels_of(self, example: Example) -> dict[str, int]:
        """Mentions of each entity type."""
        return dict(Counter(tag[2:] for tag in example.target if tag.startswith("B-")))

    def restrict(self, target: Json, labels: frozenset[str]) -> Json:
        """Tags of other types become ``O``."""
        return [tag if tag[2:] in labels else "O" for tag in target]

    def rename(self, target: Json, names: Mapping[str, str]) -> Json:
        """The tags with other types."""
        return [tag if tag == "O" else tag[:2] + names[tag[2:]] for tag in target]

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """``O`` and the types, or ``O`` and the BIO tags of the types."""
        if self.scheme == "io":
            return ("O", *labels)
        return ("O", *(f"{prefix}-{label}" for label in labels for prefix in "BI"))

    def collate(
        self,
        items: Sequence[Query],
        labels: Sequence[str],
        tokenizer: WindowTokenizer,
        *,
        with_targets: bool,
        descriptions: Mapping[str, str] | None = None,
    ) -> SlotBatch:
        """One slot a word, and one for each class but ``O`` whose type is described."""
        check_descriptions(descriptions, labels)
        classes, words = self.classes(labels), descriptions or {}
        label_slots = [
            i for i, c in enumerate(classes) if i and c.removeprefix("B-").removeprefix("I-") in words
        ]
        texts = [words[classes[i].removeprefix("B-").removeprefix("I-")] for i in label_slots]
        windows, spans, groups = word_slots(tokenizer, [item.inputs["tokens"] for item in items], texts)
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
            targets=self._targets(items, label_slots, classes) if with_targets else None,
            word_shape=self._word_shape(items, len(label_slots)),
            coarse=None if self.scheme == "io" else (0, *(1 + i // 2 for i in range(2 * len(labels)))),
            label_slots=torch.arange(len(groups)) >= n_slots if label_slots else None,
        )

    @staticmethod
    def _word_shape(items: Sequence[Query], n_label_slots: int) -> Tensor:
        shapes = torch.from_numpy(word_shapes([item.inputs["tokens"] for item in items]))
        return torch.cat([shapes, torch.zeros(n_label_slots, shapes.shape[1])])

    def _targets(self, items: Sequence[Query], label_slots: Sequence[int], classes: Sequence[str]) -> Tensor:
        number = {c: i for i, c in enumerate(classes)}
        cut = 2 if self.scheme == "io" else 0
        tags = [tag for item in items if isinstance(item, Example) for tag in item.target]
        return torch.tensor(
            [number[t if t == "O" else t[cut:]] for t in tags] + list(label_slots), dtype=torch.long
        )

    def calibrate(self, support: SlotBatch, scores: Tensor | None = None) -> dict[str, Tensor]:
        """Transitions counted on the support set, as the option says; without examples only what BIO forbids."""
        examples = support.select(~support.label_slot_mask)
        tags = examples.gold.numpy()
        sentences = np.split(tags, np.flatnonzero(np.diff(examples.groups.numpy())) + 1) if len(tags) else []
        if self.scheme == "bio":
            counted = self.transitions == "hidden_markov" and sentences
            decoding_parameters = (
                hidden_markov(support.classes, sentences) if counted else legal_bio(support.classes)
            )
        elif self.transitions == "abstract" and sentences:
            decoding_parameters = abstract(support.n_classes, sentences)
        else:
            return {}
        return {name: torch.from_numpy(value).float() for name, value in decoding_parameters.items()}

    def decode(
        self,
        scores: Float[Tensor, "n_slots n_classes"],
        batch: SlotBatch,
        decoding_parameters: Mapping[str, Tensor] | None = None,
    ) -> list[Prediction]:
        """BIO tags of every item, and its entities with scores and character offsets."""
        log = batch.log_probabilities(scores).cpu().numpy()
        lengths = np.bincount(batch.groups.numpy(), minlength=len(batch.items))
        if decoding_parameters:
            best = viterbi(log, lengths, {name: value.numpy() for name, value in decoding_parameters.items()})
        else:
            best = log.argmax(axis=1)
        ends = np.cumsum(lengths)
        return [
            self._prediction(item, log[end - n : end], best[end - n : end], batch.classes)
            for item, n, end in zip(batch.items, lengths, ends, strict=True)
        ]

    def _prediction(
        self, item: Query, log: Float[np.ndarray, "n c"], best: Int[np.ndarray, " n"], classes: Sequence[str]
    ) -> Prediction:
        tags = ["O"] * len(best)
        for i in np.flatnonzero(best):
            name = classes[best[i]]
            if self.scheme == "io":
                name = ("I-" if i and best[i - 1] == best[i] else "B-") + name
            tags[i] = name
        entities = []
        spans = tag_spans(tags) if best.any() else []
        if spans:
            text, offsets = _text_and_offsets(item)
            for label, first, last in spans:
                columns = [i for i, c in enumerate(classes) if c in (label, f"B-{label}", f"I-{label}")]
                start, end = offsets[first][0], offsets[last - 1][1]
                entities.append(
                    {
                        "entity_group": label,
                        "score": float(np.exp(log[first:last, columns]).sum(axis=1).mean()),
                        "word": text[start:end],
                        "start": start,
                        "end": end,
                    }
                )
        return {"target": tags, "entities": entities}

    def shown(self, prediction: Prediction) -> Any:
        """The entities, in order: type, score in (0, 1], words, and character offsets.

        A text given as a list of words has offsets into those words joined by single spaces.
        """
        return prediction["entities"]

    def output(self, prediction: Prediction, labels: Sequence[str], row: Row) -> dict[str, Any]:
        """The entities, and the tags of words that were given as such."""
        tags = {"predicted_tags": prediction["target"]} if "tokens" in row else {}
        return {**tags, "entities": prediction["entities"]}

    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[str]
    ) -> dict[str, float]:
        """`entity_scores`."""
        return entity_scores(gold, predicted, labels)


def _text_and_offsets(item: Query) -> tuple[str, list[tuple[int, int]]]:
    """An input's text with the place of each of its words; words given alone are joined by single spaces."""
    if "text" in item.inputs:
        return item.inputs["text"], split_words(item.inputs["text"])
    tokens = item.inputs["tokens"]
    stops = np.cumsum([len(t) + 1 for t in tokens]) - 1
    return " ".join(tokens), [(int(s) - len(t), int(s)) for t, s in zip(tokens, stops, strict=True)]
