"""Models that a benchmark meta-trains before it compares them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from fewshot_nlp.arguments import merged, nested
from fewshot_nlp.episode import canonical_json, sha256
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.training import MetaTrainConfig, meta_train
from fewshot_nlp.training.config import without_code

Configs = dict[str, list[MetaTrainConfig]]
"""By name of the learner, one for each training seed."""


def training_config(
    parts: Sequence[Mapping[str, Any]], targets: Sequence[str], seed: int, folder: Path
) -> MetaTrainConfig:
    """Settings of one run, which writes to a folder named by them.

    Args:
        parts: settings by their paths or within one another; later ones win.
        targets: data sets that the model is scored on, which it must not train on.
        seed: of the run.
        folder: where runs have their folders.

    Raises:
        FewShotError: settings that do not fit one another, or the targets; or code that would be imported.
    """
    values: dict[str, Any] = {}
    for part in parts:
        values = merged(values, nested(part))
    values = merged(values, {"data": {"targets": list(targets)}, "run": {"seed": seed, "output_dir": "-"}})
    values["run"]["output_dir"] = str(folder / sha256(canonical_json(values))[:16])
    return without_code(MetaTrainConfig.from_dict(values))


def check_sources(config: MetaTrainConfig, guarded: Mapping[str, Sequence[str]]) -> None:
    """Raises `FewShotError` where a run reads rows whose texts the manifest has not kept from being scored."""
    for source in (*config.data.sources, *config.validation.sources):
        lacking = set(source.split.split("+")) - set(guarded.get(source.name, ()))
        if lacking:
            raise FewShotError(
                f"It reads {source.name!r} ({', '.join(sorted(lacking))}), which is not among the benchmark's sources; "
                "add it there and freeze the benchmark again."
            )


def trained(configs: Configs) -> dict[str, tuple[str, ...]]:
    """Folders of meta-trained models, by name of the learner; what is there is not trained again.

    Runs are computed in the processes of the `pool` that is open; one that was stopped goes on from its checkpoint.

    Raises:
        FewShotError: of `meta_train`.
    """
    runs = [(name, config) for name, found in configs.items() for config in found]
    folders = Parallel()(delayed(_folder)(name, config) for name, config in runs)
    return {
        name: tuple(f for (owner, _), f in zip(runs, folders, strict=True) if owner == name)
        for name in configs
    }


def _folder(name: str, config: MetaTrainConfig) -> str:
    """The model with the least meta-validation loss; without meta-validation that after the last step."""
    folder = Path(config.run.output_dir)
    if not (folder / "final").is_dir():  # written last
        try:
            meta_train(config)
        except FewShotError as error:
            raise FewShotError(f"{name}: {error}") from error
    best = folder / "best"
    return str(best if best.is_dir() else folder / "final")
