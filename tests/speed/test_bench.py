"""Every benchmark of `make bench` runs once on tiny models and made-up rows; the table tells a slower one."""

import json

import bench
import pytest
from waits import BENCHMARKS, Scale


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "starting"])
def test_a_benchmark_runs_on_small_input(name, tiny_folders):
    with BENCHMARKS[name](Scale(small=tiny_folders)) as calls:
        assert calls
        for call in calls.values():
            call()


def test_programs_start(tiny_folders):
    with BENCHMARKS["starting"](Scale(small=tiny_folders)) as calls:
        calls["first prediction"]()


def test_calls_take_turns_with_the_reference(monkeypatch, tiny_folders):
    seen = []
    monkeypatch.setattr(bench, "reference", lambda: lambda: seen.append("reference"))
    monkeypatch.setattr(bench, "BENCHMARKS", {"a": lambda _: Prepared({"x": lambda: seen.append("x")})})
    seconds = bench.measure(["a"], Scale(repeats=2, small=tiny_folders))
    assert seen == ["reference", "x"] * 3, "once for warming up"
    assert {name: len(values) for name, values in seconds.items()} == {"a: reference": 2, "a: x": 2}


class Prepared:
    def __init__(self, calls):
        self.calls = calls

    def __enter__(self):
        return self.calls

    def __exit__(self, *_):
        return None


def test_the_table_tells_what_is_slower_and_leaves_the_machine_out(tmp_path):
    path = tmp_path / "bench.json"
    bench.store({"a: reference": [1.0, 1.0, 9.0], "a: x": [2.0], "b: reference": [1.0], "b: y": [4.0]}, path)
    bench.store({"a: reference": [1.0], "a: x": [2.0]}, path)
    stored = json.loads(path.read_text())["seconds"]
    assert stored == {"a: reference": 1.0, "a: x": 2.0, "b: reference": 1.0, "b: y": 4.0}
    slower_machine = {
        "a: reference": [3.0],
        "a: x": [6.0],
        "b: reference": [3.0],
        "b: y": [24.0],
        "b: new": [1.0],
    }
    lines = bench.table(slower_machine, stored).splitlines()[2:]
    assert lines == [
        "| a: x | 6 | 6 to 6 | 2 | 1.00 |",
        "| b: y | 24 | 24 to 24 | 4 | 2.00 |",
        "| b: new | 1 | 1 to 1 |  |  |",
    ]
