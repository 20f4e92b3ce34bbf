"""The persistent memory: search, forgetting, eviction, files, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.memory import Entry, MemoryStore
from fewshot_nlp.memory.store_file import HEADER

ROOT = Path(__file__).parents[2]


def store_of(n=12, *, dimension=4, seed=0, **options):
    """A store of random keys; entry i has the label "even" or "odd" and comes from example i // 2."""
    store = MemoryStore(dimension, "f" * 64, **options)
    keys = torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed))
    labels = ["even", "odd"]
    store.remember(
        keys,
        [
            Entry(label=labels[i % 2], example=f"e{i // 2}", text=f"w{i}", place=i % 2, task="a")
            for i in range(n)
        ],
        {f"e{i // 2}": {"inputs": f"text {i // 2}"} for i in range(n)},
    )
    return store


def same(one, two):
    return one.entries == two.entries and one.examples == two.examples and torch.equal(one.keys, two.keys)


@pytest.mark.parametrize("search", ["exact", "faiss"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_is_brute_force(metric, search):
    if search == "faiss":
        pytest.importorskip("faiss")
    store = store_of(metric=metric, search=search)
    queries = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    q, k = queries.numpy().astype(float), store.keys.numpy().astype(float)
    if metric == "cosine":
        q, k = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (q, k))
        distance = 1 - q @ k.T
    else:
        distance = ((q[:, None] - k[None]) ** 2).sum(-1)
    for row, found in zip(distance, store.search(queries, 3), strict=True):
        assert [n.entry.number for n in found] == np.argsort(row)[:3].tolist()
        np.testing.assert_allclose([n.distance for n in found], np.sort(row)[:3], atol=1e-5)


def test_tasks_share_a_store_and_are_told_apart():
    store = store_of()
    store.remember(torch.ones(2, 4), [Entry(label="x", task="b"), Entry(label="y", task="b")])
    found = store.search(store.keys[:1], 20, task="b")[0]
    assert {n.entry.label for n in found} == {"x", "y"}
    assert store.search(store.keys[:1], 1, task="none") == [[]]
    assert store.forget(task="b") == 2
    assert same(store, store_of())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("search", ["exact", "faiss"])
def test_a_store_that_grows_while_it_is_searched_finds_what_one_made_at_once_finds(search, metric):
    if search == "faiss":
        pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(3)
    keys, queries = (torch.randn(n, 4, generator=generator) for n in (60, 7))
    entries = [Entry(label=str(i % 3), task="ab"[i % 2], text=f"w{i}") for i in range(60)]
    growing = MemoryStore(4, metric=metric, search=search)
    for begin, end in ((0, 10), (10, 11), (11, 12), (12, 40), (40, 60)):
        growing.remember(keys[begin:end], entries[begin:end])
        for task in ("a", "b", None):
            growing.search(queries, 5, task=task)
    whole = MemoryStore(4, metric=metric, search=search)
    whole.remember(keys, entries)
    for task in ("a", "b", None):
        found, wanted = growing.search(queries, 5, task=task), whole.search(queries, 5, task=task)
        assert [[n.entry for n in row] for row in found] == [[n.entry for n in row] for row in wanted]
    growing.forget(texts=["w3"])
    assert "w3" not in {n.entry.text for row in growing.search(queries, 60) for n in row}
    assert torch.equal(growing.keys, keys[[i for i in range(60) if i != 3]])


def test_remembering_one_does_not_index_the_others_again(monkeypatch):
    store = store_of()
    store.search(store.keys[:1], 1)
    before = store.keys
    monkeypatch.setattr("fewshot_nlp.memory.store.Index", None)
    store.remember(torch.full((1, 4), 9.0), [Entry(label="new")])
    assert store.search(torch.full((1, 4), 9.0), 1)[0][0].entry.label == "new"
    assert len(before) == 12, "a view of the keys stays as it was"


def test_forgetting_removes_what_was_named_and_nothing_else():
    store = store_of()
    keys = store.keys.clone()
    assert store.search(keys[4:5], 1)[0][0].entry.text == "w4"
    assert store.forget(examples=["e2"], texts=["w0"]) == 3
    assert [e.number for e in store.entries] == [1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert torch.equal(store.keys, keys[[1, 2, 3, 6, 7, 8, 9, 10, 11]])
    assert store.search(keys[4:5], 1)[0][0].entry.text != "w4"
    assert store.forget(texts=["w1"], task="b") == 0
    assert list(store.examples) == ["e0", "e1", "e3", "e4", "e5"]
    with pytest.raises(FewShotError, match="Say what to forget"):
        store.forget()


def test_what_goes_beyond_the_capacity_is_the_stated_rule():
    assert [e.number for e in store_of(capacity=5).entries] == [7, 8, 9, 10, 11]
    store = store_of(8, capacity=8, eviction="least_used")
    store.search(store.keys[[0, 1, 5]], 1, count_uses=True)
    store.remember(torch.ones(2, 4), [Entry(label="even"), Entry(label="even")])
    assert [e.number for e in store.entries] == [0, 1, 4, 5, 6, 7, 8, 9]
    store = store_of(6, capacity=6, eviction="balanced")
    store.remember(torch.ones(3, 4), [Entry(label="odd")] * 3)
    assert [(e.label, e.number) for e in store.entries if e.label == "even"] == [
        ("even", 0),
        ("even", 2),
        ("even", 4),
    ]
    assert [e.number for e in store.entries if e.label == "odd"] == [6, 7, 8]


def test_numbers_are_never_given_twice(tmp_path):
    store = store_of(4)
    store.forget(numbers=[3])
    store = MemoryStore.load(store.save(tmp_path / "m"))
    assert store.remember(torch.ones(1, 4), [Entry(label="x")]) == [4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saved_and_loaded_is_the_same(tmp_path, dtype):
    store = MemoryStore(4, "f", capacity=20, eviction="balanced", metric="euclidean")
    store.remember(
        torch.randn(3, 4).to(dtype), [Entry(label="käse\ud800", text='"\n', example="1")] * 3, {"1": [None]}
    )
    store.save(tmp_path / "deep" / "memory.safetensors")
    loaded = MemoryStore.load(tmp_path / "deep" / "memory.safetensors", dimension=4, fingerprint="f")
    assert same(loaded, store)
    assert loaded.keys.dtype == dtype
    assert (loaded.capacity, loaded.eviction, loaded.metric) == (20, "balanced", "euclidean")
    empty = MemoryStore(4)
    assert same(MemoryStore.load(empty.save(tmp_path / "empty")), empty)


def damaged(path, how):
    data = path.read_bytes()
    if how == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(bytes(reversed(data)))
    else:
        tensors = load_file(path)
        header = json.loads(tensors[HEADER].numpy().tobytes())
        if how == "no json":
            tensors[HEADER] = tensors[HEADER][:-5]
        elif how == "missing key":
            del header["metric"]
        elif how == "entry lost":
            header["entries"].pop()
        elif how == "odd entry":
            header["entries"][0]["place"] = "0"
        elif how == "format":
            header["format"] = 2
        elif how == "foreign":
            del tensors[HEADER]
        if how not in ("no json", "foreign"):
            tensors[HEADER] = torch.from_numpy(np.frombuffer(json.dumps(header).encode(), np.uint8).copy())
        save_file(tensors, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut short", "is damaged"),
        ("empty", "is damaged"),
        ("noise", "is damaged"),
        ("no json", "is damaged"),
        ("missing key", "metric is missing"),
        ("entry lost", r"its keys have the shape \[12, 4\], its entries need \[11, 4\]"),
        ("odd entry", "entry 0 does not have the fields"),
        ("format", "has format 2, this version reads format 1"),
        ("foreign", "is no memory of this package"),
    ],
)
def test_damage_is_told_in_one_line_and_loses_nothing(tmp_path, how, message):
    path = store_of().save(tmp_path / "m")
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(FewShotError, match=message) as caught:
        MemoryStore.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FewShotError, match=message):
        store_of().save(path, merge=True)
    assert path.read_bytes() == before


def test_another_encoder_is_refused(tmp_path):
    path = store_of().save(tmp_path / "m")
    with pytest.raises(FewShotError, match="keys of 4 features, but the encoder gives 8"):
        MemoryStore.load(path, dimension=8)
    with pytest.raises(FewShotError, match=r"fingerprint ffffffffffff\.\.\., but this one has aaaa\.\.\."):
        MemoryStore.load(path, fingerprint="aaaa")
    with pytest.raises(FewShotError, match="only be merged if one encoder made both"):
        MemoryStore(4, "other").save(path, merge=True)
    with pytest.raises(FewShotError, match="no memory at"):
        MemoryStore.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s: s.remember(torch.ones(1, 3), [Entry(label="x")]),
            "keys have 4 features, but the new ones 3",
        ),
        (lambda s: s.remember(torch.ones(2, 4), [Entry(label="x")]), "2 keys but 1 entries"),
        (lambda s: s.remember(torch.full((1, 4), np.nan), [Entry(label="x")]), "NaN or infinite"),
        (lambda s: s.search(torch.ones(1, 3), 1), "Queries must have 4 features"),
        (lambda s: MemoryStore(4, capacity=0), "capacity is 0"),
        (lambda s: MemoryStore(4, eviction="newest"), "must be one of: oldest, least_used, balanced"),
    ],
)
def test_mistakes_are_told_and_change_nothing(call, message):
    store = store_of()
    with pytest.raises(FewShotError, match=message):
        call(store)
    assert same(store, store_of())


def test_a_write_that_fails_leaves_the_old_memory(tmp_path, monkeypatch):
    path = store_of().save(tmp_path / "m")
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewshot_nlp.memory.store_file.write_tensors", full)
    with pytest.raises(FewShotError, match="No space left on device"):
        store_of(2).save(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "m.lock"]


def test_processes_that_merge_lose_nothing(tmp_path):
    path = store_of(2).save(tmp_path / "m")
    program = (
        "import sys, torch\n"
        "from fewshot_nlp.memory import Entry, MemoryStore\n"
        "for i in range(5):\n"
        "    store = MemoryStore(4, 'f' * 64)\n"
        "    store.remember(torch.ones(1, 4), [Entry(label=sys.argv[2], text=str(i))])\n"
        "    store.save(sys.argv[1], merge=True)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), name], env=environment) for name in "ab"
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    found = MemoryStore.load(path).entries
    assert len(found) == 12
    assert {(e.label, e.text) for e in found} >= {(name, str(i)) for name in "ab" for i in range(5)}
    assert len({e.number for e in found}) == 12
    store_of(2).save(path)  # without merging the last one wins
    assert same(MemoryStore.load(path), store_of(2))


@pytest.mark.parametrize(("n", "k"), [(1000, 900), (2000, 1500), (1200, 1)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_uses_are_counted_for_what_faiss_returned(n, k, metric):
    pytest.importorskip("faiss")
    store = store_of(n, dimension=8, metric=metric, search="faiss")
    found = store.search(store.keys[:2] * 5, k, count_uses=True)
    returned = [neighbour.entry.number for near in found for neighbour in near]
    assert k == 1 or len(returned) < 2 * k, "cells hold fewer"
    assert [e.uses for e in store.entries] == np.bincount(returned, minlength=n).tolist()
