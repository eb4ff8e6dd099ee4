"""What a sweep knows of its trials, kept in memory and, line by line, in a file that outlives the driver."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["running", "completed", "stopped", "failed"]


@dataclass
class TrialRecord:
    """One trial: what it was asked to do, how far it came, what it measured last, and its MLflow run."""

    id: str
    params: dict[str, Any]
    fixed: str | None
    digest: str
    run_id: str
    status: Status = "running"
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    failures: int = 0
    error: str | None = None
    seconds: float = 0.0
    began: float = field(default_factory=time.time)

    def public(self) -> dict[str, Any]:
        """The form in which ``--json`` and the journal show it."""
        shown = asdict(self)
        del shown["began"]
        return shown


class Journal:
    """Appends each change of a trial as one JSON line; a killed driver may leave a torn last one, which is harmless."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        self._file.write(json.dumps({"time": time.time(), "event": event, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
