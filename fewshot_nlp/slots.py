"""Slots: the one thing that tasks, backbones and learners share.

Every task is *labelling slots with scores*: the pooled text (classification), each word (NER), each context
token (question answering), each decoder position (translation). A task turns examples into a `SlotBatch`:
token windows, the token spans that make up each slot, and targets. A backbone turns it into one feature
vector a slot, a learner turns features into scores, and the task decodes the scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_nlp.episode import Query
from fewshot_nlp.rows import Label

Pooling = Literal["text", "first", "mean"]
"""How a slot's tokens become one vector: the encoder's own text pooling, the first token, or their mean."""

Normaliser = Literal["classes", "independent", "positions"]
"""What scores are normalised over: classes of a slot (softmax), nothing (a sigmoid for each class), or the
slots of one example (softmax over positions, as for the start of an answer)."""

Features = Float[Tensor, "n_slots d"]
"""The encoder's vectors, one a slot."""
Scores = Float[Tensor, "n_slots n_classes"]
"""Unnormalised log-probabilities of the classes, one row a slot."""

KEY_BASE = 6364136223846793005
"""Base of the polynomial hash in `SlotBatch.token_keys`; odd, so that it has an inverse modulo 2 to the 64."""

Targets = Int[Tensor, " n_slots"] | Scores
"""Class indices where classes exclude each other, else a 0/1 matrix; class shares in [0, 1] after mixup."""


def hashed_tokens(
    windows: Sequence[Sequence[int]], spans: Int[np.ndarray, "n_spans 4"], n_slots: int
) -> Int[np.ndarray, " n_slots"]:
    """Hash of each slot's token ids: a polynomial in `KEY_BASE`, modulo 2 to the 64; arguments as in `SlotBatch`."""
    ids = np.fromiter((t + 1 for w in windows for t in w), np.uint64)
    lengths = np.array([len(w) for w in windows], np.int64)
    power = np.concatenate([[1], np.full(len(ids), KEY_BASE)]).astype(np.uint64).cumprod(dtype=np.uint64)
    inverse = np.full(len(ids) + 1, pow(KEY_BASE, -1, 2**64), np.uint64)
    inverse[0] = 1
    sums = np.append(np.uint64(0), (ids * power[:-1]).cumsum(dtype=np.uint64))
    begin = (np.cumsum(lengths) - lengths)[spans[:, 1]]
    first, last = begin + spans[:, 2], begin + spans[:, 3]
    slots, start = spans[:, 0], np.full(n_slots, len(ids))
    np.minimum.at(start, slots, first)
    keys = np.zeros(n_slots, np.uint64)
    np.add.at(keys, slots, (sums[last] - sums[first]) * inverse.cumprod(dtype=np.uint64)[start[slots]])
    return keys.view(np.int64)


@dataclass(frozen=True, kw_only=True)
class MetaContext:
    """What meta-training passes to a meta-loss; the defaults hold outside of meta-training.

    Args:
        progress: share of outer steps done, in [0, 1], for meta-losses with a schedule. It is a
            function of the outer step alone, so that resuming stays exact.
        label_smoothing: share of the target probability of query slots that is spread over all classes, in [0, 1).
        disturb: regularisation of the features of a batch (noise, mixing), [n_slots, d] to [n_slots, d].
    """

    progress: float = 1.0
    label_smoothing: float = 0.0
    disturb: Callable[["SlotBatch", Tensor], Tensor] | None = None


OUTSIDE = MetaContext()
"""The context outside of meta-training."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hints:
    """Further information from the task that a learner may use; each field may be None.

    Args:
        label_slots: True for slots made from a label's name or description, not from an example. They have
            targets; their group numbers are past the last item.
        word_shape: surface features of a slot that do not depend on the encoder (capitals, digits, ...), in [0, 1].
        offsets: start and end character of each slot in the item's text; (0, 0) for slots without characters.
        coarse: for each class the index of its coarser class (the entity type of a BIO tag).
    """

    label_slots: Bool[Tensor, " n_slots"] | None = None
    word_shape: Float[Tensor, "n_slots n_word_shape"] | None = None
    offsets: Int[np.ndarray, "n_slots 2"] | None = None
    coarse: tuple[int, ...] | None = None

    def select(self, keep: Bool[Tensor, " n_slots"]) -> "Hints":
        """The hints of some slots."""
        return replace(
            self,
            label_slots=None if self.label_slots is None else self.label_slots[keep],
            word_shape=None if self.word_shape is None else self.word_shape[keep],
            offsets=None if self.offsets is None else self.offsets[keep.numpy()],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderInputs:
    """Inputs of sequence-to-sequence models, whose decoder reads a batch's windows.

    Args:
        sources: token ids of the encoder's input for every window.
        prior: log-probabilities of the classes from the model's own head, for learners that build on it.
    """

    sources: Sequence[Sequence[int]] | None = None
    prior: Scores | None = None

    def select(self, keep: Bool[Tensor, " n_slots"], windows: Int[np.ndarray, " n_kept"]) -> "DecoderInputs":
        """The inputs of some slots and windows."""
        return DecoderInputs(
            sources=None if self.sources is None else [self.sources[i] for i in windows],
            prior=None if self.prior is None else self.prior[keep.to(self.prior.device)],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotBatch:
    """Tokenised examples and their slots.

    Args:
        items: the examples or queries, in order.
        windows: token ids of every window, special tokens included; long inputs have several, overlapping.
        types: token type ids of every window, or None.
        spans: rows (slot, window, first token, token after the last), sorted by window; a slot with several
            rows is their token-weighted mean.
        groups: index of each slot's item; ascending.
        classes: names of the classes that are scored.
        pooling: how tokens of a slot become one vector.
        normaliser: what scores are normalised over.
        targets: gold classes of the slots; None for queries.
        hints: further information from the task.
        decoder: inputs of sequence-to-sequence models.
        meta: the context of meta-training.
    """

    items: tuple[Query, ...]
    windows: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]] | None
    spans: Int[np.ndarray, "n_spans 4"]
    groups: Int[Tensor, " n_slots"]
    classes: tuple[Label, ...]
    pooling: Pooling
    normaliser: Normaliser
    targets: Targets | None = None
    hints: Hints = field(default_factory=Hints)
    decoder: DecoderInputs = field(default_factory=DecoderInputs)
    meta: MetaContext = OUTSIDE

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.groups)

    @property
    def n_classes(self) -> int:
        """Number of classes that are scored."""
        return len(self.classes)

    @property
    def label_slot_mask(self) -> Bool[Tensor, " n_slots"]:
        """`Hints.label_slots`; all False where the hint is None."""
        if self.hints.label_slots is None:
            return torch.zeros(self.n_slots, dtype=torch.bool)
        return self.hints.label_slots

    @property
    def sources(self) -> Sequence[Sequence[int]]:
        """`DecoderInputs.sources`; a TypeError where the batch has none."""
        if self.decoder.sources is None:
            raise TypeError("a sequence-to-sequence model needs a batch with sources")
        return self.decoder.sources

    @property
    def gold(self) -> Targets:
        """``targets``; a TypeError where the batch has none."""
        if self.targets is None:
            raise TypeError("this batch holds queries: it has no targets")
        return self.targets

    @property
    def target_matrix(self) -> Scores:
        """Targets as a 0/1 matrix [n_slots, n_classes], whatever their form."""
        if self.gold.dim() == 2:
            return self.gold.float()
        return F.one_hot(self.gold, self.n_classes).float()

    @property
    def has_place(self) -> Bool[Tensor, " n_slots"]:
        """True for slots with characters in the item's text; all True where `Hints.offsets` is None."""
        if self.hints.offsets is None:
            return torch.ones(self.n_slots, dtype=torch.bool)
        return torch.from_numpy(self.hints.offsets[:, 1] > 0)

    @property
    def token_keys(self) -> Int[np.ndarray, " n_slots"]:
        """Hash of the token ids of each slot; different tokens rarely share one."""
        return hashed_tokens(self.windows, self.spans, self.n_slots)

    def select(self, keep: Bool[Tensor, " n_slots"]) -> "SlotBatch":
        """The batch of some slots; windows without a kept slot are dropped.

        Group numbers and items do not change, so that results can be mapped back.
        """
        chosen = keep.cpu().numpy()
        spans = self.spans[chosen[self.spans[:, 0]]]
        windows, window_index = np.unique(spans[:, 1], return_inverse=True)
        spans = np.column_stack([(np.cumsum(chosen) - 1)[spans[:, 0]], window_index, spans[:, 2:]])
        return replace(
            self,
            windows=[self.windows[i] for i in windows],
            types=None if self.types is None else [self.types[i] for i in windows],
            spans=spans,
            groups=self.groups[keep],
            targets=None if self.targets is None else self.targets[keep],
            hints=self.hints.select(keep.cpu()),
            decoder=self.decoder.select(keep, windows),
        )

    def beginnings(self, length: int) -> "SlotBatch":
        """The batch with each pooled text truncated to the first ``length`` tokens, special ones included, of its first
        window; other poolings unchanged."""
        if self.pooling != "text" or all(len(w) <= length for w in self.windows):
            return self
        slots, first = np.unique(self.spans[:, 0], return_index=True)
        kept = [self.spans[i, 1] for i in first]
        sizes = np.array([min(len(self.windows[w]), length) for w in kept])
        cut = np.array([len(self.windows[w]) for w in kept]) - sizes
        whole = self.spans[first, 3] == sizes + cut
        ends = np.where(whole, sizes, np.minimum(self.spans[first, 3], sizes - (cut > 0)))

        def shortened(rows: Sequence[Sequence[int]]) -> list[list[int]]:
            return [[*rows[w][: n - 1], rows[w][-1]] for w, n in zip(kept, sizes, strict=True)]

        return replace(
            self,
            windows=shortened(self.windows),
            types=None if self.types is None else shortened(self.types),
            spans=np.stack([slots, np.arange(len(kept)), self.spans[first, 2], ends], axis=1),
        )

    def crop_to_targets(self, width: int | None = None, seed: int = 0) -> "SlotBatch":
        """The batch without windows that contain no target of their item, to make training on long texts cheaper.

        An item whose targets are slots of several windows, or that has none, keeps all of its windows. Slots without
        characters ("no answer") are left out unless one of them is a target.

        Args:
            width: slots of a window that stay: a random contiguous range that contains its targets. The tokens of the
                other slots are removed. None keeps all.
            seed: of the ranges' positions.
        """
        if self.gold.dim() == 1:
            return self  # every slot is of some class
        slot, window = self.spans[:, 0], self.spans[:, 1]
        item = self.groups.numpy()[slot]
        several = np.bincount(slot, minlength=self.n_slots) > 1
        wanted = (self.target_matrix.sum(dim=1) > 0).numpy()
        holds = np.zeros(len(self.windows), bool)
        holds[window[(wanted & ~several)[slot]]] = True
        served = np.zeros(int(item.max(initial=-1)) + 1, bool)
        served[item[holds[window]]] = True
        kept = self.spans[holds[window] | ~served[item]]
        present = np.zeros(self.n_slots, bool)
        present[kept[:, 0]] = True
        near = replace(self, spans=kept).select(torch.from_numpy(present))
        everywhere = bool((near.target_matrix[~near.has_place] > 0).any())
        near = near if everywhere else near.select(near.has_place)
        return near if width is None else near._stretches(width, np.random.default_rng(seed))

    def _stretches(self, width: int, random: np.random.Generator) -> "SlotBatch":
        """Crops each window to a range of slots around its targets; windows without a target stay whole."""
        wanted = (self.target_matrix.sum(dim=1) > 0).numpy() & self.has_place.numpy()
        movable = self.has_place.numpy()
        ends = np.searchsorted(self.spans[:, 1], np.arange(len(self.windows) + 1))
        windows, types, rows = list(self.windows), None if self.types is None else list(self.types), []
        for number, (low, high) in enumerate(pairwise(ends)):
            spans = self.spans[low:high].copy()
            places = np.flatnonzero(movable[spans[:, 0]])
            hits = np.flatnonzero(wanted[spans[places, 0]])
            if len(hits) and len(places) > width:
                first, last = hits.min(), hits.max()
                lowest, highest = max(0, last + 1 - width), min(first, len(places) - width)
                begin = int(random.integers(min(lowest, highest), max(lowest, highest) + 1))
                stay = slice(min(begin, first), max(begin + width, last + 1))
                gone = np.setdiff1d(places, places[stay])
                kept = np.ones(len(windows[number]), bool)
                for left, right in spans[gone, 2:]:
                    kept[left:right] = False
                moved = np.append(0, np.cumsum(kept))
                windows[number] = list(compress(windows[number], kept))
                if types is not None:
                    types[number] = list(compress(types[number], kept))
                spans = np.delete(spans, gone, axis=0)
                spans[:, 2:] = moved[spans[:, 2:]]
            rows.append(spans)
        cut = replace(self, windows=windows, types=types, spans=np.concatenate([*rows, self.spans[:0]]))
        present = torch.zeros(self.n_slots, dtype=torch.bool)
        present[torch.from_numpy(cut.spans[:, 0])] = True
        return cut.select(present)

    def loss(self, scores: Scores, label_smoothing: float = 0.0) -> Tensor:
        """Mean negative log-likelihood of the targets under the normaliser.

        ``label_smoothing`` is the share of the probability spread evenly over the classes, in [0, 1); at least that of
        ``meta``.
        """
        label_smoothing = max(label_smoothing, self.meta.label_smoothing)
        gold = self.gold.to(scores.device)
        if self.normaliser == "classes":
            gold = gold if gold.dim() == 1 else gold.to(scores.dtype)  # mixed targets are shares of classes
            return F.cross_entropy(scores, gold, label_smoothing=label_smoothing)
        if self.normaliser == "independent":
            gold = gold.to(torch.promote_types(gold.dtype, scores.dtype))
            smooth = gold * (1 - label_smoothing) + label_smoothing / 2
            return F.binary_cross_entropy_with_logits(scores, smooth)
        probability = self.log_probabilities(scores).exp()
        groups = self.groups.to(scores.device)
        empty = torch.zeros(int(self.groups.max()) + 1, self.n_classes, device=scores.device)
        wanted = empty.index_add(0, groups, gold) > 0
        mass = empty.to(probability).index_add(0, groups, probability * gold)
        return -mass[wanted].clamp_min(1e-30).log().sum() / wanted.sum().clamp_min(1)

    def log_probabilities(self, scores: Scores) -> Scores:
        """Scores under the normaliser: log-softmax over classes or positions, or log-sigmoid."""
        if self.normaliser == "classes":
            return F.log_softmax(scores, dim=-1)
        if self.normaliser == "independent":
            return F.logsigmoid(scores)
        groups = self.groups.to(scores.device)
        n_groups = int(groups.max()) + 1 if len(groups) else 0
        index = groups[:, None].expand_as(scores)
        top = torch.full((n_groups, self.n_classes), -torch.inf, device=scores.device, dtype=scores.dtype)
        top = top.scatter_reduce(0, index, scores.detach(), "amax")[groups]
        total = torch.zeros(n_groups, self.n_classes, device=scores.device, dtype=scores.dtype)
        total = total.scatter_add(0, index, (scores - top).exp())[groups]
        return scores - top - total.log()
