from collections import Counter

import pytest

from fewshot_nlp import FewShotError
from fewshot_nlp.comparison.plan import make_plan
from fewshot_nlp.tasks import TASKS


def dataset(counts: dict[str, int], groups: bool = False):
    rows = [
        {"text": f"{label} {i}", "label": label, "doc": i // 3}
        for label, n in counts.items()
        for i in range(n)
    ]
    return TASKS.get("classification")().dataset(rows, group_column="doc" if groups else None)


class TestFolds:
    @pytest.mark.parametrize("groups", [False, True])
    def test_every_row_is_scored_once_a_repeat_and_never_learned_from(self, groups: bool):
        data = dataset({"a": 12, "b": 12, "c": 9}, groups)
        plan = make_plan(data, [1, 3], 1000, 0)
        for repeat in range(3):
            parts = plan.folds(repeat)
            assert sorted(row for _, rows in parts for row in rows) == list(range(33))
            for fold, (pool, rows) in enumerate(parts):
                learned = {e.inputs["text"] for e in plan.support(pool, 3, repeat, fold)}
                assert not learned & {data.examples[row].inputs["text"] for row in rows}
                if groups:
                    assert not {data.groups[r] for r in pool} & {data.groups[r] for r in rows}

    def test_repeats_differ_and_are_reproducible(self):
        data = dataset({"a": 12, "b": 12})
        one, other = make_plan(data, [2], 1000, 0), make_plan(data, [2], 1000, 0)
        assert one.folds(0) == other.folds(0) != one.folds(1)
        pool = one.folds(0)[0][0]
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
        pool = plan.folds(0)[0][0]
        assert Counter(e.target for e in plan.support(pool, 5, 0, 0)) == {"a": 5, "b": 5, "c": 5}

    def test_a_rare_label_gives_what_it_has(self):
        plan = make_plan(dataset({"a": 20, "b": 20, "c": 2}), [5], 1000, 0)
        found = Counter(e.target for e in plan.support(list(range(42)), 5, 0, 0))
        assert found == {"a": 5, "b": 5, "c": 2}
        assert "Fewer than 5 examples in the support sets: c." in plan.notes


class TestSizes:
    def test_few_rows_take_more_folds(self):
        assert make_plan(dataset({"a": 20, "b": 20}), [10], 1000, 0).n_folds == 2
        assert make_plan(dataset({"a": 15, "b": 15}), [10], 1000, 0).n_folds == 3
        plan = make_plan(dataset({"a": 4, "b": 4}), [3], 1000, 0)
        assert plan.n_folds == 5

    def test_each_row_out_where_nothing_else_will_do(self):
        plan = make_plan(dataset({"a": 12, "b": 12}), [11], 1000, 0)
        assert plan.n_folds == 24
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
        with pytest.raises(FewShotError, match="at least 1"):
            make_plan(dataset({"a": 5, "b": 5}), [0, 3], 1000, 0)
