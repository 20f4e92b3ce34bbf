"""Small meta-training runs on the package's own corpora, for the tests of meta-training."""

import json
import os
from pathlib import Path
from typing import Any

from fewshot_nlp import arguments
from fewshot_nlp.arguments import nested
from fewshot_nlp.training import MetaTrainConfig
from fewshot_nlp.training.config import EncoderSettings, SamplerSettings, Source

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "recipes" / "meta_train.py"
METRIC = "entity_f1_strict_iob2"
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]}


def config_of(folder: Path, encoder: Path, **changes: Any) -> MetaTrainConfig:
    """A run of less than a second, on the package's own corpora; ``outer__steps=3`` is the setting ``outer.steps``."""
    values: dict[str, Any] = {
        "task": "ner",
        "learner": "prototypical",
        "encoder": EncoderSettings(name=str(encoder)),
        "adapter": LORA,
        "data.sources": (Source(name="medical_ner"), Source(name="legal_ner")),
        "data.sampler": SamplerSettings(n_way=2, k_shot=(1, 2), n_query=3, options={"query": "rows"}),
        "validation.sources": (Source(name="finance_ner"),),
        "validation.n_episodes": 3,
        "validation.every": 3,
        "outer.lr": 1e-2,
        "outer.warmup": 2,
        "outer.meta_batch": 2,
        "outer.steps": 6,
        "run.save_every": 2,
        "run.output_dir": str(folder),
    }
    return MetaTrainConfig.from_dict(nested(values | _paths(changes)))


def changed(config: MetaTrainConfig, **changes: Any) -> MetaTrainConfig:
    """A copy of a configuration with other values; ``outer__steps=3`` is the setting ``outer.steps``."""
    return arguments.changed(config, _paths(changes))


def _paths(changes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in changes.items()}


def arguments_of(config: MetaTrainConfig) -> list[str]:
    """The command line of a configuration; groups by their paths, since launchers read ``--run`` as their own."""
    values = {key: value for key, value in config.to_dict().items() if value is not None}
    groups = {key: values.pop(key) for key in ("data", "validation", "outer", "run")}
    values |= {f"{group}.{key}": value for group, named in groups.items() for key, value in named.items()}
    return [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items()]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of the log, without timings."""
    path = folder / "log.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k != "episodes_per_s"} for line in lines]


def step_of(folder: Path) -> int:
    """The last step in the log."""
    return max((record["step"] for record in log_of(folder)), default=0)


def assert_same_run(one: Path, two: Path) -> None:
    """Models have the same bits, logs the same figures."""
    for name in ("final", "best"):
        first, second = (folder / name / "model.safetensors" for folder in (one, two))
        assert first.read_bytes() == second.read_bytes(), name
    assert log_of(one) == log_of(two)
