"""Outcomes of an audit's measures, kept on disk when each ends."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bgsweep.evaluation.audit.measure import Found
from bgsweep.evaluation.kept import KeptValues

Status = Literal["measured", "failed", "not applicable"]


@dataclass(frozen=True)
class Outcome:
    """A measure's result for one encoder, or why there is none.

    Attributes:
        seconds: what measuring took.
        at: when it ended, in milliseconds of Unix time.
    """

    status: Status
    found: Found | None = None
    reason: str = ""
    seconds: float = 0.0
    at: int = 0


class KeptOutcomes:
    """Outcomes by the measure's name, in a folder; a failed measure is not kept, so that it is tried again."""

    def __init__(self, folder: Path) -> None:
        self._values = KeptValues(folder)

    def read(self, name: str) -> Outcome | None:
        """The outcome of a measure; None if there is none that can be read."""
        kept = self._values.read(name)
        if kept is None:
            return None
        values, record = kept
        try:
            found = Found(values, record["details"]) if record["status"] == "measured" else None
            return Outcome(record["status"], found, record["reason"], record["seconds"], record["at"])
        except KeyError:
            return None

    def write(self, name: str, outcome: Outcome) -> None:
        """Keep the outcome of a measure."""
        if outcome.status == "failed":
            return
        found = outcome.found
        record = {"status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds, "at": outcome.at}
        record |= {"details": found.details if found else {}}
        self._values.write(name, found.values if found else (), record)
