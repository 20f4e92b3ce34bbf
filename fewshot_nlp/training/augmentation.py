"""New support sets from old ones, as text: labels stay right, and queries stay as they are.

Papers: Dai, Adel 2020, An Analysis of Simple Data Augmentation for Named Entity Recognition (label-wise token
replacement and mention replacement, section 3); Sennrich, Haddow, Birch 2016, Improving Neural Machine Translation
Models with Monolingual Data (back-translation, for which `Augmentation.paraphrase` is a hook); Rajendran, Irpan, Jang
2020, Meta-Learning Requires Meta-Augmentation (what changes targets makes new tasks).
Deviations: replacements come from the support set of the episode, so that an episode stays a pure function of its
number, and a changed example takes the place of the old one instead of being added, so that k stays k. New tasks are
made by joining two labels of an episode to one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Self

import numpy as np
from pydantic import model_validator

from fewshot_nlp.episode import Episode, Example, Json, canonical_json
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.rows import Label, sorted_labels
from fewshot_nlp.settings import Settings, Share
from fewshot_nlp.tasks import TASKS, Task
from fewshot_nlp.tasks.tags import tag_spans

Paraphrase = Callable[[Sequence[str], int], Sequence[str]]
"""Called with texts and a seed; gives a text for each."""

REASONS = {
    "word_dropout": "a translation would keep what its source lost",
    "mention_replacement": "only words with tags have mentions",
    "token_replacement": "only words with tags have others of their tag",
    "paraphrase_rate": "tags belong to words as they stand",
    "merge_labels": "there are no labels to join",
}
"""Why a change is refused by the tasks whose targets it would make wrong; see `Task.augmentations`."""


class Augmentation(Settings):
    """How training episodes are changed; each is a probability in [0, 1], and 0 is off.

    Args:
        word_dropout: of a word of a support text to be left out; never one of a mention or an answer, and not all.
        mention_replacement: of a mention in the support set to become another one of its type from there.
        token_replacement: of a word in the support set to become another one with the same tag from there.
        paraphrase: a function, or "module:function", from (texts, seed) to as many texts of the same meaning, such as
            by translating to another language and back. It must give the same for the same arguments. Of a question
            with its context it is given the question.
        paraphrase_rate: of a support text to be paraphrased.
        merge_labels: of an episode with three labels or more to have two of them joined to one, "this or that", in
            support and query.

    Raises:
        FewShotError: a value out of its range, or a rate and a hook of which one is missing.
    """

    word_dropout: Share = 0.0
    mention_replacement: Share = 0.0
    token_replacement: Share = 0.0
    paraphrase: str | Paraphrase | None = None
    paraphrase_rate: Share = 0.0
    merge_labels: Share = 0.0

    @model_validator(mode="after")
    def _hook_and_rate(self) -> Self:
        if (self.paraphrase is not None) != (self.paraphrase_rate > 0):
            raise FewShotError(
                f"paraphrase_rate is {self.paraphrase_rate:g} and paraphrase is "
                f"{self.paraphrase!r}; give both a function and a rate above 0, or neither."
            )
        return self

    @property
    def on(self) -> tuple[str, ...]:
        """The rates above 0."""
        return tuple(name for name in REASONS if getattr(self, name) > 0)

    def check_fits(self, task: type[Task] | Task) -> None:
        """Refuses what would make targets of this task wrong, and a hook that is not there."""
        for name in self.on:
            if name not in task.augmentations:
                fits = [other for other in TASKS.names() if name in TASKS.get(other).augmentations]
                raise FewShotError(
                    f"augmentation.{name} does not fit {task.name}: {REASONS[name]}. It fits: {', '.join(fits)}; set "
                    "it to 0."
                )
        if self.paraphrase is not None:
            self.hook()

    def hook(self) -> Paraphrase:
        """The function that ``paraphrase`` is or names."""
        if not isinstance(self.paraphrase, str):
            assert self.paraphrase is not None
            return self.paraphrase
        module, _, name = self.paraphrase.partition(":")
        try:
            found: Paraphrase = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise FewShotError(
                f"augmentation.paraphrase is {self.paraphrase!r}, which cannot be imported ({error}); write "
                "'module:function'."
            ) from error
        return found


def augment(episode: Episode, settings: Augmentation, task: Task, seed: int) -> Episode:
    """The episode with a changed support set: a pure function of its arguments.

    Args:
        episode: as it was drawn.
        settings: what to change.
        task: the episode's.
        seed: every change has random numbers of its own from it, so that none depends on what else is on.

    Raises:
        FewShotError: a change that the task's targets would not survive, or a hook that fails its contract.
    """
    if not settings.on:
        return episode
    settings.check_fits(task)
    draws = {name: np.random.default_rng([seed, number]) for number, name in enumerate(REASONS)}
    if settings.merge_labels > draws["merge_labels"].random():
        episode = _merged(episode, task, draws["merge_labels"])
    examples = list(episode.support)
    if settings.mention_replacement:
        examples = _other_mentions(examples, settings.mention_replacement, draws["mention_replacement"])
    if settings.token_replacement:
        examples = _other_words(examples, settings.token_replacement, draws["token_replacement"])
    if settings.paraphrase_rate:
        examples = _paraphrased(examples, settings, draws["paraphrase_rate"], seed)
    if settings.word_dropout:
        examples = [_fewer_words(e, settings.word_dropout, draws["word_dropout"]) for e in examples]
    query_inputs = {canonical_json(example.inputs) for example in episode.query}
    kept = (
        old if canonical_json(new.inputs) in query_inputs else new
        for old, new in zip(episode.support, examples, strict=True)
    )
    return replace(episode, support=tuple(kept))


def relabelled(episode: Episode, task: Task, names: Mapping[Label, Label]) -> Episode:
    """The episode with other names for its labels; two may get the same one."""
    support, query = (
        tuple(Example(e.inputs, task.rename(e.target, names)) for e in part)
        for part in (episode.support, episode.query)
    )
    return replace(episode, support=support, query=query, label_names=sorted_labels(names.values()))


def _merged(episode: Episode, task: Task, draws: np.random.Generator) -> Episode:
    labels = episode.label_names
    if len(labels) < 3:
        return episode
    joined = [labels[i] for i in sorted(draws.choice(len(labels), 2, replace=False))]
    name = " or ".join(map(str, joined))
    return relabelled(episode, task, {n: name if n in joined else str(n) for n in labels})


def _other_mentions(examples: Sequence[Example], rate: float, draws: np.random.Generator) -> list[Example]:
    """Mentions replaced by others of their type; tags follow their length."""
    pool: dict[str, list[list[str]]] = {}
    for example in examples:
        for label, first, last in tag_spans(example.target):
            pool.setdefault(label, []).append(example.inputs["tokens"][first:last])
    result = []
    for example in examples:
        words, tags, end = list[str](), list[str](), 0
        for label, first, last in tag_spans(example.target):
            mention = example.inputs["tokens"][first:last]
            others = [m for m in pool[label] if m != mention]
            if draws.random() < rate and others:
                mention = others[int(draws.integers(len(others)))]
            words += [*example.inputs["tokens"][end:first], *mention]
            tags += [*example.target[end:first], f"B-{label}", *[f"I-{label}"] * (len(mention) - 1)]
            end = last
        tail = example.inputs["tokens"][end:], example.target[end:]
        result.append(_tagged([*words, *tail[0]], [*tags, *tail[1]]))
    return result


def _other_words(examples: Sequence[Example], rate: float, draws: np.random.Generator) -> list[Example]:
    """Words replaced by others with the same tag, as often as they occur."""
    pool: dict[str, list[str]] = {}
    for example in examples:
        for word, tag in zip(example.inputs["tokens"], example.target, strict=True):
            pool.setdefault(tag, []).append(word)
    return [
        _tagged(
            [
                pool[tag][int(draws.integers(len(pool[tag])))] if draws.random() < rate else word
                for word, tag in zip(example.inputs["tokens"], example.target, strict=True)
            ],
            example.target,
        )
        for example in examples
    ]


def _tagged(words: Sequence[str], tags: Sequence[str]) -> Example:
    """An example without the text that its words once stood in."""
    return Example({"tokens": list(words)}, list(tags))


def _fewer_words(example: Example, rate: float, draws: np.random.Generator) -> Example:
    inputs: dict[str, Json] = dict(example.inputs)
    if "tokens" in inputs:
        free = [i for i, tag in enumerate(example.target) if tag == "O"]
        gone = {i for i in free if draws.random() < rate}
        if not gone or len(gone) == len(example.target):
            return example
        stay = [i for i in range(len(example.target)) if i not in gone]
        return _tagged([inputs["tokens"][i] for i in stay], [example.target[i] for i in stay])
    if "context" in inputs:
        target = example.target
        answers = [(s, s + len(t)) for t, s in zip(target["text"], target["answer_start"], strict=True)]
        gone_at = _words_to_drop(inputs["context"], answers, rate, draws)
        inputs["context"] = _without(inputs["context"], gone_at)
        moved = [s - sum(end - start for start, end in gone_at if end <= s) for s, _ in answers]
        return Example(inputs, {"text": target["text"], "answer_start": moved})
    for column in ("text", "text_pair"):
        if column in inputs:
            inputs[column] = _without(inputs[column], _words_to_drop(inputs[column], (), rate, draws))
    return Example(inputs, example.target)


def _words_to_drop(
    text: str, kept: Sequence[tuple[int, int]], rate: float, draws: np.random.Generator
) -> list[tuple[int, int]]:
    """Words, each with the white space after it, that touch no stretch that is kept; never all words."""
    words = [match.span() for match in re.finditer(r"\S+\s*", text)]
    drawn = draws.random(len(words)) < rate
    gone = [
        (start, end)
        for (start, end), out in zip(words, drawn, strict=True)
        if out and not any(start < last and end > first for first, last in kept)
    ]
    return gone if len(gone) < len(words) else gone[1:]


def _without(text: str, gone: Sequence[tuple[int, int]]) -> str:
    def pieces() -> Iterator[str]:
        begin = 0
        for start, end in gone:
            yield text[begin:start]
            begin = end
        yield text[begin:]

    return "".join(pieces())


def _paraphrased(
    examples: Sequence[Example], settings: Augmentation, draws: np.random.Generator, seed: int
) -> list[Example]:
    chosen = [i for i in range(len(examples)) if draws.random() < settings.paraphrase_rate]
    columns = ["question" if "question" in examples[i].inputs else "text" for i in chosen]
    if not chosen:
        return list(examples)
    texts = [examples[i].inputs[column] for i, column in zip(chosen, columns, strict=True)]
    found = settings.hook()(texts, seed)
    bad = next((t for t in found if not isinstance(t, str) or not t.strip()), None)
    if isinstance(found, str) or len(found) != len(texts) or bad is not None:
        raise FewShotError(
            f"augmentation.paraphrase was given {len(texts)} texts and must give as many, none of them empty; it gave "
            f"{len(found)}" + (f", of which one is {bad!r}." if bad is not None else ".")
        )
    result = list(examples)
    for i, column, text in zip(chosen, columns, found, strict=True):
        result[i] = Example({**examples[i].inputs, column: text}, examples[i].target)
    return result
