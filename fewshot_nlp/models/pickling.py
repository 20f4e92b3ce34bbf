"""Copies of a model through the folder format: for pickle, joblib, deepcopy and process pools."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


class Picklable:
    """What of a model is pickled: the files that `save_pretrained` writes, and settings that are plain values.

    So nothing is unpickled but bytes and settings, and a copy predicts as a saved and loaded model does.
    """

    _pipeline: Any

    def _settings(self) -> dict[str, Any]:
        """Plain settings of a class that has them."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        if self._pipeline is None:
            return {"settings": self._settings(), "files": None}
        with TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            self.save_pretrained(folder)  # type: ignore[attr-defined]
            files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return {"settings": self._settings(), "files": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["files"] is None:
            self.__init__(**state["settings"])  # type: ignore[misc]
            return
        with TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            for name, data in state["files"].items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            loaded = type(self).from_pretrained(folder)  # type: ignore[attr-defined]
        self.__dict__.update(loaded.__dict__)
        for name, value in state["settings"].items():
            setattr(self, name, value)
