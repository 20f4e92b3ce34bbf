"""What every learner owes every task. The matrix is TASKS x LEARNERS: a new one of either is tested at once.

Pairs that cannot work are no part of it; `test_refusals` tests that they are refused.
"""

from functools import cache

import pytest
import torch
from matrix import MATRIX, make_pipeline
from toys import BAR, GAIN, ROWS, TOY_SETTINGS, rename, text_of, unique

from fewshot_nlp.backbone.adapters import default_adapter
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.modules.state import FAST
from fewshot_nlp.persistence.storage import load, save
from fewshot_nlp.pipeline import Pipeline, TaskModel

pytestmark = pytest.mark.parametrize(("task", "learner"), MATRIX, ids=[f"{t}-{m}" for t, m in MATRIX])


def labelled(pipeline: Pipeline) -> bool:
    """Whether a test of label names applies; that the others have none is checked, so that nothing hides here."""
    if pipeline.task.has_labels:
        return True
    assert pipeline.task.labels(pipeline.task.examples(ROWS[pipeline.task.name](2, seed=0))) == ()
    return False


@pytest.fixture
def make(tiny_folders):
    return lambda task, learner, **config: make_pipeline(tiny_folders, task, learner, **config)


def adapting_once(make):
    """A function of task and learner to a model that was adapted to four rows a label, and its weights from before."""

    @cache
    def adapted(task, learner):
        pipeline = make(task, learner)
        named = {**pipeline.learner.encoder.parameters(), **dict(pipeline.learner.named_parameters())}
        before = {name: p.detach().clone() for name, p in named.items()}
        return adapt(pipeline, ROWS[task](4, seed=0)), before

    return adapted


@pytest.fixture(scope="session")
def adapted_once(tiny_folders):
    """A model of each pair for all tests that leave it as it is."""
    return adapting_once(lambda task, learner: make_pipeline(tiny_folders, task, learner))


@pytest.fixture
def shared(adapted_once, task, learner) -> TaskModel:
    """A model that was adapted to four rows a label; do not change it."""
    return adapted_once(task, learner)[0]


def adapt(pipeline: Pipeline, rows) -> TaskModel:
    examples = pipeline.task.examples(rows)
    return pipeline.adapt(examples, pipeline.task.labels(examples))


def generates(model: TaskModel) -> bool:
    """Whether queries have no slots, because predictions are generated: slots are then the targets' own tokens."""
    pipeline = model.pipeline
    empty = pipeline.queries([], model.labels)
    return pipeline.task.generation_options(empty, pipeline.learner.encoder.tokenizer) is not None


def collate(model: TaskModel, rows, with_targets=True):
    task = model.pipeline.task
    return task.collate(
        task.examples(rows), model.labels, model.pipeline.learner.encoder.tokenizer, with_targets=with_targets
    )


def scores(model: TaskModel, rows):
    return model.adapted.scores(collate(model, rows, with_targets=generates(model)))


def targets(model: TaskModel, items):
    return [p["target"] for p in model.predict(items)]


def test_every_task_has_a_toy(task, learner):
    assert task in ROWS


def test_same_seed_same_state(task, learner, make, shared):
    again = adapt(make(task, learner), ROWS[task](4, seed=0))
    assert shared.adapted.state.keys() == again.adapted.state.keys()
    assert all(torch.equal(v, again.adapted.state[k]) for k, v in shared.adapted.state.items())


def test_renamed_labels_permute_scores(task, learner, make, shared):
    if not labelled(shared.pipeline):
        return
    rows, queries = ROWS[task](4, seed=0), ROWS[task](3, seed=9)
    names = {"law": "z", "medicine": "y", "money": "x"}
    pipeline = make(task, learner, label_names=0.0)
    first, second = adapt(pipeline, rows), adapt(pipeline, rename(rows, names))
    one, two = scores(first, queries), scores(second, queries)
    classes = pipeline.queries([], first.labels).classes
    renamed = second.pipeline.queries([], second.labels).classes
    order = [renamed.index(names.get(c.split("-")[-1], c)) for c in classes]
    assert order != sorted(order)
    torch.testing.assert_close(one.softmax(-1), two[:, order].softmax(-1), rtol=2e-3, atol=2e-4)


def test_support_order_does_not_matter(task, learner, shared):
    queries = ROWS[task](3, seed=9)
    other = adapt(shared.pipeline, ROWS[task](4, seed=0)[::-1])
    torch.testing.assert_close(
        scores(shared, queries).softmax(-1), scores(other, queries).softmax(-1), rtol=2e-3, atol=2e-4
    )


def test_base_weights_stay_bit_identical(task, learner, shared, adapted_once):
    scores(shared, ROWS[task](2, seed=5))
    pipeline, before = shared.pipeline, adapted_once(task, learner)[1]
    now = {**pipeline.learner.encoder.parameters(), **dict(pipeline.learner.named_parameters())}
    assert now.keys() == before.keys()
    assert all(torch.equal(p, before[n]) for n, p in now.items())
    assert not any(p.requires_grad for p in pipeline.learner.encoder.model.parameters())


def test_query_targets_cannot_move_predictions(task, learner, shared):
    queries = ROWS[task](3, seed=9)
    wrong = rename(queries, {"law": "money", "money": "medicine", "medicine": "law"})
    examples, others = (shared.pipeline.task.examples(rows) for rows in (queries, wrong))
    assert [e.target for e in examples] != [e.target for e in others]
    assert (
        targets(shared, examples) == targets(shared, others) == targets(shared, [e.query for e in examples])
    )
    if not generates(shared):
        got = [shared.adapted.scores(collate(shared, rows)) for rows in (queries, wrong)]
        assert torch.equal(*got)
        assert torch.equal(got[0], scores(shared, queries))


def test_a_query_does_not_depend_on_its_neighbours(task, learner, shared):
    queries = ROWS[task](3, seed=9)
    together, alone = scores(shared, queries), scores(shared, queries[:1])
    torch.testing.assert_close(together[: len(alone)], alone, rtol=1e-4, atol=1e-4)
    items = [e.query for e in shared.pipeline.task.examples(queries)]
    assert targets(shared, items)[0] == targets(shared, items[:1])[0]


def test_saved_and_loaded_predictions_are_equal(task, learner, shared, tmp_path):
    pipeline = shared.pipeline
    queries = [e.query for e in pipeline.task.examples(ROWS[task](3, seed=9))]
    save(tmp_path / "model", pipeline, shared)
    loaded = load(tmp_path / "model").model
    assert loaded is not None
    assert loaded.adapted.state.keys() == shared.adapted.state.keys()
    assert all(torch.equal(v, loaded.adapted.state[k]) for k, v in shared.adapted.state.items())
    assert targets(shared, queries) == targets(loaded, queries)


def test_a_separable_toy_is_well_above_chance(task, learner, make, shared):
    support = ROWS[task](10, seed=0)
    known = {text_of(row) for row in support}
    held_out = [row for row in unique(ROWS[task](12, seed=7)) if text_of(row) not in known]
    settings = TOY_SETTINGS.get(task)
    model = adapt(make(task, learner, **settings) if settings else shared.pipeline, support)
    examples = model.pipeline.task.examples(held_out)
    if task in GAIN:
        before = model.pipeline.unadapted()
        batch = collate(model, held_out)
        losses = [float(batch.loss(m.adapted.scores(batch))) for m in (before, model)]
        assert losses[0] - losses[1] > GAIN[task], losses
        return
    predicted = targets(model, [e.query for e in examples])
    got = model.pipeline.task.metrics([e.target for e in examples], predicted, model.labels)
    assert got[model.pipeline.task.primary_metric] > BAR[task], got


def test_labels_without_examples_are_scored_by_their_names(task, learner, shared):
    pipeline = shared.pipeline
    if not labelled(pipeline):
        return
    given = [], ["law", "medicine", "money"], {"law": "court judge order"}
    if pipeline.task.word_tags:  # nothing says what is no entity
        outside = pipeline.queries([], given[1]).classes[0]
        with pytest.raises(FewShotError, match=f"Without an example nothing says what is '{outside}'"):
            pipeline.adapt(*given)
        return
    model = pipeline.adapt(*given)
    got = scores(model, ROWS[task](2, seed=3))
    assert torch.isfinite(got).all()
    assert got.std() > 0


def test_meta_loss_moves_what_it_should(task, learner, make):
    pipeline = make(task, learner)
    if not pipeline.learner.meta_learns:
        pytest.skip(f"{learner} solves its head by a library, which has no gradient")
    encoder = pipeline.learner.encoder
    if not encoder.adapter:
        encoder.attach(default_adapter())
    for p in encoder.adapter.values():
        p.requires_grad_()
    support, query = (pipeline.task.examples(ROWS[task](2, seed=s)) for s in (0, 1))
    labels = pipeline.task.labels(support)
    loss = pipeline.learner.meta_loss(
        pipeline.support(support, labels),
        pipeline.task.collate(query, labels, encoder.tokenizer, with_targets=True),
    )
    loss.backward()
    assert torch.isfinite(loss)
    norms = [float(p.grad.norm()) for p in encoder.adapter.values() if p.grad is not None]
    assert sum(norms) > 0
    assert all(torch.isfinite(torch.tensor(norms)))


def test_state_says_which_weights_are_fast(task, learner, shared):
    names = set(shared.pipeline.learner.encoder.parameters())
    fast = {k.removeprefix(FAST) for k in shared.adapted.state if k.startswith(FAST)}
    assert fast <= names
    assert shared.adapted.bytes == sum(v.nbytes for v in shared.adapted.state.values())
