"""A memory in LanceDB answers as one in this process does."""

import subprocess
import sys

import pytest
import torch

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.memory import Entry, MemoryStore, VectorStore

N, WIDTH = 120, 8
GENERATOR = torch.Generator().manual_seed(5)
KEYS, QUERIES = torch.randn(N, WIDTH, generator=GENERATOR), torch.randn(6, WIDTH, generator=GENERATOR)
ENTRIES = [
    Entry(label=str(i % 3), example=f"e{i // 2}", text=f"w'{i}", place=i % 2, end=i, task="ab"[i % 2])
    for i in range(N)
]
EXAMPLES = {f"e{i}": {"inputs": {"text": f"text {i}"}} for i in range(N // 2)}


def told(found):
    return [[(n.entry.text, n.entry.label, n.entry.example, n.entry.end) for n in row] for row in found]


def test_without_lancedb_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(FewShotError, match=r"pip install 'fewshot-nlp\[vectors\]'"):
        VectorStore(tmp_path, 4)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_it_remembers_forgets_and_finds_as_a_store_in_memory(metric, tmp_path):
    pytest.importorskip("lancedb")
    here, there = (
        MemoryStore(WIDTH, "f", metric=metric),
        VectorStore(tmp_path / "m", WIDTH, "f", metric=metric),
    )
    for store in (here, there):
        store.remember(KEYS[:100], ENTRIES[:100], EXAMPLES)
        numbers = store.remember(KEYS[100:], ENTRIES[100:])
        assert numbers == sorted(set(numbers))
    for options in ({}, {"task": "a"}):
        found, wanted = there.search(QUERIES, 7, **options), here.search(QUERIES, 7, **options)
        assert told(found) == told(wanted)
        for row, other in zip(found, wanted, strict=True):
            assert [n.distance for n in row] == pytest.approx([n.distance for n in other], abs=1e-5)
    assert there.search(QUERIES[:1], 3, task="none") == [[]]
    there.index(cells=4)
    assert told(there.search(QUERIES, 5, cells=4)) == told(here.search(QUERIES, 5))
    for what in (
        {"examples": ["e3"], "texts": ["w'20", "unknown"]},
        {"texts": ["w'1"], "task": "a"},
        {"task": "b"},
    ):
        assert there.forget(**what) == here.forget(**what)
        assert len(there) == len(here)
        assert told(there.search(QUERIES, 9)) == told(here.search(QUERIES, 9))
    assert there.example("e0") == EXAMPLES["e0"]
    assert there.example("e3") is None
    with pytest.raises(FewShotError, match="Say what to forget"):
        there.forget()


def test_another_process_finds_what_was_remembered_and_another_encoder_is_refused(tmp_path):
    pytest.importorskip("lancedb")
    store = VectorStore(tmp_path / "m", WIDTH, "one")
    store.remember(KEYS, ENTRIES, EXAMPLES)
    code = (
        "from fewshot_nlp.memory import VectorStore, Entry; import torch;"
        f"s = VectorStore({str(tmp_path / 'm')!r}, {WIDTH}, 'one');"
        f"s.remember(torch.ones(1, {WIDTH}), [Entry(label='new')])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    again = VectorStore(tmp_path / "m", WIDTH, "one")
    assert len(again) == N + 1
    newest = max((n.entry for n in again.search(QUERIES[:1], N + 1)[0]), key=lambda e: e.number)
    assert newest.label == "new"
    with pytest.raises(FewShotError, match="made with fingerprint 'one', but 'two' is given"):
        VectorStore(tmp_path / "m", WIDTH, "two")
    with pytest.raises(FewShotError, match="one key of 8 features for each of 1 entries, not"):
        again.remember(torch.ones(1, 3), ENTRIES[:1])
    with pytest.raises(FewShotError, match="NaN or infinite"):
        again.remember(torch.full((1, WIDTH), torch.nan), ENTRIES[:1])
    with pytest.raises(FewShotError, match="8 features and k be at least 1"):
        again.search(QUERIES, 0)
