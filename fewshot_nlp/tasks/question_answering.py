"""Extractive question answering: a span of a context, or no answer. A slot is a token of the context."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fewshot_nlp.episode import Example, Json, Query
from fewshot_nlp.errors import FewShotError, quoted
from fewshot_nlp.metrics.question_answering import span_scores
from fewshot_nlp.rows import ItemError, Label, as_list, as_offset, as_text, shown
from fewshot_nlp.slots import Hints, Scores, SlotBatch
from fewshot_nlp.tasks.answers import answer_of, best_answer, choose_threshold, context_slots
from fewshot_nlp.tasks.base import Prediction, Row, Task, need_column
from fewshot_nlp.tasks.defaults import Usage
from fewshot_nlp.tokenization.windows import WindowTokenizer

CLASSES = ("start", "end")


class QuestionAnswering(Task, name="question_answering"):
    """Rows as in SQuAD: ``{"question", "context", "answers": {"text": [str], "answer_start": [int]}}``.

    Each of several answers counts as correct; empty lists mean that the context does not answer the question.
    Long contexts are read in overlapping windows, each with the whole question.

    Args:
        max_answer_tokens: longest predicted answer in tokens; longer answers in the support set raise it.
        n_best: number of answers in a prediction, from 1.
        null_threshold: "no answer" is given when its log-probability exceeds the best answer's by more than this;
            None takes what served the support set best where that holds unanswerable questions, and otherwise
            always answers.
    """

    aliases = ("qa", "question-answering", "squad", "extractive-qa")
    columns = (("question", "context", "answers"),)
    target_columns = ("answers",)
    document_column = "context"
    group_column = "context"
    primary_metric = "squad_f1"
    has_labels = False
    augmentations = frozenset({"word_dropout", "paraphrase_rate"})
    default_learner = "fine_tune"
    ships = True
    usage = Usage(
        title="question answering",
        pipeline_tag="question-answering",
        model_class="FewShotQA",
        rows=[
            {
                "question": "Who pays?",
                "context": "The buyer pays.",
                "answers": {"text": ["The buyer"], "answer_start": [0]},
            }
        ],
        inputs=[{"question": "Who sells?", "context": "The owner sells."}],
    )

    max_answer_tokens: Annotated[int, Field(ge=1, le=1000)] = 30
    n_best: Annotated[int, Field(ge=1, le=1000)] = 3
    null_threshold: float | None = None

    def example(self, row: Row) -> Example:
        """A row with its distinct answers, in order of their place."""
        inputs = self.query(row).inputs
        answers = need_column(row, "answers", Mapping, '{"text": ["20 mg"], "answer_start": [5]}')
        texts, starts = as_list(answers.get("text")), as_list(answers.get("answer_start"))
        if texts is None or starts is None:
            raise FewShotError(
                "'answers' must have the lists 'text' and 'answer_start'; both are empty where there is no answer."
            )
        if len(texts) != len(starts):
            raise FewShotError(
                f"{len(texts)} answer texts but {len(starts)} answer starts; each answer needs one of both."
            )
        found = sorted({_checked(inputs["context"], t, s) for t, s in zip(texts, starts, strict=True)})
        return Example(inputs, {"text": [t for _, t in found], "answer_start": [s for s, _ in found]})

    def query(self, value: Any) -> Query:
        """A row with the columns ``question`` and ``context``, or a pair of the two."""
        pair = as_list(value)
        if pair is not None and len(pair) == 2:
            value = {"question": pair[0], "context": pair[1]}
        if not isinstance(value, Mapping):
            raise FewShotError(
                f"an input is {shown(value)}, but must be a row with 'question' and 'context', or a pair of both."
            )
        samples = {"question": '"What is the dose?"', "context": '"Give 20 mg."'}
        given = {column: need_column(value, column, object, sample) for column, sample in samples.items()}
        return Query({column: as_text(text, column) for column, text in given.items()})

    def abstained(self, labels: Sequence[Label]) -> Prediction:
        """No answer, with probability 1."""
        return answer_of([], 1.0, np.inf, True)

    def labels_of(self, example: Example) -> dict[Label, int]:
        """Empty: answers are not a closed set of labels."""
        return {}

    def restrict(self, target: Json, labels: frozenset[Label]) -> Json:
        """The target itself."""
        return target

    def collate(
        self,
        items: Sequence[Query],
        labels: Sequence[Label],
        tokenizer: WindowTokenizer,
        *,
        with_targets: bool,
        descriptions: Mapping[Label, str] | None = None,
    ) -> SlotBatch:
        """For each item one slot for "no answer" (the first token of a window), then one for each context token."""
        windows = tokenizer.texts([i.inputs["question"] for i in items], [i.inputs["context"] for i in items])
        spans, characters, n_slots = context_slots(windows, len(items))
        first_slot = np.cumsum(n_slots) - n_slots
        return SlotBatch(
            items=tuple(items),
            windows=windows.ids,
            types=windows.types,
            spans=spans,
            groups=torch.from_numpy(np.repeat(np.arange(len(items)), n_slots)),
            classes=CLASSES,
            pooling="mean",
            normaliser="positions",
            targets=_targets(items, characters, first_slot, n_slots) if with_targets else None,
            hints=Hints(offsets=characters),
        )

    def calibrates_on_scores(self, support: SlotBatch) -> bool:
        """Whether the support set has unanswerable questions, from which the threshold is chosen."""
        return self.null_threshold is None and any(
            isinstance(item, Example) and not item.target["text"] for item in support.items
        )

    def calibrate(self, support: SlotBatch, scores: Tensor | None = None) -> dict[str, Tensor]:
        """The longest answer, and the threshold of "no answer" with the best F1 on the support set.

        Where no row of the support set has an answer, none is given.
        """
        decoding_parameters = {
            "max_answer_tokens": torch.tensor(max(self.max_answer_tokens, _longest_answer(support)))
        }
        if scores is None or not self.calibrates_on_scores(support):
            return decoding_parameters
        never = {**decoding_parameters, "null_threshold": torch.tensor(torch.inf)}
        margins, gains = [], []
        for item, prediction in zip(support.items, self.decode(scores, support, never), strict=True):
            gold = item.target if isinstance(item, Example) else {}
            margins.append(prediction["null_margin"])
            answered = span_scores([gold], [prediction["target"]])["squad_f1"]
            gains.append(answered - float(not gold["text"]))
        return {
            **decoding_parameters,
            "null_threshold": torch.tensor(choose_threshold(np.array(margins), np.array(gains))),
        }

    def decode(
        self,
        scores: Scores,
        batch: SlotBatch,
        decoding_parameters: Mapping[str, Tensor] | None = None,
    ) -> list[Prediction]:
        """The best valid span of every item, or no answer; and the next best spans.

        Probabilities of the valid spans (end not before start, at most `max_answer_tokens`) and of no answer sum to 1.
        """
        assert batch.hints.offsets is not None
        decoding_parameters = decoding_parameters or {}
        longest = int(decoding_parameters.get("max_answer_tokens", self.max_answer_tokens))
        fixed = np.inf if self.null_threshold is None else self.null_threshold
        threshold = float(decoding_parameters.get("null_threshold", fixed))
        values = scores.detach().cpu().double().numpy()
        ends = np.cumsum(np.bincount(batch.groups.numpy(), minlength=len(batch.items)))
        return [
            best_answer(
                item.inputs["context"],
                values[low:high],
                batch.hints.offsets[low:high],
                longest,
                threshold,
                self.n_best,
            )
            for item, low, high in zip(batch.items, [0, *ends[:-1]], ends, strict=True)
        ]

    def shown(self, prediction: Prediction) -> Any:
        """The answer, its probability, and its characters in the context."""
        return {key: prediction[key] for key in ("answer", "score", "start", "end")}

    def highlights(self, example: Example) -> tuple[str, list[tuple[int, int, str]], str]:
        """The context with the answers, and the question."""
        answers = zip(example.target["text"], example.target["answer_start"], strict=True)
        marks = [(start, start + len(text), "") for text, start in answers]
        return example.inputs["context"], marks, example.inputs["question"]

    def mistakes(self, gold: Json, predicted: Json) -> list[tuple[str, str]]:
        """An answer missed, invented, cut otherwise (some words right) or from elsewhere."""
        answer = next(iter(predicted["text"]), "")
        scores = span_scores([gold], [predicted])
        if scores["squad_exact_match"] == 1:
            return []
        if not gold["text"] or not answer:
            return [("missed", gold["text"][0]) if gold["text"] else ("invented", answer)]
        return [("boundary" if scores["squad_f1"] > 0 else "elsewhere", f"{gold['text'][0]} -> {answer}")]

    def output(self, prediction: Prediction, labels: Sequence[Label], row: Row) -> dict[str, Any]:
        """As `shown`."""
        return dict(self.shown(prediction))

    def metrics(
        self, gold: Sequence[Json], predicted: Sequence[Json], labels: Sequence[Label]
    ) -> dict[str, float]:
        """`span_scores`."""
        return span_scores(gold, predicted)


def _checked(context: str, text: Any, start: Any) -> tuple[int, str]:
    """Start and text of an answer, checked against the context."""
    if not isinstance(text, str) or not text.strip():
        raise FewShotError(
            f"an answer is {shown(text)}, but must be a text; leave the lists empty for no answer."
        )
    text, start = as_text(text, "an answer"), as_offset(start, "an answer_start")
    there = context[max(0, start) : max(0, start) + len(text)]
    if start < 0 or there != text:
        at = context.find(text)
        hint = f"; it is at {at}" if at >= 0 else "; the context does not hold it"
        raise FewShotError(
            f"the answer is {quoted(text)}, but at answer_start {start} the context has {quoted(there)}{hint}."
        )
    return start, text


def _targets(
    items: Sequence[Query],
    characters: Int[np.ndarray, "n_slots 2"],
    first_slot: Int[np.ndarray, " n_items"],
    n_slots: Int[np.ndarray, " n_items"],
) -> Float[Tensor, "n_slots 2"]:
    """1 at the first and last token of each gold answer, or at "no answer"."""
    targets = torch.zeros(len(characters), 2)
    for index, (item, low, count) in enumerate(zip(items, first_slot, n_slots, strict=True)):
        if not isinstance(item, Example):
            continue
        if count < 2:
            raise ItemError(
                index,
                f"the tokenizer reads nothing of the context {item.inputs['context'][:40]!a}; leave it out.",
            )
        if not item.target["text"]:
            targets[low] = 1.0
        for tokens in _tokens_of(item.target, characters[low : low + count]):
            if not len(tokens):
                raise ItemError(
                    index,
                    f"an answer to {item.inputs['question'][:40]!r} is {quoted(item.target['text'])}, of which the "
                    "tokenizer reads nothing; leave such answers out.",
                )
            targets[low + tokens[0], 0] = 1.0
            targets[low + tokens[-1], 1] = 1.0
    return targets


def _tokens_of(target: Json, characters: Int[np.ndarray, "n 2"]) -> list[Int[np.ndarray, " m"]]:
    """For each gold answer the slots whose characters it contains, in order."""
    return [
        np.flatnonzero((characters[:, 1] > start) & (characters[:, 0] < start + len(text)))
        for text, start in zip(target["text"], target["answer_start"], strict=True)
    ]


def _longest_answer(support: SlotBatch) -> int:
    """Tokens of the longest gold answer; 0 where there is none."""
    assert support.hints.offsets is not None
    groups = support.groups.numpy()
    found = [
        len(tokens)
        for i, item in enumerate(support.items)
        if isinstance(item, Example)
        for tokens in _tokens_of(item.target, support.hints.offsets[groups == i])
    ]
    return max(found, default=0)
