"""Every task with every learner: the pairs that work, and those that are refused."""

from fewshot_nlp.backbone import BACKBONES
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.tasks import TASKS

QUICK = {
    "contrastive": {"steps": 8},
    "fine_tune": {"steps": 30, "lr": 0.01},
}
"""Settings that only shorten a learner's run."""


def _refused(task, learner):
    """A model with a head of its own, and a learner that knows only the classes of its support set; or no names."""
    made = LEARNERS.get(learner)
    vocabulary = TASKS.get(task).backbone == "seq2seq"
    unnamed = made.head_use == "own" and not TASKS.get(task).has_labels
    return unnamed or (vocabulary and made.head_use != "built_on")


PAIRS = [(task, learner) for task in TASKS.names() for learner in LEARNERS.names()]
REFUSED = [pair for pair in PAIRS if _refused(*pair)]
MATRIX = [pair for pair in PAIRS if pair not in REFUSED]


def make_pipeline(folders, task, learner, **config):
    """A pipeline on a tiny model of the task's kind; settings that a learner has not are left out."""
    kind = TASKS.get(task).backbone
    known = LEARNERS.get(learner).config_class().to_dict()
    settings = {**QUICK.get(learner, {}), **{k: v for k, v in config.items() if k in known}}
    return new_pipeline(task, {}, BACKBONES[kind].from_pretrained(folders[kind]), learner, settings)
