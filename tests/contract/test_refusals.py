"""Pairs of task and learner that cannot work are refused in one line, which says what can."""

import pytest
from matrix import MATRIX, REFUSED, make_pipeline
from toys import ROWS

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.tasks import TASKS


@pytest.fixture
def pipeline(tiny_folders, task, learner):
    return make_pipeline(tiny_folders, task, learner)


NO_PRIOR = [pair for pair in REFUSED if TASKS.get(pair[0]).backbone == "seq2seq"]
NO_NAMES = [pair for pair in REFUSED if pair not in NO_PRIOR]


@pytest.mark.parametrize(("task", "learner"), NO_NAMES, ids=[f"{t}-{m}" for t, m in NO_NAMES])
def test_a_learner_of_names_is_refused_where_labels_have_none(task, learner, pipeline):
    examples = pipeline.task.examples(ROWS[task](2, seed=0))
    with pytest.raises(FewShotError, match=f"{learner} works by the names of labels") as caught:
        pipeline.adapt(examples, ())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "learner"), NO_PRIOR, ids=[f"{t}-{m}" for t, m in NO_PRIOR])
def test_a_learner_without_a_prior_is_refused(task, learner, pipeline):
    examples = pipeline.task.examples(ROWS[task](2, seed=0))
    batch = pipeline.task.collate(examples, (), pipeline.learner.encoder.tokenizer, with_targets=True)
    for call in (
        lambda: pipeline.adapt(examples, ()),
        lambda: pipeline.learner.meta_loss(batch, batch),
    ):
        with pytest.raises(FewShotError, match="own distribution") as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(learner)
        named = message.split("own distribution: ")[1].rstrip(".").split(", ")
        assert named == [other for other_task, other in MATRIX if other_task == task]
    assert pipeline.unadapted() is None
