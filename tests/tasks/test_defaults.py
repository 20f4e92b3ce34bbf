"""Defaults of a task and a learner hold whether the learner is named or not; what a user gives goes before them."""

import pytest

from fewshot_nlp import FewShotModel
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.tasks import TASKS

NAMES = ("classification", "ner", "question_answering", "translation")
PAIRS = [(name, learner) for name in NAMES for learner in TASKS.get(name).defaults]


@pytest.fixture
def load(tiny_folders):
    return lambda task, **options: FewShotModel.from_pretrained(
        tiny_folders[TASKS.get(task).backbone], task=task, **options
    )


def settings(model):
    """Everything that a default may set."""
    task, learner = model.pipeline.task, model.pipeline.learner
    return task.to_dict(), learner.name, learner.config.to_dict(), getattr(learner.encoder, "layers", None)


@pytest.mark.parametrize("task", NAMES)
def test_the_default_learner_is_the_same_named_or_not(task, load):
    assert settings(load(task)) == settings(load(task, learner=TASKS.get(task).default_learner))


@pytest.mark.parametrize(("task", "learner"), PAIRS)
def test_a_named_learner_has_the_settings_of_the_task(task, learner, load):
    usual = TASKS.get(task).defaults[learner]
    options, _, config, layers = settings(load(task, learner=learner))
    own = LEARNERS.get(learner).config_class().to_dict()
    assert {key: value for key, value in config.items() if key not in usual.learner} == {
        key: value for key, value in own.items() if key not in usual.learner
    }
    assert {key: config[key] for key in usual.learner} == dict(usual.learner)
    assert {key: options[key] for key in usual.task} == dict(usual.task)
    if "layers" in usual.encoder:
        depth = 2  # of the tiny encoder
        assert layers == tuple({0.5: depth // 2, -1: depth}[place] for place in usual.encoder["layers"])


@pytest.mark.parametrize(
    ("task", "learner", "given", "found"),
    [
        ("ner", "context_probe", {"task_config": {"scheme": "io"}}, lambda s: s[0]["scheme"] == "io"),
        ("ner", "context_probe", {"layers": (2,)}, lambda s: s[0]["scheme"] == "bio" and s[3] == (2,)),
        ("classification", "contrastive", {"layers": (-1,)}, lambda s: s[3] == (2,)),
        (
            "translation",
            "nearest_neighbour",
            {"learner_config": {"k": 3}},
            lambda s: (s[2]["k"], s[2]["metric"], s[2]["half"]) == (3, "euclidean", True),
        ),
        ("translation", "fine_tune", {"learner_config": {"folds": 0}}, lambda s: s[2]["folds"] == 0),
    ],
)
def test_what_is_given_goes_before_a_default(task, learner, given, found, load):
    assert found(settings(load(task, learner=learner, **given)))
