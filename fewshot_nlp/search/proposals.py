"""A search space written in YAML, and a sampler of Optuna's whose proposals can be had again."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fewshot_nlp.episode import Json
from fewshot_nlp.errors import FewShotError


class Space:
    """Settings that a search moves, by path.

    Args:
        entries: for each path ``{low, high}``, on request with ``log`` or ``step``, or ``{choices}``.

    Raises:
        FewShotError: naming an entry that is neither.

    Examples:
        >>> space = Space({"outer.lr": {"low": 0.001, "high": 0.1}, "adapter.r": {"choices": [4, 8]}})
        >>> space.corners()
        [{'outer.lr': 0.001, 'adapter.r': 4}, {'outer.lr': 0.1, 'adapter.r': 8}]
    """

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        if not entries:
            raise FewShotError("space is empty; name at least one setting to search over.")
        for path, entry in entries.items():
            if set(entry) == {"choices"}:
                good = isinstance(entry["choices"], list) and len(entry["choices"]) > 1
            else:
                good = {"low", "high"} <= set(entry) <= {"low", "high", "log", "step"} and _range(entry)
            if not good:
                raise FewShotError(
                    f"space.{path} is {dict(entry)}, but must be {{low, high}} with numbers low < high, on request "
                    "with log: true (low above 0) or a step, or {choices} with two or more."
                )
        self._entries = entries

    def suggest(self, trial: Any) -> dict[str, Json]:
        """A value for every path, from an `optuna.Trial`."""
        drawn = {}
        for path, entry in self._entries.items():
            if "choices" in entry:
                drawn[path] = trial.suggest_categorical(path, [json.dumps(c) for c in entry["choices"]])
                continue
            whole = isinstance(entry["low"], int) and isinstance(entry["high"], int)
            more = {"log": entry.get("log", False)} | ({"step": entry["step"]} if "step" in entry else {})
            draw = trial.suggest_int if whole else trial.suggest_float
            drawn[path] = draw(path, entry["low"], entry["high"], **more)
        return self.values(drawn)

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Json]:
        """Optuna's parameters as settings: choices, which it holds as JSON, become values again."""
        return {p: json.loads(drawn[p]) if "choices" in e else drawn[p] for p, e in self._entries.items()}

    def corners(self) -> list[dict[str, Json]]:
        """The lowest or first values, and the highest or last, to check before any trial."""
        return [
            {p: e["choices"][place] if "choices" in e else e[bound] for p, e in self._entries.items()}
            for place, bound in ((0, "low"), (-1, "high"))
        ]


def _range(entry: Mapping[str, Any]) -> bool:
    numbers = [entry["low"], entry["high"], *([entry["step"]] if "step" in entry else [])]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return False
    log = entry.get("log", False)
    return entry["low"] < entry["high"] and not (log and ("step" in entry or entry["low"] <= 0))


def proposing_sampler(seed: int, startup_trials: int) -> Any:
    """An `optuna.samplers.BaseSampler` that proposes by a tree-structured Parzen estimator.

    Optuna seeds a sampler once, when a process makes it: a study gone on with would repeat its first draws, and so
    would every process of a distributed one. Here each trial has an estimator of its own, seeded by its number, so
    what is proposed is a function of the seed, the number and the trials before, whoever asks.
    """
    import optuna

    class Proposing(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def before_trial(self, study: Any, trial: Any) -> None:
            numbers = np.random.SeedSequence(seed, spawn_key=(trial.number,)).generate_state(1)
            self._estimator = optuna.samplers.TPESampler(
                seed=int(numbers[0]), n_startup_trials=startup_trials, constant_liar=True
            )
            self._estimator.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._estimator.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self._estimator.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return self._estimator.sample_independent(study, trial, name, distribution)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            if hasattr(self, "_estimator"):  # not where a trial of another process is told
                self._estimator.after_trial(study, trial, state, values)

    return Proposing()
