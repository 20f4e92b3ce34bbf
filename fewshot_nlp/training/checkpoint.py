"""Checkpoints of a meta-training run: a folder each, written whole or not at all, without pickle.

``tensors.safetensors`` holds the trainable parameters and the optimizer's state, ``state.json`` the step, the
configuration, the sources' fingerprints and the digest of the tensors. Random numbers need no state: all are
derived from the seed and the episode's number, so a resumed run repeats what an unbroken one does.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fewshot_nlp.episode import Json, canonical_json, sha256
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.disk import atomic_folder

FORMAT = 1
TENSORS = "tensors.safetensors"
STATE = "state.json"
ADVICE = "earlier checkpoints stay; make room and start the run again"
FREE_KEYS = frozenset({"output_dir", "resume", "save_every", "keep_last", "patience", "trackers"})
"""Settings, by the end of their path, that a resumed run may change: they do not change what a step computes."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is needed to go on after an outer step.

    Args:
        step: outer steps done.
        tensors: parameters and optimizer state by name.
        config: the run's settings as JSON.
        fingerprints: of the sources' rows.
        best: the best meta-validation so far, and its step; None before the first.
    """

    step: int
    tensors: Mapping[str, Tensor]
    config: dict[str, Json]
    fingerprints: dict[str, str]
    best: dict[str, Json] | None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Writes ``<folder>/step-<number>`` and removes all but the last ``keep_last`` checkpoints.

    Raises:
        FewShotError: the disk is full or may not be written; earlier checkpoints stay.
    """
    from safetensors.torch import save

    data = save({name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.tensors.items()})
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "config": checkpoint.config,
        "config_sha256": config_digest(checkpoint.config),
        "fingerprints": checkpoint.fingerprints,
        "best": checkpoint.best,
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
    }
    target = folder / f"step-{checkpoint.step:07d}"
    with atomic_folder(target, ADVICE) as part:
        (part / TENSORS).write_bytes(data)
        text = json.dumps(state, indent=1, ensure_ascii=False) + "\n"
        (part / STATE).write_text(text, encoding="utf-8")
    for old in checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Folders of all checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{7,}", p.name))


def load_newest(
    folder: Path, config: Mapping[str, Json], fingerprints: Mapping[str, str]
) -> Checkpoint | None:
    """The newest whole checkpoint, or None; the logger names each damaged one that is passed over.

    One of another format is not damaged: it belongs to another version of the package, and nothing is passed over.

    Args:
        folder: of the checkpoints.
        config: settings of the run that wants to go on.
        fingerprints: of its sources.

    Raises:
        FewShotError: all are damaged, or the newest is of another format, configuration or data (naming the first
            key that differs).
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            checkpoint = _read(path)
        except _DamagedError as error:
            logger.warning("%s Falling back to the checkpoint before it.", error)
            continue
        _same_run(path, checkpoint, config, fingerprints)
        return checkpoint
    if found:
        raise FewShotError(
            f"All {len(found)} checkpoints in {folder} are damaged; remove the folder to start again."
        )
    return None


def config_digest(config: Mapping[str, Json]) -> str:
    """SHA-256 of the settings that decide what is computed."""
    return sha256(canonical_json({key: value for key, value in flat(config).items() if _decides(key)}))


def _same_run(
    path: Path, checkpoint: Checkpoint, config: Mapping[str, Json], fingerprints: Mapping[str, str]
) -> None:
    then, now = flat(checkpoint.config), flat(config)
    for key in sorted(then | now):
        if _decides(key) and then.get(key) != now.get(key):
            raise FewShotError(
                f"{path} is of a run with {key}={then.get(key)!r}, but this one has {key}={now.get(key)!r}; "
                "restore that setting, or name another output_dir."
            )
    for key in sorted(checkpoint.fingerprints | dict(fingerprints)):
        if checkpoint.fingerprints.get(key) != fingerprints.get(key):
            raise FewShotError(f"{path}: the rows of {key} have changed since; name another output_dir.")


def _decides(path: str) -> bool:
    return path.rpartition(".")[2] not in FREE_KEYS


def flat(value: Json, prefix: str = "") -> dict[str, Json]:
    """Nested settings as one mapping with dotted keys."""
    if isinstance(value, dict) and value:
        return {
            k: v
            for key, item in value.items()
            for k, v in flat(item, f"{prefix}.{key}" if prefix else key).items()
        }
    return {prefix: value}


class _DamagedError(FewShotError):
    """A checkpoint that is not as it was written."""


def _read(path: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        number = state["format"]
        if isinstance(number, int) and number != FORMAT:
            raise FewShotError(
                f"{path} has format {number}, of {'a later' if number > FORMAT else 'an earlier'} version of "
                f"fewshot-nlp; this version reads format {FORMAT}. Go on with the version that wrote it, or name "
                "another output_dir."
            )
        data = (path / TENSORS).read_bytes()
        if hashlib.sha256(data).hexdigest() != state["tensors_sha256"]:
            raise _DamagedError(f"{path} is damaged: {TENSORS} has another digest than {STATE} says.")
        return Checkpoint(
            step=state["step"],
            tensors=load(data),
            config=state["config"],
            fingerprints=state["fingerprints"],
            best=state["best"],
        )
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise _DamagedError(f"{path} is damaged ({type(error).__name__}).") from error
