import json

import numpy as np
import pytest
from toys import ROWS

from fewshot_nlp import FewShotError, adapt_best
from fewshot_nlp.cli import main
from fewshot_nlp.comparison.auto import best_learner


@pytest.fixture(scope="module")
def options(tiny_encoder_folder):
    return {"task": "classification", "encoder": str(tiny_encoder_folder), "seconds": 1000.0}


def test_the_best_of_the_tried_is_adapted_to_all_rows(options):
    """What is chosen is the arg max of the comparison's own scores, and the model knows all rows' labels."""
    rows = ROWS["classification"](6, 0)
    model, found = adapt_best(rows, learners=["prototypical", "ridge"], **options)
    scores = {name: found.score(name, found.shots[-1]).mean for name in ("prototypical", "ridge")}
    assert model.pipeline.learner.name == max(scores, key=scores.get)
    assert found.shots == (3, 4)
    assert model.labels == ["law", "medicine", "money"]
    assert all(name in str(found) for name in scores)


def test_a_learner_that_is_refused_is_not_chosen(tiny_translator_folder):
    rows = ROWS["translation"](3, 0)
    own = {"task": "translation", "encoder": str(tiny_translator_folder), "seconds": 1000.0}
    name, found = best_learner(rows, learners=["ridge", "nearest_neighbour"], **own)
    assert name == "nearest_neighbour"
    assert "vocabulary" in found.refused("ridge")
    with pytest.raises(FewShotError, match="None of the learners could be tried: ridge"):
        best_learner(rows, learners=["ridge"], **own)


def test_the_command_line(options, tmp_path, capsys):
    rows = ROWS["classification"](5, 0)
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    given = [
        "adapt",
        "--task",
        "classification",
        "--data",
        data,
        "--out",
        tmp_path / "m",
        "--learner",
        "auto",
    ]
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in [*given, "--encoder", options["encoder"], "--seconds", 2, "--json"]])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["n_rows"] == len(rows)
    assert "stacked_probe" in said.err
    assert np.isin(
        json.loads(said.out)["learner"], ["contrastive", "stacked_probe", "ridge", "nearest_neighbour"]
    )
