"""No mutation of a saved model folder gives other predictions, another error than `FewShotError`, or takes memory."""

from pathlib import Path

import pytest
from mutate_folders import originals, run, verdict

from fewshot_nlp.persistence.model_files import seal


@pytest.mark.filterwarnings("ignore")
def test_mutated_folders_predict_as_saved_or_are_refused_in_one_line(
    tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    models = originals(tmp_path / "models", tiny_folders)
    for model in models:
        assert verdict(model, model.folder, forged=False) == ("equal", "")
        seal(model.folder)
        assert verdict(model, model.folder, forged=False) == ("equal", "")
    ends, failures = run(tmp_path, models, 152, seed=1)
    assert not failures, "\n".join(failures)
    assert ends["damaged, refused"] > 50
    assert ends["forged, refused"] > 20
    assert ends["forged, equal"] + ends["forged, differs"] > 5, "else a seal alone would do"
