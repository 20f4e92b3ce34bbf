"""Samplers: what every episode must hold, whatever the data, the index and the process."""

import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fewshot_nlp.episode import (
    Episode,
    Example,
    TaskDataset,
    canonical_json,
    read_episodes,
    write_episodes,
)
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.sampling import (
    SAMPLERS,
    KShot,
    Mixture,
    NWayK2KShot,
    NWayKShot,
    TaskSampler,
    episodes,
    generator,
    split_classes,
    split_domains,
)
from fewshot_nlp.sampling.draft import SupportBuilder
from fewshot_nlp.sampling.rows import can_divide

ROOT = Path(__file__).parents[2]


def labelled(
    sizes: Mapping[str, int], name: str = "toy", groups: Sequence[str] = (), **knobs: Any
) -> TaskDataset:
    """Single-label texts, so many of each label."""
    labels = [label for label, n in sizes.items() for _ in range(n)]
    return TaskDataset(
        name=name,
        task="classification",
        examples=tuple(Example({"text": f"{name} {i}"}, label) for i, label in enumerate(labels)),
        label_counts=tuple({label: 1} for label in labels),
        groups=tuple(groups),
        **knobs,
    )


def keep_types(target: Any, labels: frozenset[str]) -> Any:
    return [tag if tag in labels else "O" for tag in target]


def tagged(sentences: Sequence[str], groups: Sequence[str] = ()) -> TaskDataset:
    """Sentences whose letters are mentions: "AAB" has two of A and one of B, "" has none."""
    return TaskDataset(
        name="tags",
        task="ner",
        examples=tuple(Example({"tokens": [str(i), *s]}, ["O", *s]) for i, s in enumerate(sentences)),
        label_counts=tuple(dict(Counter(s)) for s in sentences),
        groups=tuple(groups),
        restrict=keep_types,
    )


def plain(n: int, groups: Sequence[str] = (), name: str = "qa", domain: str = "general") -> TaskDataset:
    return TaskDataset(
        name=name,
        task="question_answering",
        examples=tuple(Example({"question": f"{name} {i}"}, i) for i in range(n)),
        label_counts=({},) * n,
        groups=tuple(groups),
        domain=domain,
    )


def mentions(examples: Sequence[Example]) -> Counter[str]:
    return Counter(tag for e in examples for tag in e.target if tag != "O")


def inputs(examples: Sequence[Example]) -> list[str]:
    return [canonical_json(e.inputs) for e in examples]


def group_of(dataset: TaskDataset) -> Callable[[Example], str]:
    table = {canonical_json(e.inputs): g for e, g in zip(dataset.examples, dataset.groups, strict=True)}
    return lambda example: table[canonical_json(example.inputs)]


SENTENCES = ["A", "B", "C", "AB", "BC", "AAC", "", "D", "ABCD", "DD"] * 12


# --- one stream: generator, episodes, registry ---


def test_generator_depends_on_each_of_its_four_arguments() -> None:
    base: tuple[Any, ...] = ("data", {"k": 1}, 0, 0)
    others = [
        ("atad", {"k": 1}, 0, 0),
        ("data", {"k": 2}, 0, 0),
        ("data", {"k": 1}, 1, 0),
        ("data", {"k": 1}, 0, 1),
    ]
    draws = [generator(*args).integers(2**62) for args in (base, *others)]
    assert len(set(draws)) == 5
    assert generator(*base).integers(2**62) == draws[0]
    assert (
        generator("data", {"a": 1, "b": 2}, 0, 0).random()
        == generator("data", {"b": 2, "a": 1}, 0, 0).random()
    )


def test_generator_is_the_child_of_a_seed_sequence() -> None:
    entropy = int(hashlib.sha256(b'["data",{"k":1},3]').hexdigest(), 16)
    child = np.random.SeedSequence(entropy).spawn(5)[4]
    assert generator("data", {"k": 1}, 3, 4).random() == np.random.default_rng(child).random()


@pytest.mark.parametrize(
    ("seed", "index", "words"), [(-1, 0, "seed is -1"), (0, -1, "index is -1"), (0, 1.0, "index")]
)
def test_generator_refuses(seed: Any, index: Any, words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        generator("data", {}, seed, index)


def test_episodes_yields_a_slice_of_the_stream() -> None:
    sampler = NWayKShot(labelled({"a": 20, "b": 20}), 2, 1, 1, n_episodes=5)
    assert list(episodes(sampler)) == [sampler.episode(i) for i in range(5)]
    assert list(episodes(sampler, 3)) == [sampler.episode(3), sampler.episode(4)]
    assert list(episodes(sampler, 4, 7)) == [sampler.episode(i) for i in (4, 5, 6)]
    assert list(episodes(sampler, 9)) == []
    with pytest.raises(FewShotError, match="stop is 2, but must be a whole number of at least 3"):
        episodes(sampler, 3, 2)
    with pytest.raises(FewShotError, match="start is -1"):
        episodes(sampler, -1)


SAMPLER_OF: dict[str, Callable[..., TaskSampler]] = {
    "n_way_k_shot": lambda **k: SAMPLERS.get("n_way_k_shot")(
        labelled(dict.fromkeys("abcdefg", 9)), 3, 2, 3, **k
    ),
    "n_way_k2k_shot": lambda **k: SAMPLERS.get("n_way_k2k_shot")(tagged(SENTENCES), 2, 2, 3, **k),
    "k_shot": lambda **k: SAMPLERS.get("k_shot")(plain(40, [str(i // 3) for i in range(40)]), 5, 6, **k),
}


def test_the_registry_names_all_samplers() -> None:
    assert SAMPLERS.names() == sorted(SAMPLER_OF)
    with pytest.raises(FewShotError, match="Did you mean 'k_shot'"):
        SAMPLERS.get("kshot")


@pytest.mark.parametrize("name", sorted(SAMPLER_OF))
def test_every_sampler_is_a_pure_function_of_seed_and_index(name: str) -> None:
    make = SAMPLER_OF[name]
    sampler, again = make(seed=3), make(seed=3, n_episodes=7)
    assert isinstance(sampler, TaskSampler)
    assert (len(sampler), len(again)) == (600, 7)
    forward = [sampler.episode(i) for i in range(20)]
    backward = [again.episode(i) for i in reversed(range(20))][::-1]
    assert forward == backward
    assert len({canonical_json(e.to_json()) for e in forward}) == 20
    assert len({e.episode_id for e in forward}) == 20
    other = make(seed=4)
    assert all(other.episode(i).support != e.support for i, e in enumerate(forward))
    with pytest.raises(FewShotError, match="index is -1"):
        sampler.episode(-1)


@pytest.mark.parametrize("name", sorted(SAMPLER_OF))
@pytest.mark.parametrize(
    ("knob", "value"), [("seed", -1), ("n_episodes", 0), ("seed", "0"), ("n_episodes", True)]
)
def test_every_sampler_refuses_bad_knobs(name: str, knob: str, value: Any) -> None:
    with pytest.raises(FewShotError, match=f"{knob} is {value!r}, but must be a whole number of at least"):
        SAMPLER_OF[name](**{knob: value})


PROGRAM = """
import sys; sys.path.insert(0, "tests/sampling")
from test_sampling import *
digest = hashlib.sha256()
sources = {name: make() for name, make in SAMPLER_OF.items()}
for sampler in (*sources.values(), Mixture(sources, "size")):
    for episode in episodes(sampler, 0, 10):
        digest.update(canonical_json(episode.to_json()).encode())
parts = split_classes(tagged(SENTENCES), seed=1)
digest.update(repr([p.fingerprint for p in (parts.meta_train, parts.meta_val, parts.meta_test)]).encode())
print(digest.hexdigest())
"""


def run_python(program: str, hash_seed: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_processes_with_different_hash_seeds_draw_the_same_episodes() -> None:
    here = run_python(PROGRAM, "0")
    assert len(here) == 64
    assert run_python(PROGRAM, "4242") == here


def test_sampling_imports_no_model_code() -> None:
    program = (
        "import sys\nfrom fewshot_nlp import SAMPLERS\nSAMPLERS.names()\n"
        "print([m for m in ('torch', 'transformers', 'fewshot_nlp.tasks') if m in sys.modules])"
    )
    assert run_python(program, "0") == "[]"


# --- N-way K-shot ---


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=7),
    n_way=st.integers(2, 7) | st.none(),
    k=st.integers(1, 4),
    n=st.integers(1, 4),
    index=st.integers(0, 10**9),
)
def test_n_way_k_shot_counts_exactly_or_says_what_lacks(
    sizes: list[int], n_way: int | None, k: int, n: int, index: int
) -> None:
    data = labelled({f"label{i}": size for i, size in enumerate(sizes)})
    ways = len(sizes) if n_way is None else n_way
    if ways > len(sizes):
        with pytest.raises(FewShotError, match=f"n_way is {ways}"):
            NWayKShot(data, n_way, k, n)
        return
    enough = [f"label{i}" for i, size in enumerate(sizes) if size >= k + n]
    if len(enough) < ways:
        with pytest.raises(FewShotError, match=f"Labels with enough: {len(enough)} of {len(sizes)}"):
            NWayKShot(data, n_way, k, n)
        return
    episode = NWayKShot(data, n_way, k, n).episode(index)
    assert len(episode.label_names) == ways
    assert set(episode.label_names) <= set(enough)
    assert list(episode.label_names) == sorted(episode.label_names)
    assert Counter(e.target for e in episode.support) == dict.fromkeys(episode.label_names, k)
    assert Counter(e.target for e in episode.query) == dict.fromkeys(episode.label_names, n)
    rows = inputs(episode.support + episode.query)
    assert len(set(rows)) == len(rows)


def test_the_error_for_too_few_examples_has_the_numbers_and_the_fix() -> None:
    data = labelled(
        {"refund": 15, "loan": 30, "card": 15, "pin": 16, "fee": 15, "rate": 20, "limit": 14, "dosage": 9}
    )
    message = (
        "8-way 5-shot with 10 queries needs 15 examples of each label, but 'dosage' has 9. Labels with "
        "enough: 6 of 8. "
        "Lower k_shot or n_query, or pass labels=[...] to leave rare labels out."
    )
    with pytest.raises(FewShotError) as error:
        NWayKShot(data, n_way=None)
    assert str(error.value) == message
    with pytest.raises(FewShotError) as error:
        NWayKShot(data, n_way=7)
    assert str(error.value) == message.replace("8-way", "7-way") + " Or set n_way to at most 6."
    left = ["refund", "loan", "card", "pin", "fee", "rate"]
    assert NWayKShot(data, n_way=None, labels=left).episode(0).label_names == tuple(sorted(left))
    with pytest.raises(FewShotError, match="5-shot with 1 query needs 6 examples"):
        NWayKShot(labelled({"a": 5, "b": 9}), 2, 5, 1)


def test_labels_and_rows_are_drawn_uniformly() -> None:
    data = labelled({"a": 4, "b": 4, "c": 40, "d": 5, "rare": 3})
    sampler = NWayKShot(data, 2, 2, 2)
    drawn = Counter(label for e in episodes(sampler, 0, 1200) for label in e.label_names)
    assert sorted(drawn) == ["a", "b", "c", "d"]
    assert chisquare([drawn[x] for x in "abcd"]).pvalue > 1e-4
    rows = Counter(inputs([e])[0] for ep in episodes(sampler, 0, 1200) for e in ep.support if e.target == "c")
    assert len(rows) == 40
    assert chisquare(list(rows.values())).pvalue > 1e-4


def test_support_and_query_are_shuffled() -> None:
    sampler = NWayKShot(labelled({"a": 20, "b": 20}), 2, 5, 5)
    for part in ("support", "query"):
        orders = {tuple(e.target for e in getattr(ep, part)) for ep in episodes(sampler, 0, 50)}
        assert len(orders) > 30


@pytest.mark.parametrize(
    ("data", "alternative"),
    [
        (tagged(SENTENCES), "NWayK2KShot"),
        (tagged(["A"] * 20 + ["B"] * 20 + [""]), "NWayK2KShot"),
        (plain(60), "KShot"),
    ],
)
def test_n_way_k_shot_refuses_other_data_and_names_the_sampler_for_it(
    data: TaskDataset, alternative: str
) -> None:
    with pytest.raises(FewShotError, match=f"use {alternative}"):
        NWayKShot(data, 2, 1, 1)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"n_way": 1}, "n_way is 1, but must be a whole number of at least 2"),
        ({"k_shot": 0}, "k_shot is 0"),
        ({"n_query": 0}, "n_query is 0"),
        ({"labels": "a"}, "labels is 'a'"),
        ({"labels": []}, r"labels is \[\]"),
        ({"labels": ["a", "x"]}, "no label 'x'"),
        ({"n_way": None, "labels": ["a"]}, "n_way is 1, but must be at least 2 and at most"),
    ],
)
def test_n_way_k_shot_refuses_bad_knobs(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        NWayKShot(labelled(dict.fromkeys("abc", 30)), **knobs)


def test_the_order_of_the_labels_knob_does_not_matter() -> None:
    data = labelled(dict.fromkeys("abcd", 30))
    one, two = NWayKShot(data, 2, labels=["d", "a", "c"]), NWayKShot(data, 2, labels=["a", "c", "d", "a"])
    assert list(episodes(one, 0, 5)) == list(episodes(two, 0, 5))


def test_task_ids_name_the_label_subset() -> None:
    data = labelled(dict.fromkeys("abc", 5))
    episode = NWayKShot(data, 2, 1, 1).episode(0)
    assert episode.task_id == "toy" + canonical_json(list(episode.label_names))
    assert NWayKShot(data, None, 1, 1).episode(0).task_id == "toy"


def test_repeated_inputs_count_once_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    data = labelled({"a": 6, "b": 6})
    doubled = data.take([*range(12), *range(12)])
    with caplog.at_level(logging.WARNING, "fewshot_nlp"):
        sampler = NWayKShot(doubled, 2, 3, 3)
    assert "12 of 24 rows repeat the input" in caplog.text
    for episode in episodes(sampler, 0, 30):
        assert len(set(inputs(episode.support + episode.query))) == 12
    with pytest.raises(FewShotError, match="needs 7 examples of each label, but 'a' has 6"):
        NWayKShot(doubled, 2, 4, 3)


def test_n_way_k_shot_never_divides_a_group() -> None:
    groups = [str(i % 6) for i in range(60)]
    data = labelled({"a": 30, "b": 30}, groups=groups)
    group = group_of(data)
    for episode in episodes(
        NWayKShot(data, 2, 6, 6), 0, 40
    ):  # 12 support rows drawn at large touch all 6 groups
        assert Counter(e.target for e in episode.support) == {"a": 6, "b": 6}
        assert Counter(e.target for e in episode.query) == {"a": 6, "b": 6}
        assert not {group(e) for e in episode.support} & {group(e) for e in episode.query}


def test_a_label_in_one_group_cannot_be_drawn() -> None:
    data = labelled({"a": 9, "b": 9, "c": 9}, groups=["x"] * 9 + [str(i) for i in range(18)])
    assert {x for e in episodes(NWayKShot(data, 2, 3, 3), 0, 20) for x in e.label_names} == {"b", "c"}
    with pytest.raises(
        FewShotError, match=r"'a' has 9 in 1 group that cannot be divided so[.] Labels with enough: 2 of 3"
    ):
        NWayKShot(data, None, 3, 3)


def test_groups_that_bar_each_other_are_told() -> None:
    # Each label alone can be divided between its two groups, but only in opposite ways.
    data = labelled({"a": 5, "b": 5}, groups=["x"] * 2 + ["y"] * 3 + ["x"] * 3 + ["y"] * 2)
    sampler = NWayKShot(data, 2, 2, 3)
    with pytest.raises(
        FewShotError,
        match=r"2-way 2-shot with 3 queries: after 50 restarts, '[ab]' has \d query rows in groups",
    ):
        sampler.episode(0)


@given(sizes=st.lists(st.integers(1, 6), max_size=7), k=st.integers(1, 8), n=st.integers(1, 8))
def test_can_divide_agrees_with_trying_all(sizes: list[int], k: int, n: int) -> None:
    def sides() -> Iterator[int]:
        for chosen in range(2 ** len(sizes)):
            yield sum(size for i, size in enumerate(sizes) if chosen >> i & 1)

    assert can_divide(sizes, k, n) == any(k <= side <= sum(sizes) - n for side in sides())


# --- N-way K~2K-shot ---


@settings(max_examples=100, deadline=None)
@given(
    sentences=st.lists(st.text("ABCD", max_size=9), max_size=40),
    n_way=st.integers(1, 4) | st.none(),
    k=st.integers(1, 3),
    n=st.integers(1, 3),
    query=st.sampled_from(["mentions", "rows"]),
    index=st.integers(0, 100),
)
def test_k_to_2k_mentions_of_each_type(
    sentences: list[str], n_way: int | None, k: int, n: int, query: Any, index: int
) -> None:
    data = tagged([*sentences, *"ABCD" * (k + n)])  # so that there always is a solution
    episode = NWayK2KShot(data, n_way, k, n, query=query).episode(index)
    found = mentions(episode.support)
    assert sorted(found) == list(episode.label_names)
    assert all(k <= found[label] <= 2 * k for label in episode.label_names)
    assert len(episode.label_names) == (n_way or 4)
    both = episode.support + episode.query
    assert len(set(inputs(both))) == len(both)
    if query == "rows":
        assert len(episode.query) == n
    else:
        asked = mentions(episode.query)
        assert all(n <= asked[label] <= 2 * n for label in episode.label_names)
    source = {canonical_json(e.inputs): e.target for e in data.examples}
    wanted = frozenset(episode.label_names)
    assert all(e.target == keep_types(source[canonical_json(e.inputs)], wanted) for e in both)


def feasible(sentences: list[str], k: int) -> bool:
    """Whether any set of the sentences has k to 2k of A and of B, by trying all."""
    reached = {(0, 0)}
    for s in sentences:
        more = {(a + s.count("A"), b + s.count("B")) for a, b in reached}
        reached |= {state for state in more if max(state) <= 2 * k}
    return any(min(state) >= k for state in reached)


@settings(max_examples=150, deadline=None)
@given(sentences=st.lists(st.text("AB", min_size=1, max_size=5), min_size=2, max_size=9), k=st.integers(1, 3))
def test_a_support_set_is_found_exactly_where_there_is_one(sentences: list[str], k: int) -> None:
    data = tagged([*sentences, ""])  # the last is never in the support, so the query can always be had
    assume(data.label_names == ("A", "B"))
    if feasible(sentences, k):
        assert sorted(mentions(NWayK2KShot(data, 2, k, 1, query="rows").episode(0).support)) == ["A", "B"]
    else:
        with pytest.raises(FewShotError, match="2-way"):
            NWayK2KShot(data, 2, k, 1, query="rows").episode(0)


def test_greedy_walk_takes_only_what_is_needed_and_fits() -> None:
    draft = SupportBuilder(
        [(("A", 1),), (("A", 1),), (("A", 1), ("B", 2)), (("B", 1),), (("B", 1), ("Z", 9))],
        1,
        {"A": 2, "B": 2},
    )
    draft.walk([0, 1, 3, 2])
    assert (draft.rows, draft.counts) == ([0, 3], {"A": 1, "B": 1})  # 1: no label short; 2 is not reached
    draft = SupportBuilder([(("A", 3),), (("A", 1), ("Z", 9))], 1, {"A": 2})
    draft.walk([0, 1])
    assert (draft.rows, draft.counts) == ([1], {"A": 1})  # 3 are over 2K; Z does not count


def test_repair_finds_what_the_walk_misses() -> None:
    pairs = [(("A", 2),), (("A", 2), ("B", 1))]  # having taken the first, the walk cannot take the second
    draft = SupportBuilder(pairs, 1, {"A": 2, "B": 2})
    draft.walk([0, 1])
    assert draft.short() == ["B"]
    draft.repair(np.random.default_rng(0), lambda label: np.array([1] if label == "B" else [0, 1]), 5)
    assert (draft.rows, draft.counts) == ([1], {"A": 2, "B": 1})


def test_all_types_of_the_data_set_with_none() -> None:
    sampler = NWayK2KShot(tagged(SENTENCES), None, 5, 5)
    for episode in episodes(sampler, 0, 20):
        assert episode.label_names == ("A", "B", "C", "D")
        assert episode.task_id == "tags"
        assert all(5 <= n <= 10 for n in mentions(episode.support).values())


def test_query_rows_come_as_they_are_also_without_entities() -> None:
    sampler = NWayK2KShot(tagged(SENTENCES), 1, 1, 20, query="rows")
    drawn = [e for episode in episodes(sampler, 0, 60) for e in episode.query]
    empty = sum(len(e.target) == 1 for e in drawn)
    assert len(drawn) == 1200
    assert 70 < empty < 170  # a tenth of the sentences have none: 120 expected


def test_labels_restrict_targets_even_when_all_of_them_are_drawn() -> None:
    episode = NWayK2KShot(tagged(SENTENCES), None, 2, 2, labels=["A", "B"]).episode(0)
    assert episode.label_names == ("A", "B")
    assert {tag for e in episode.support + episode.query for tag in e.target} == {"O", "A", "B"}
    assert episode.task_id == 'tags["A","B"]'


def test_a_rare_type_leaves_enough_for_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_nlp.sampling.nway_k2kshot.RESTARTS", 0)
    sampler = NWayK2KShot(tagged(["A"] * 6 + ["AB"] * 4 + ["B"] * 30), 2, 5, 5)
    for episode in episodes(sampler, 0, 50):
        assert mentions(episode.support)["A"] == 5 == mentions(episode.query)["A"]


def test_several_labels_a_text() -> None:
    sets = [["x"], ["y"], ["x", "y"], ["y", "z"], ["z"], []] * 10
    data = TaskDataset(
        name="topics",
        task="classification",
        examples=tuple(Example({"text": str(i)}, s) for i, s in enumerate(sets)),
        label_counts=tuple(dict.fromkeys(s, 1) for s in sets),
        restrict=lambda target, labels: [x for x in target if x in labels],
    )
    for episode in episodes(NWayK2KShot(data, 2, 3, 3), 0, 20):
        found = Counter(label for e in episode.support for label in e.target)
        assert sorted(found) == list(episode.label_names)
        assert all(3 <= n <= 6 for n in found.values())


@pytest.mark.parametrize(
    ("sentences", "knobs", "message"),
    [
        (
            ["A"] * 20 + ["B"] * 9,
            {"n_way": 2},
            "2-way 5~10-shot with 5 query mentions needs 10 mentions of each label in examples with at most "
            "10 of it, but "
            "'B' has 9. Labels with enough: 1 of 2. Lower k_shot or n_query, or pass labels=[...] to leave "
            "rare labels "
            "out. Or set n_way to at most 1.",
        ),
        (
            ["A"] * 20 + ["B" * 11] * 9,
            {"n_way": None},
            "2-way 5~10-shot with 5 query mentions needs 5 mentions of each label in examples with at most "
            "10 of it, but "
            "'B' has 0. Labels with enough: 1 of 2. Lower k_shot or n_query, or pass labels=[...] to leave "
            "rare labels "
            "out.",
        ),
        (
            ["A", "BBBB", "A", "A"],
            {"n_way": None, "k_shot": 2, "n_query": 1},
            "2-way 2~4-shot with 1 query mention needs 1 mention of each label in examples with at most 2 "
            "of it, but 'B' has 0. Labels with enough: 1 of 2. Lower k_shot or n_query, or pass "
            "labels=[...] to leave rare labels out.",
        ),
        (
            ["A", "BBBB", "A", "A", "A"],
            {"n_way": None, "k_shot": 2, "n_query": 2},
            "2-way 2~4-shot with 2 query mentions needs each label in two examples with at most 4 of it, "
            "but 'B' has one. "
            "Labels with enough: 1 of 2. Lower k_shot or n_query, or pass labels=[...] to leave rare labels "
            "out.",
        ),
        (["A", "A"], {"n_way": 2}, "n_way is 2, but there are 1 labels to draw from."),
        (
            ["A", "A"],
            {"n_way": 1, "k_shot": 1, "n_query": 2, "query": "rows"},
            "1-way 1~2-shot with 2 query rows: tags has 2 distinct examples, which leaves none for the "
            "support set; "
            "lower n_query.",
        ),
        (["", ""], {}, "tags has no labels; use KShot for tasks without labels."),
        (["A"], {"n_way": 0}, "n_way is 0, but must be a whole number of at least 1, or None."),
        (["A"], {"query": "all"}, "query is 'all', but must be one of: mentions, rows."),
    ],
)
def test_k2k_errors_at_construction(sentences: list[str], knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(FewShotError) as error:
        NWayK2KShot(tagged(sentences), **knobs)
    assert str(error.value) == message


def test_k2k_says_which_label_could_not_be_had() -> None:
    sampler = NWayK2KShot(tagged(["AAAB"] * 9 + ["A"] * 9), None, 1, 3, query="rows")  # each B brings three A
    with pytest.raises(FewShotError) as error:
        sampler.episode(0)
    assert str(error.value).startswith(
        "2-way 1~2-shot with 3 query rows: after 100 restarts, 'B' came to 0 of 1 mentions in the support "
        "set. The data "
        "has 9 in 9 examples, but they bring others over 2, or too few are left. All counts: A 1, B 0. "
        "Lower k_shot"
    )
    with pytest.raises(FewShotError, match="2 rows are left for the query set, which needs 3"):
        NWayK2KShot(tagged(["A", "A", "", ""]), 1, 2, 3, query="rows").episode(0)


@pytest.mark.parametrize("query", ["mentions", "rows"])
def test_k2k_never_divides_a_group(query: Any) -> None:
    data = tagged(SENTENCES, [str(i % 5) for i in range(len(SENTENCES))])
    group = group_of(data)
    for episode in episodes(NWayK2KShot(data, 2, 5, 5, query=query), 0, 30):
        assert not {group(e) for e in episode.support} & {group(e) for e in episode.query}
        assert all(5 <= n <= 10 for n in mentions(episode.support).values())


# --- K-shot ---


@settings(max_examples=80, deadline=None)
@given(
    groups=st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=40),
    k=st.integers(1, 8),
    n=st.integers(1, 8),
    index=st.integers(0, 50),
)
def test_k_shot_never_divides_a_group(groups: list[str], k: int, n: int, index: int) -> None:
    data = plain(len(groups), groups)
    if not can_divide(list(Counter(groups).values()), k, n):
        with pytest.raises(FewShotError, match=f"needs {k + n} distinct examples, but qa has {len(groups)}"):
            KShot(data, k, n)
        return
    assume(max(Counter(groups).values()) <= len(groups) - k - n + 1)  # then any order of groups will do
    episode = KShot(data, k, n).episode(index)
    assert (len(episode.support), len(episode.query), episode.label_names) == (k, n, ())
    group = group_of(data)
    assert not {group(e) for e in episode.support} & {group(e) for e in episode.query}
    assert len(set(inputs(episode.support + episode.query))) == k + n


def test_k_shot_takes_whole_groups_where_rows_at_large_would_touch_all() -> None:
    data = plain(60, [str(i % 3) for i in range(60)])
    group = group_of(data)
    for episode in episodes(KShot(data, 20, 20), 0, 40):
        assert len({group(e) for e in episode.support}) == 1
        assert len(episode.query) == 20


def test_k_shot_draws_rows_uniformly() -> None:
    drawn = Counter(e.target for ep in episodes(KShot(plain(20), 4, 4), 0, 1000) for e in ep.support)
    assert len(drawn) == 20
    assert chisquare(list(drawn.values())).pvalue > 1e-4


def test_k_shot_keeps_the_labels_of_labelled_data() -> None:
    assert KShot(labelled({"b": 9, "a": 9}), 2, 2).episode(0).label_names == ("a", "b")


def test_k_shot_errors() -> None:
    with pytest.raises(FewShotError) as error:
        KShot(plain(9), 5, 5)
    assert (
        str(error.value)
        == "5-shot with 5 queries needs 10 distinct examples, but qa has 9. Lower k_shot or n_query."
    )
    with pytest.raises(FewShotError, match="but qa has 12 in 1 group, none of which may stand on both sides"):
        KShot(plain(12, ["x"] * 12), 5, 5)


# --- meta-splits ---


@settings(max_examples=60, deadline=None)
@given(
    sentences=st.lists(st.text("ABCDEF", max_size=4), min_size=1, max_size=30),
    seed=st.integers(0, 99),
    shared=st.sampled_from(["restrict", "drop"]),
)
def test_class_splits_share_no_class(sentences: list[str], seed: int, shared: Any) -> None:
    data = tagged(sentences)
    assume(len(data.label_names) >= 3)
    if shared == "drop":  # every label keeps rows of its own
        data = tagged([*sentences, *data.label_names])
    splits = split_classes(data, seed=seed, shared=shared)
    parts = [splits.meta_train, splits.meta_val, splits.meta_test]
    assert sorted(label for part in parts for label in part.label_names) == list(data.label_names)
    for part in parts:
        for example, counts in zip(part.examples, part.label_counts, strict=True):
            assert Counter(tag for tag in example.target if tag != "O") == counts
            assert set(counts) <= set(part.label_names)
    rows = Counter(row for part in parts for row in inputs(part.examples))
    part_of = {label: i for i, part in enumerate(parts) for label in part.label_names}
    for example, counts in zip(data.examples, data.label_counts, strict=True):
        homes = len({part_of[label] for label in counts})
        expected = 1 if homes <= 1 else homes if shared == "restrict" else 0
        assert rows[canonical_json(example.inputs)] == expected


def test_class_split_sizes_names_and_seeds(caplog: pytest.LogCaptureFixture) -> None:
    data = labelled({f"l{i:02}": 3 for i in range(77)})
    splits = split_classes(data)
    sizes = [len(p.label_names) for p in (splits.meta_train, splits.meta_val, splits.meta_test)]
    assert sizes == [46, 16, 15]
    assert (splits.meta_train.name, splits.meta_test.name) == ("toy.meta_train", "toy.meta_test")
    assert len(splits.meta_train) == 3 * 46
    exact = split_classes(data, counts=[70, 0, 7], seed=1)
    assert [len(p) for p in (exact.meta_train, exact.meta_val, exact.meta_test)] == [210, 0, 21]
    assert exact.meta_test.label_names != split_classes(data, counts=[70, 0, 7], seed=2).meta_test.label_names
    assert exact.meta_test == split_classes(data, counts=[70, 0, 7], seed=1).meta_test
    small = split_classes(labelled(dict.fromkeys("abc", 1)), [0.9, 0.05, 0.05])
    assert [len(p.label_names) for p in (small.meta_train, small.meta_val, small.meta_test)] == [1, 1, 1]


@pytest.mark.parametrize(("shared", "fate"), [("restrict", "kept in each part"), ("drop", "dropped")])
def test_class_split_tells_rows_of_several_parts(
    caplog: pytest.LogCaptureFixture, shared: Any, fate: str
) -> None:
    data = tagged(["A", "B", "C", "ABC", "AC", ""])
    with caplog.at_level(logging.WARNING, "fewshot_nlp"):
        splits = split_classes(data, shared=shared)
    assert f"2 of 6 rows had labels of several parts and were {fate}" in caplog.text
    n_rows = sum(len(p) for p in (splits.meta_train, splits.meta_val, splits.meta_test))
    assert n_rows == (4 if shared == "drop" else 9)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"fractions": [0.5, 0.5]}, r"fractions are \[0.5, 0.5\], but must be three numbers"),
        ({"fractions": [0.5, 0.4, 0.2]}, "add up to 1"),
        ({"fractions": [1.5, -0.5, 0]}, "at least 0"),
        ({"fractions": [float("nan"), 0.5, 0.5]}, "add up to 1"),
        ({"counts": [1, 1, 1]}, "add up to 4, the number of labels of toy"),
        ({"counts": [1.5, 1.5, 1]}, "counts is .*1.5.*each item a whole number"),
        ({"counts": [2, 1, 1], "fractions": [0.5, 0.25, 0.25]}, "not both"),
        ({"shared": "both"}, "shared is 'both'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_class_split_refuses(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        split_classes(labelled(dict.fromkeys("abcd", 2)), **knobs)


def test_class_split_refuses_too_few_labels_and_lost_ones() -> None:
    with pytest.raises(FewShotError, match="toy has 2 labels, too few for 3 parts"):
        split_classes(labelled({"a": 2, "b": 2}))
    with pytest.raises(FewShotError, match="has no labels to split by"):
        split_classes(plain(3))
    with pytest.raises(FewShotError, match=r"all rows of '[ABC]' also have labels of other parts"):
        split_classes(tagged(["ABC"]), shared="drop")


def test_domain_splits_share_no_domain_and_no_input(caplog: pytest.LogCaptureFixture) -> None:
    law, wiki = plain(4, name="law", domain="legal"), plain(5, name="wiki")
    bank = plain(3, name="bank", domain="finance")
    mixed = TaskDataset(
        name="mixed",
        task="question_answering",
        examples=wiki.examples[:2] + law.examples[:1] + bank.examples[:1],
        label_counts=({},) * 4,
    )
    leaky = TaskDataset(
        name="leaky",
        task="x",
        examples=bank.examples[:2] + law.examples[:1],
        label_counts=({},) * 3,
        domain="finance",
    )
    with caplog.at_level(logging.WARNING, "fewshot_nlp"):
        splits = split_domains([wiki, law, mixed, bank, leaky], meta_test=["legal"], meta_val=["finance"])
    assert splits.meta_test == (law,)
    assert [(d.name, len(d)) for d in splits.meta_val] == [("bank", 3), ("leaky", 2)]
    assert [(d.name, len(d)) for d in splits.meta_train] == [("wiki", 5), ("mixed", 2)]
    assert "mixed: 2 of 4 rows are left out" in caplog.text
    assert "leaky: 1 of 3 rows are left out" in caplog.text


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"meta_test": ["law"]}, "meta_test names the domain 'law'. Known: general, legal"),
        ({"meta_test": []}, "must list domains"),
        ({"meta_test": "legal"}, "must list domains"),
        ({"meta_test": ["legal"], "meta_val": ["legal"]}, "in meta_val and in meta_test"),
        ({"meta_test": ["legal", "general"]}, "No domain is left to train on"),
    ],
)
def test_domain_split_refuses(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        split_domains([plain(2), plain(2, name="law", domain="legal")], **knobs)


# --- mixture ---


def sources() -> dict[str, KShot]:
    return {
        name: KShot(plain(n, name=name), 1, 1, n_episodes=n) for name, n in (("b", 16), ("a", 64), ("c", 4))
    }


@pytest.mark.parametrize(
    ("weights", "temperature", "expected"),
    [
        ("uniform", None, [1 / 3, 1 / 3, 1 / 3]),
        ("size", None, [64 / 84, 16 / 84, 4 / 84]),
        ("temperature", 1.0, [64 / 84, 16 / 84, 4 / 84]),
        ("temperature", 2.0, [8 / 14, 4 / 14, 2 / 14]),
        ({"a": 0, "b": 1, "c": 3}, None, [0, 0.25, 0.75]),
    ],
)
def test_mixture_draws_by_its_probabilities(
    weights: Any, temperature: float | None, expected: list[float]
) -> None:
    mixture = Mixture(sources(), weights, temperature=temperature)
    assert list(mixture.probabilities) == ["a", "b", "c"]
    assert list(mixture.probabilities.values()) == pytest.approx(expected)
    drawn = Counter(mixture.source(i) for i in range(3000))
    assert all(drawn[name] == 0 for name, p in zip("abc", expected, strict=True) if p == 0)
    kept = [(drawn[name], 3000 * p) for name, p in zip("abc", expected, strict=True) if p > 0]
    assert chisquare([o for o, _ in kept], [e for _, e in kept]).pvalue > 1e-4


def test_mixture_hands_its_own_index_on() -> None:
    samplers = sources()
    mixture = Mixture(samplers, seed=5)
    for index in (0, 1, 83, 10**6):
        assert mixture.episode(index) == samplers[mixture.source(index)].episode(index)
    assert len(mixture) == 84
    assert len(Mixture(samplers, n_episodes=7)) == 7
    assert isinstance(mixture, TaskSampler)
    drawn = [mixture.source(i) for i in range(60)]
    assert drawn == [Mixture(dict(reversed(samplers.items())), seed=5).source(i) for i in range(60)]
    assert drawn != [Mixture(samplers, seed=6).source(i) for i in range(60)]
    assert set(drawn) == {"a", "b", "c"}


def test_mixtures_can_be_mixed() -> None:
    inner = Mixture(sources())
    outer = Mixture({"inner": inner, "other": KShot(plain(9, name="other"), 1, 1)}, {"inner": 3, "other": 1})
    assert {e.task_id for e in episodes(outer, 0, 60)} == {"a", "b", "c", "other"}
    with pytest.raises(FewShotError, match="The sampler 'inner' has no n_examples"):
        Mixture({"inner": inner}, "size")


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"weights": "sizes"}, "weights is 'sizes', but must be one of"),
        ({"weights": "temperature"}, "give a temperature"),
        ({"temperature": 2.0}, "give a temperature"),
        ({"weights": "temperature", "temperature": 0.0}, "temperature is 0.0"),
        ({"weights": "temperature", "temperature": float("inf")}, "temperature is inf"),
        ({"weights": {"a": 1}}, "weights are given for a, but the samplers are a, b, c"),
        ({"weights": {"a": 1, "b": -1, "c": 1}}, "weight of 'b' is -1"),
        ({"weights": {"a": 0, "b": 0, "c": 0}}, "All weights are 0"),
        ({"seed": -1}, "seed is -1"),
        ({"n_episodes": 0}, "n_episodes is 0"),
    ],
)
def test_mixture_refuses(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        Mixture(sources(), **knobs)


def test_mixture_needs_a_sampler() -> None:
    with pytest.raises(FewShotError, match="at least one sampler"):
        Mixture({})


# --- episodes as files ---


def test_episodes_survive_a_file_and_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    stream = Mixture({name: make() for name, make in SAMPLER_OF.items()})
    written: list[Episode] = list(episodes(stream, 0, 12))
    digest = write_episodes(path, written)
    assert read_episodes(path) == (written, digest)
    assert write_episodes(tmp_path / "again.jsonl", episodes(stream, 0, 12)) == digest
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])  # the last episode is gone, the rest is intact
    with pytest.raises(FewShotError, match="was changed or cut short"):
        read_episodes(path)
    path.write_bytes(whole)
    manifest = tmp_path / "episodes.jsonl.sha256"
    manifest.write_text("0" * 64 + "  episodes.jsonl\n")
    with pytest.raises(FewShotError, match=r"manifest says 000000000000\.\.\."):
        read_episodes(path)


# --- the benchmark data ---


def rows_of(path: str) -> list[dict[str, Any]]:
    folder = os.environ.get("FEWSHOT_NLP_DATA")
    if not folder:
        pytest.skip("FEWSHOT_NLP_DATA is unset")
    with gzip.open(Path(folder) / path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.data
def test_banking77() -> None:
    rows = rows_of("classification/banking77/train.jsonl.gz")
    data = TaskDataset(
        name="banking77",
        task="classification",
        examples=tuple(Example({"text": r["text"]}, r["label"]) for r in rows),
        label_counts=tuple({r["label"]: 1} for r in rows),
    )
    for episode in episodes(NWayKShot(data), 0, 50):
        assert sorted(Counter(e.target for e in episode.support).values()) == [5] * 5
        assert sorted(Counter(e.target for e in episode.query).values()) == [10] * 5
    assert len(NWayKShot(data, None).episode(0).support) == 77 * 5


@pytest.mark.data
def test_bc5cdr() -> None:
    rows = rows_of("ner/bc5cdr/train.jsonl.gz")
    counts = [dict(Counter(t[2:] for t in r["ner_tags"] if t.startswith("B-"))) for r in rows]
    data = TaskDataset(
        name="bc5cdr",
        task="ner",
        examples=tuple(Example({"tokens": r["tokens"]}, r["ner_tags"]) for r in rows),
        label_counts=tuple(counts),
        restrict=lambda tags, labels: [t if t[2:] in labels else "O" for t in tags],
    )
    for sampler in (NWayK2KShot(data, None), NWayK2KShot(data, 1, 5, 50, query="rows")):
        for episode in episodes(sampler, 0, 50):
            found = Counter(t[2:] for e in episode.support for t in e.target if t.startswith("B-"))
            assert sorted(found) == list(episode.label_names)
            assert all(5 <= n <= 10 for n in found.values())
