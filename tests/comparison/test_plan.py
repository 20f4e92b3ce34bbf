from collections import Counter

import pytest

from fewshot_nlp import FewShotError
from fewshot_nlp.comparison.cells import Candidate
from fewshot_nlp.comparison.plan import make_plan
from fewshot_nlp.comparison.schedule import Cost, fitting, rows_in_time, seconds_of
from fewshot_nlp.tasks import TASKS


def dataset(counts: dict[str, int], groups: bool = False):
    rows = [
        {"text": f"{label} {i}", "label": label, "doc": i // 3}
        for label, n in counts.items()
        for i in range(n)
    ]
    return TASKS.get("classification")().dataset(rows, group_column="doc" if groups else None)


def targets(plan, rows):
    return [plan.dataset.examples[row].target for row in rows]


class TestFolds:
    @pytest.mark.parametrize("groups", [False, True])
    def test_every_row_is_scored_once_a_repeat_and_never_learned_from(self, groups: bool):
        data = dataset({"a": 12, "b": 12, "c": 9}, groups)
        plan = make_plan(data, [1, 3], 1000, 0)
        for repeat in range(3):
            parts = plan.folds(3, repeat)
            assert sorted(row for _, rows in parts for row in rows) == list(range(33))
            for fold, (pool, rows) in enumerate(parts):
                assert not {*plan.support(pool, 3, repeat, fold)} & {*rows}
                if groups:
                    assert not {data.groups[r] for r in pool} & {data.groups[r] for r in rows}

    def test_repeats_differ_and_are_reproducible(self):
        data = dataset({"a": 12, "b": 12})
        one, other = make_plan(data, [2], 1000, 0), make_plan(data, [2], 1000, 0)
        assert one.folds(2, 0) == other.folds(2, 0) != one.folds(2, 1)
        pool = one.folds(2, 0)[0][0]
        assert one.support(pool, 2, 0, 0) == other.support(pool, 2, 0, 0) != one.support(pool, 2, 1, 0)

    def test_a_group_stands_in_one_block(self):
        plan = make_plan(dataset({"a": 30, "b": 30}, groups=True), [1], 1000, 0)
        where = {}
        for number, block in enumerate(plan.blocks):
            for place in block:
                where.setdefault(plan.dataset.groups[plan.tested[place]], set()).add(number)
        assert all(len(blocks) == 1 for blocks in where.values())
        assert sorted(p for block in plan.blocks for p in block) == list(range(60))


class TestSupport:
    def test_k_of_each_label(self):
        plan = make_plan(dataset({"a": 12, "b": 12, "c": 12}), [5], 1000, 0)
        pool = plan.folds(5, 0)[0][0]
        assert Counter(targets(plan, plan.support(pool, 5, 0, 0))) == {"a": 5, "b": 5, "c": 5}

    def test_a_rare_label_gives_what_it_has(self):
        plan = make_plan(dataset({"a": 20, "b": 20, "c": 2}), [5], 1000, 0)
        found = Counter(targets(plan, plan.support(list(range(42)), 5, 0, 0)))
        assert found == {"a": 5, "b": 5, "c": 2}
        assert "Fewer than 5 examples in the support sets: c." in plan.notes


class TestSizes:
    def test_each_size_takes_the_fewest_folds_that_allow_it(self):
        assert make_plan(dataset({"a": 20, "b": 20}), [10], 1000, 0).n_folds == (2,)
        assert make_plan(dataset({"a": 15, "b": 15}), [10], 1000, 0).n_folds == (3,)
        assert make_plan(dataset({"a": 12, "b": 12}), [1, 5, 10], 1000, 0).n_folds == (2, 2, 6)

    def test_each_row_out_where_nothing_else_will_do(self):
        plan = make_plan(dataset({"a": 12, "b": 12}), [11], 1000, 0)
        assert plan.n_folds == (24,)
        assert any("leave one out" in note for note in plan.notes)

    def test_sizes_that_cannot_be_had_are_left_out_with_a_note(self):
        plan = make_plan(dataset({"a": 12, "b": 12}), [1, 5, 50], 1000, 0)
        assert plan.shots == (1, 5)
        assert any(note.startswith("50 examples a label were left out") for note in plan.notes)

    def test_scored_rows_are_a_random_part(self):
        plan = make_plan(dataset({"a": 50, "b": 50}), [5], 30, 0)
        assert len(plan.tested) == 30
        assert {plan.dataset.examples[r].target for r in plan.tested} == {"a", "b"}

    def test_too_few_rows(self):
        with pytest.raises(FewShotError, match="There are 2 distinct rows"):
            make_plan(dataset({"a": 1, "b": 1}), [1], 1000, 0)
        with pytest.raises(FewShotError, match=r"500 examples a label cannot be had.*k_shot=\[4\]"):
            make_plan(dataset({"a": 5, "b": 5}), [500], 1000, 0)

    def test_a_label_in_one_group_is_told_of(self):
        rows = [
            {"text": f"{label} {i}", "label": label, "doc": doc}
            for label, docs in {"a": "xy", "b": "zz"}.items()
            for i, doc in enumerate(docs * 3)
        ]
        data = TASKS.get("classification")().dataset(rows, group_column="doc")
        assert any(
            "in one group" in note and note.endswith(": b.") for note in make_plan(data, [1], 99, 0).notes
        )
        with pytest.raises(FewShotError, match="Name another group_column"):
            make_plan(TASKS.get("classification")().dataset(rows, group_column="label"), [1], 99, 0)


class TestSmallerPlans:
    def test_from_folds_to_one_held_out_half_to_fewer_sizes(self):
        plan = make_plan(dataset({"a": 12, "b": 12}), [1, 5, 10], 1000, 0)
        smaller = plan.cheaper()
        assert [(p.shots, p.held_out) for p in smaller] == [
            ((1, 5), False),
            ((1, 5), True),
            ((5,), True),
            ((1,), True),
        ]
        supports = []
        for repeat in range(3):
            [(rows, episode)] = smaller[1].parts(5, repeat)
            assert tuple(rows) == smaller[1].tested
            assert Counter(e.target for e in episode.support) == {"a": 5, "b": 5}
            assert Counter(e.target for e in episode.query) == {"a": 6, "b": 6}
            supports.append(episode.support)
        assert len(set(map(str, supports))) == 3

    def test_the_largest_that_fits_the_time_is_taken(self):
        """Arithmetic by hand: a repeat adapts 2 + 2 + 6 times, or twice where one half is held out."""
        plan = make_plan(dataset({"a": 12, "b": 12}), [1, 5, 10], 1000, 0)
        learner = [Candidate("slow")]
        costs = {"slow": Cost({1: 2.0, 5: 2.0}, text=0.1)}
        assert seconds_of(plan, learner, costs, 1) == pytest.approx(10 * 2 + 3 * 24 * 0.1)
        cases = [(82, (1, 5, 10), False), (81, (1, 5), False), (30, (1, 5), True), (12, (5,), True)]
        for left, shots, held_out in cases:
            found = fitting(plan, learner, costs, 1, left, 100)
            assert (found.shots, found.held_out) == (shots, held_out)
        assert fitting(plan, learner, costs, 1, 12, 100).notes[-1] == (
            "1, 10 examples were left out and only 12 rows, of one half, are scored: 3 repeats of all would take "
            "about 82 s, and 12 of 100 s are left."
        )
        assert fitting(plan, learner, costs, 1, 82, 100) == plan

    def test_where_large_sizes_cost_more_they_go_first(self):
        """1 + K seconds: of one half, sizes 1 and 5 take 8 s, 1 and 10 take 13, all three 19;"""
        plan = make_plan(dataset({"a": 30, "b": 30}), [1, 5, 10], 1000, 0)
        costs = {"slow": Cost({1: 2.0, 10: 11.0}, text=0.0)}
        for left, shots in [
            (57, (1, 5, 10)),
            (52, (5, 10)),
            (39, (1, 10)),
            (24, (1, 5)),
            (20, (5,)),
            (3, (1,)),
        ]:
            found = fitting(plan, [Candidate("slow")], costs, 1, left, 100)
            assert (found.shots, found.held_out) == (shots, True)

    def test_slow_predictions_leave_fewer_rows(self):
        assert [rows_in_time(s, 100.0) for s in (0.0, 0.1, 0.5, 9.0)] == [30, 30, 13, 10]
