"""Pairs of task and learner that cannot work are refused in one line, which says what can."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from matrix import MATRIX, REFUSED, make_pipeline
from toys import ROWS

from fewshot_nlp.errors import FewShotError


@pytest.fixture
def pipeline(tiny_folders, task, learner):
    return make_pipeline(tiny_folders, task, learner)


@pytest.mark.parametrize(("task", "learner"), REFUSED, ids=[f"{t}-{m}" for t, m in REFUSED])
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
