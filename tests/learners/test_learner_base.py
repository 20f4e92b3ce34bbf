"""What every learner inherits."""

import torch
from matrix import make_pipeline
from toys import ROWS

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.learners.prototypical import Prototypical


def test_the_last_layer_is_that_of_an_encoder_that_reads_no_other(tiny_folders):
    pipeline = make_pipeline(tiny_folders, "classification", "prototypical")
    examples = pipeline.task.examples(ROWS["classification"](2, seed=0))
    batch = pipeline.support(examples, pipeline.task.labels(examples))
    several = Prototypical(Encoder.from_pretrained(tiny_folders["encoder"], layers=(0, 1, -1)))
    features = several.features(batch)
    assert features.shape == (9, 96)  # two examples and the name of each label
    torch.testing.assert_close(several.last_layer(features), pipeline.learner.features(batch))
