"""The file of a comparison: what was asked, how it was planned, and each finished part."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fewshot_nlp.comparison.cells import Record, sealed
from fewshot_nlp.comparison.plan import Plan
from fewshot_nlp.episode import Json, canonical_json
from fewshot_nlp.errors import FewShotError, logger
from fewshot_nlp.persistence.json_lines import JsonLines


class Results:
    """Finished parts by their key, in memory and, with a path, as JSON lines after a first line about the run.

    Args:
        path: the file, or None.
        run: what the file's run was asked for; another run's file is refused.

    Attributes:
        parts: finished parts by key.
        header: what the file's first line says; empty where there is none.

    Raises:
        FewShotError: the file holds something else, or the results of another run.
    """

    def __init__(self, path: str | Path | None, run: Mapping[str, Json]) -> None:
        self._run = dict(run)
        self._file = None if path is None else JsonLines(path, "finished parts stay; make room and go on")
        found = [] if self._file is None else self._file.records
        if self._file is not None and not found and self._file.damaged:
            raise FewShotError(
                f"{path} is no file of results: none of its lines can be read; name another file."
            )
        self.header: dict[str, Json] = found[0] if found else {}
        if found and not isinstance(self.header.get("run"), dict):
            raise FewShotError(
                f"{path} is no file of results: its first line names no run; name another file."
            )
        old = self.header.get("run", run)
        other = sorted(n for n in {*old, *run} if canonical_json(old.get(n)) != canonical_json(run.get(n)))
        if other:
            raise FewShotError(
                f"{path} holds the results of another run (another {', '.join(other)}); name another file or "
                "remove it."
            )
        whole = [r for r in found[1:] if "key" in r and r.get("sha") == sealed(r)]
        if self._file is not None and len(whole) < len(found) - 1:
            logger.warning(
                "%s: %d results are not as they were written; they are computed again.",
                path,
                len(found) - 1 - len(whole),
            )
            self._file.replace([self.header, *whole])
        self.parts: dict[str, Record] = {r["key"]: r for r in whole}

    def begin(self, plan: Plan | None = None) -> None:
        """Writes the first line, with the plan that the time allows where that was to be found."""
        if self._file is not None and not self.header:
            self.header = {"run": self._run}
            if plan is not None:
                self.header |= {"shots": list(plan.shots), "held_out": plan.held_out}
                self.header |= {"scored": len(plan.tested), "notes": list(plan.notes)}
            self._file.replace([self.header, *self.parts.values()])

    def planned(self, plan: Plan) -> Plan | None:
        """The plan that the file's run had; None for a new file."""
        if not self.header:
            return None
        wanted = self.header.get("shots"), self.header.get("held_out")
        options = [
            p for p in [plan, *plan.cheaper(self.header["scored"])] if (list(p.shots), p.held_out) == wanted
        ]
        if not options:
            raise FewShotError(
                "The file of results has a plan that these rows do not allow; name another file."
            )
        return replace(options[0], notes=tuple(self.header["notes"]))

    def add(self, record: Record) -> None:
        """A finished part."""
        self.parts[record["key"]] = record
        if self._file is not None:
            self._file.append(record)
