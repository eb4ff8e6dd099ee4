"""Rows: results of single measurements, appended to a file as they are made, and the table made from them."""

import json
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

FILE, TABLE = "gpu.jsonl", "gpu.md"
MISSED = "missed"
"""Key under which a measurement says which target it missed; empty or absent if it missed none."""

_SHORTEST, _PATIENCE = 45.0, 2.5  # a row's limit, in seconds and in times of the expected ones

Values = dict[str, Any]


class Skipped(Exception):
    """A measurement that this machine does not allow; the message says why."""


@dataclass
class Rows:
    """The rows of one part in one run.

    Attributes:
        folder: where the results are.
        part: the part's name.
        run: tells the rows of this run from earlier ones in the same file.
        deadline: of `time.monotonic()`; a measurement that needs more time than is left is skipped.
        only: patterns of row names; the others are left out without a word.
    """

    folder: Path
    part: str
    run: str
    deadline: float
    only: Sequence[str] = ()
    _begun: set[str] = field(init=False)

    def __post_init__(self) -> None:
        # A part whose process died is started again and must not meet the same end.
        self._begun = {row["name"] for row in read(self.folder) if (row["run"], row["part"]) == (self.run, self.part)}

    @property
    def left(self) -> float:
        """Seconds left to the part."""
        return self.deadline - time.monotonic()

    def measure(
        self, name: str, measurement: Callable[[], Values], seconds: float = 0.0, limit: float | None = None
    ) -> Values | None:
        """Make one measurement and write its row; its values, or None if it was skipped or failed.

        Whatever a measurement raises becomes its row, and the next one is made. ``seconds`` is what it is expected to
        take; the part's process is ended, and started again for the next rows, after ``limit`` of them.
        """
        if name in self._begun or (self.only and not any(fnmatch(name, pattern) for pattern in self.only)):
            return None
        self._begun.add(name)
        if self.left < seconds:
            self.write(name, "skipped", reason=f"needs about {seconds:.0f} s, {max(0.0, self.left):.0f} s are left")
            return None
        limit = limit or max(_SHORTEST, _PATIENCE * seconds)
        append(self.folder, {**self._row(name, "begun", 0), "limit": limit})
        began = time.monotonic()
        try:
            values = measurement()
        except Skipped as reason:
            self.write(name, "skipped", reason=str(reason))
        except Exception as error:  # one measurement must not take the others with it
            traceback.print_exc()
            self.write(name, "failed", reason=_one_line(error), seconds=round(time.monotonic() - began, 2))
        else:
            missed = values.pop(MISSED, "")
            state = "missed" if missed else "passed"
            self.write(name, state, values, reason=missed, seconds=round(time.monotonic() - began, 2))
            return values
        return None

    def write(self, name: str, state: str, values: Values | None = None, reason: str = "", seconds: float = 0) -> None:
        """Append a row: one line, so that a killed process loses none of those before."""
        found = self._row(name, state, seconds)
        append(self.folder, found | ({"values": values} if values else {}) | ({"reason": reason} if reason else {}))

    def _row(self, name: str, state: str, seconds: float) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {"run": self.run, "part": self.part, "name": name, "state": state, "seconds": seconds, "time": now}


def append(folder: Path, row: dict[str, Any]) -> None:
    """Write a row at the end of the folder's file."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder, in the order they were written; a line that a kill cut off is left out."""
    file = folder / FILE
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last row of each part and name; an earlier result stays where a later run skipped the measurement."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["part"], row["name"]
        old = found.get(key)
        if old is None or old["run"] == row["run"] or row["state"] not in ("begun", "skipped"):
            found[key] = row
    return list(found.values())


def table(rows: Iterable[dict[str, Any]]) -> str:
    """A Markdown table of rows, one line each."""
    lines = ["| part | measurement | result | values |", "| --- | --- | --- | --- |"]
    for row in rows:
        said = [f"{name} {_shown(value)}" for name, value in row.get("values", {}).items()]
        reason = [row["reason"].replace("|", "/")] if row.get("reason") else []
        lines.append(f"| {row['part']} | {row['name']} | {row['state']} | {'; '.join(reason + said)} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return str(value)


def _one_line(error: BaseException) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:300]
