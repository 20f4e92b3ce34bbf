"""Search for hyperparameters: what is proposed, pruned, gone on with, and refused."""

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import optuna
import pytest
import yaml
from processes import finish, start_program
from training_runs import METRIC, ROOT, config_of

from fewshot_nlp import FewShotError, FewShotNER
from fewshot_nlp.arguments import read_arguments
from fewshot_nlp.errors import ScienceError
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.search import study as module
from fewshot_nlp.search.proposals import proposing_sampler
from fewshot_nlp.search.study import SearchConfig, search
from fewshot_nlp.training import MetaTrainResult, parse_config
from fewshot_nlp.training.callbacks import Callback
from fewshot_nlp.training.config import MetaTrainConfig

RECIPES = sorted((ROOT / "recipes" / "search").glob("*.yaml"))
SPACE: dict[str, Any] = {
    "outer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "adapter.r": {"choices": [2, 4]},
    "data.sampler.k_shot": {"choices": [[1], [1, 2]]},
}


def search_of(
    folder: Path, encoder: Path, base: dict[str, Any] | None = None, **changes: Any
) -> SearchConfig:
    run = config_of(folder / "run", encoder, **{"outer__steps": 4, "validation__every": 2, **(base or {})})
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(json.dumps(run.to_dict()))  # JSON is YAML
    values: dict[str, Any] = {"space": SPACE, "n_trials": 3, "pruner": "none", "startup_trials": 2}
    return SearchConfig(base=str(folder / "base.yaml"), output_dir=str(folder / "out"), **(values | changes))


class Runs:
    """Stands for `meta_train`: meta-validation losses that are a function of the learning rate."""

    def __init__(self, *, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.configs: list[MetaTrainConfig] = []
        self.looks: list[int] = []
        self._fail_at, self._error = fail_at, error

    def __call__(self, config: MetaTrainConfig, callbacks: list[Callback]) -> MetaTrainResult:
        self.configs.append(config)
        self.looks.append(0)
        history = [
            {
                "step": step,
                "val_loss": abs(config.outer.lr - 0.01) + (9.0 if step == 0 else 0.0),
                METRIC: config.outer.lr,
            }
            for step in (0, 2, 4)
        ]
        if len(self.configs) == self._fail_at and self._error is not None:
            raise self._error
        for record in history:
            callbacks[0].on_validation(record)
            self.looks[-1] += 1
        return MetaTrainResult(folder=Path(config.run.output_dir) / "best", history=history)


def rates(runs: Runs) -> list[float]:
    return [config.outer.lr for config in runs.configs]


def study_of(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "out" / "study.journal"))
    return optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))


def test_finds_the_best_of_its_trials_by_meta_validation(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    result = search(search_of(tmp_path, tiny_encoder_folder))
    figures = {}
    for trial in study_of(tmp_path).trials:
        log = Path(trial.user_attrs["folder"]) / "log.jsonl"
        looks = [r for r in map(json.loads, log.read_text().splitlines()) if "val_loss" in r and r["step"]]
        figures[trial.number] = min(r["val_loss"] for r in looks)
        assert trial.value == figures[trial.number]
    assert sorted(figures) == [0, 1, 2]
    assert len(set(figures.values())) == 3, "the trials differ"
    assert result.figure == min(figures.values())
    model = FewShotNER.from_pretrained(result.folder)
    told = model.extra["meta_training"]["config"]
    assert told["outer"]["lr"] == result.values["outer.lr"]
    assert told["adapter"]["r"] == result.values["adapter.r"]
    assert told["data"]["sampler"]["k_shot"] == result.values["data.sampler.k_shot"]
    assert told["validation"]["sampler"]["k_shot"] == [1, 2], (
        "meta-validation episodes stay those of the base"
    )
    again = parse_config(["--config", str(tmp_path / "out" / "best.yaml")])
    assert again.outer.lr == result.values["outer.lr"]


def test_the_metric_is_searched_for_upwards(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(module, "meta_train", runs)
    result = search(search_of(tmp_path, tiny_encoder_folder, base={"validation__best_by": "metric"}))
    assert result.figure == result.config.outer.lr == max(rates(runs))


def test_a_study_goes_on_with_the_trials_that_are_left(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, first, second = Runs(), Runs(), Runs()
    monkeypatch.setattr(module, "meta_train", whole)
    search(search_of(tmp_path / "whole", tiny_encoder_folder, n_trials=8))
    monkeypatch.setattr(module, "meta_train", first)
    search(search_of(tmp_path / "parts", tiny_encoder_folder, n_trials=5))
    monkeypatch.setattr(module, "meta_train", second)
    result = search(search_of(tmp_path / "parts", tiny_encoder_folder, n_trials=8))
    assert (len(first.configs), len(second.configs), result.trials) == (5, 3, 8)
    assert rates(first) + rates(second) == rates(whole), "and proposes what an unbroken one does"
    assert len(set(rates(whole))) == 8
    assert result.figure == min(abs(rate - 0.01) for rate in rates(whole))


def test_a_study_that_was_moved_goes_on_where_it_is(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(module, "meta_train", runs)
    first = search(search_of(tmp_path / "old", tiny_encoder_folder, n_trials=3))
    for config in runs.configs:
        Path(config.run.output_dir, "best").mkdir(parents=True)
    (tmp_path / "old").rename(tmp_path / "new")
    again = search(search_of(tmp_path / "new", tiny_encoder_folder, n_trials=3))
    assert again.folder.is_dir()
    assert again.folder == tmp_path / "new" / first.folder.relative_to(tmp_path / "old")
    more = search(search_of(tmp_path / "new", tiny_encoder_folder, n_trials=5))
    assert more.trials == 5
    assert not (tmp_path / "old").exists()
    assert all(Path(config.run.output_dir).parent == tmp_path / "new" / "out" for config in runs.configs[3:])


def test_the_estimator_learns_from_the_trials() -> None:
    def misses(startup_trials: int) -> float:
        study = optuna.create_study(sampler=proposing_sampler(0, startup_trials))
        study.optimize(lambda trial: abs(trial.suggest_float("x", -3.0, 3.0) - 2.0), n_trials=40)
        return sum(trial.value or 0.0 for trial in study.trials[10:])

    assert misses(10) < 0.6 * misses(1000)


@pytest.mark.parametrize("pruner", ["median", "successive_halving", "none"])
def test_pruning_ends_runs_that_fall_behind(
    pruner: str, tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(module, "meta_train", runs)
    config = search_of(tmp_path, tiny_encoder_folder, n_trials=20, startup_trials=3, pruner=pruner)
    search(config)
    states = [trial.state.name for trial in study_of(tmp_path).trials]
    pruned = [looks for looks, state in zip(runs.looks, states, strict=True) if state == "PRUNED"]
    assert len(states) == 20
    assert all(looks < 3 for looks in pruned)
    assert bool(pruned) == (pruner != "none")


def test_a_divergent_trial_counts_and_the_search_goes_on(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(fail_at=1, error=ScienceError("the loss became NaN"))
    monkeypatch.setattr(module, "meta_train", runs)
    assert search(search_of(tmp_path, tiny_encoder_folder)).trials == len(runs.configs) == 3
    monkeypatch.setattr(module, "meta_train", Runs(fail_at=1, error=ScienceError("the loss became NaN")))
    with pytest.raises(FewShotError, match="None of 1 trials came to its end"):
        search(search_of(tmp_path / "one", tiny_encoder_folder, n_trials=1))


def test_a_trial_ended_by_a_signal_is_taken_up_again(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, later = Runs(fail_at=2, error=SystemExit(143)), Runs()
    monkeypatch.setattr(module, "meta_train", stopped)
    with pytest.raises(SystemExit):
        search(search_of(tmp_path, tiny_encoder_folder))
    monkeypatch.setattr(module, "meta_train", later)
    search(search_of(tmp_path, tiny_encoder_folder))
    assert len(later.configs) == 2
    assert later.configs[0] == stopped.configs[1]  # the folder, with its checkpoint, is the same too


def test_two_processes_share_a_study(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = search_of(
        tmp_path, tiny_encoder_folder, n_trials=4, storage=f"sqlite:///{tmp_path / 'study.db'}"
    )
    values = {"base": config.base, "space": SPACE, "output_dir": config.output_dir, "storage": config.storage}
    path, script = tmp_path / "search.yaml", str(ROOT / "recipes" / "search.py")
    path.write_text(yaml.safe_dump(values | {"n_trials": 4}))
    folders = [tmp_path / "one said", tmp_path / "other said"]
    both = [start_program(script, ["--config", path], folder) for folder in folders]
    told = [finish(process, folder) for process, folder in zip(both, folders, strict=True)]
    assert [done.returncode for done in told] == [0, 0], told
    study = optuna.load_study(study_name="search", storage=config.storage)
    assert 4 <= len(study.trials) <= 5  # one more where both had begun their last
    assert len({trial.params["outer.lr"] for trial in study.trials}) == len(study.trials)
    best = Path(study.best_trial.user_attrs["folder"]) / "best"
    assert str(best) in {done.stdout.strip() for done in told}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {}}, "space is empty"),
        (
            {"space": {"validation.n_episodes": {"choices": [5, 50]}}},
            "'validation.n_episodes' cannot be searched",
        ),
        ({"space": {"outer.lr": {"low": 0.1, "high": 0.01}}}, "low < high"),
        ({"space": {"outer.lr": {"low": 0.0, "high": 0.1, "log": True}}}, "low above 0"),
        ({"space": {"outer.lr": {"choices": [0.1]}}}, "two or more"),
        ({"space": {"outer.rl": {"low": 0.1, "high": 0.2}}}, "outer has no setting 'rl'"),
        ({"space": {"outer.lr": {"low": -1.0, "high": 0.2}}}, r"outer\.lr is -1\.0"),
        ({"space": {"run.seed.x": {"low": 0.1, "high": 0.2}}}, "cannot be searched"),
        (
            {"space": {"outer.meta_batch.x": {"low": 0.1, "high": 0.2}}},
            "outer.meta_batch has no settings of its own",
        ),
        ({"n_trials": 0}, "at least 1"),
        ({"pruner": "hyperband"}, "median, successive_halving, none"),
        ({"base": {"validation__sources": ()}}, "neither validation.sources nor validation.class_fraction"),
    ],
)
def test_a_bad_search_is_refused_before_any_trial(
    changes: dict[str, Any], told: str, tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    with pytest.raises(FewShotError, match=told):
        search(search_of(tmp_path, tiny_encoder_folder, **changes))
    assert not (tmp_path / "out").exists()


def test_another_search_of_the_same_name_is_refused(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "meta_train", Runs())
    search(search_of(tmp_path, tiny_encoder_folder))
    with pytest.raises(FewShotError, match="holds another search under the name 'search'"):
        search(search_of(tmp_path, tiny_encoder_folder, space={"outer.lr": {"choices": [0.1, 0.2]}}))


def test_processes_launched_as_one_run_are_refused(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate, "Accelerator", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(FewShotError, match=r"2 were launched together\. Start the search once for each"):
        search(search_of(tmp_path, tiny_encoder_folder))


def test_without_optuna_the_remedy_is_told(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(FewShotError, match=r'pip install "fewshot-nlp\[search\]"'):
        search(search_of(tmp_path, tiny_encoder_folder))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_of_searches_fit_their_base(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "meta_train", Runs())
    assert "classification_prototypical" in {recipe.stem for recipe in RECIPES}
    header = path.read_text().splitlines()[0]
    assert f"recipes/search.py --config recipes/search/{path.name}" in header
    arguments = ["--config", str(path), "--n_trials=2", f"--output_dir={tmp_path}"]
    assert search(read_arguments(SearchConfig, arguments)).trials == 2


class FullDisk(Runs):
    """From its third trial on no file may grow."""

    def __call__(self, config: MetaTrainConfig, callbacks: list[Callback]) -> MetaTrainResult:
        if len(self.configs) == 2:
            journal = user_path(config.run.output_dir).parent / "study.journal"
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 5, hard))
        return super().__call__(config, callbacks)


def test_a_full_disk_is_one_line_and_costs_no_finished_trial(
    tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, rest, whole = FullDisk(), Runs(), Runs()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(module, "meta_train", full)
    try:
        with pytest.raises(
            FewShotError, match=r"the disk is full\. Finished trials .* stay; make room"
        ) as caught:
            search(search_of(tmp_path / "parts", tiny_encoder_folder, n_trials=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    journal = (tmp_path / "parts" / "out" / "study.journal").read_bytes()
    assert not journal.endswith(b"\n"), "the last line was cut short"
    monkeypatch.setattr(module, "meta_train", rest)
    result = search(search_of(tmp_path / "parts", tiny_encoder_folder, n_trials=4))
    monkeypatch.setattr(module, "meta_train", whole)
    search(search_of(tmp_path / "whole", tiny_encoder_folder, n_trials=4))
    assert result.trials == 4
    assert rates(full)[:2] == rates(whole)[:2]


def test_settings_that_name_code_need_leave(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    config = search_of(tmp_path, tiny_encoder_folder)
    named = {"data.augmentation": {"paraphrase": "antigravity:fly", "paraphrase_rate": 0.5}}
    with pytest.raises(FewShotError, match="'antigravity:fly', whose module would be imported and run"):
        search(replace(config, settings=named))
    for path in ("data", "data.augmentation", "data.augmentation.paraphrase"):
        with pytest.raises(FewShotError, match=f"space: '{path}' cannot be searched"):
            replace(config, space={path: {"choices": [None, {}]}})
