"""Live progress of a sweep: a table in a terminal, else a line for each change and a summary every 30 seconds."""

import time
from collections.abc import Callable, Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bgsweep.config import SweepConfig
from bgsweep.sweep.trial_record import TrialRecord

LOG_INTERVAL = 30.0


class Progress:
    """Shows the trials on stderr; `update` is cheap and may be called often."""

    def __init__(self, name: str, config: SweepConfig, trials: int) -> None:
        self.name, self.signs, self.trials = name, config.search.signs, trials
        self.epochs = config.experiment.training.epochs
        self.began = time.time()
        self._before: int | None = None  # epochs that were done then
        self.console = Console(stderr=True)
        self._live = Live(console=self.console, refresh_per_second=2) if self.console.is_terminal else None
        self._logged = self.began
        self._seen: dict[str, str] = {}
        self._warned: set[str] = set()
        self.budget: Callable[[], str] = str  # what is spent of it; no text without one

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print a line that stays above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, lines: Iterable[str]) -> None:
        """Warnings of trials' processes, each of which gives them: here each is told once."""
        for line in lines:
            if line not in self._warned:
                self._warned.add(line)
                self.note(line)

    def update(self, records: Iterable[TrialRecord]) -> None:
        records = list(records)
        if self._before is None:
            self._before = sum(record.epochs for record in records)
        if self._live:
            self._live.update(self._table(records))
            return
        for record in records:
            if self._seen.get(record.id) != record.status:
                self._seen[record.id] = record.status
                self.note(f"{record.id} {record.status} {self._outcome(record)}  {shorten(record)}")
        if time.time() - self._logged >= LOG_INTERVAL:
            self._logged = time.time()
            self.note(self._summary(records))

    def _outcome(self, record: TrialRecord) -> str:
        values = " ".join(f"{metric} {_score(record, metric)}" for metric in self.signs if metric in record.metrics)
        return values and f"epoch {record.epochs}/{self.epochs} {values}"

    def _summary(self, records: list[TrialRecord]) -> str:
        counts = {
            status: sum(r.status == status for r in records) for status in ("running", "stopped", "completed", "failed")
        }
        waiting = max(0, self.trials - len(records))
        parts = [f"{n} {status}" for status, n in counts.items() if n] + ([f"{waiting} to come"] if waiting else [])
        metric, sign = next(iter(self.signs.items()))
        scored = [record for record in records if metric in record.metrics]
        best = max(scored, key=lambda record: sign * record.metrics[metric], default=None)
        if best:
            parts.append(f"best so far {best.id} {_score(best, metric)}")
        if budget := self.budget():
            parts.append(budget)
        left = self.seconds_left(records)
        parts.append(f"{_clock(time.time() - self.began)} elapsed" + (f", about {_clock(left)} left" if left else ""))
        return " · ".join(parts)

    def seconds_left(self, records: list[TrialRecord]) -> float | None:
        """An estimate from this driver's epochs per second; trials to come are taken to last as long as ended ones."""
        done = sum(record.epochs for record in records) - (self._before or 0)
        if done <= 0:
            return None
        ended = [record.epochs for record in records if record.status != "running"]
        usual = sum(ended) / len(ended) if ended else self.epochs
        running = sum(self.epochs - record.epochs for record in records if record.status == "running")
        to_come = running + usual * max(0, self.trials - len(records))
        return to_come * (time.time() - self.began) / done

    def _table(self, records: list[TrialRecord]) -> RenderableType:
        table = Table(title=f"sweep {self.name}", title_justify="left", box=None, pad_edge=False)
        for column, justify in (
            ("trial", "left"),
            ("state", "left"),
            ("epoch", "right"),
            *((metric, "right") for metric in self.signs),
            ("values", "left"),
        ):
            table.add_column(column, justify=justify, no_wrap=column != "values")  # type: ignore[arg-type]
        for record in records:
            table.add_row(
                record.id,
                record.status,
                f"{record.epochs}/{self.epochs}",
                *(_score(record, metric) for metric in self.signs),
                shorten(record),
            )
        return Group(table, Text(self._summary(records)))


def shorten(record: TrialRecord) -> str:
    """A trial's values in one line: the last part of each key, the name of a fixed point, and its failures."""
    parts = [" ".join(f"{key.rpartition('.')[2]}={_number(value)}" for key, value in record.params.items())]
    parts += [f"({record.fixed})"] if record.fixed else []
    parts += [f"failures: {record.failures}, {record.error}"] if record.failures else []
    parts += [record.waiting] if record.waiting else []
    return " ".join(parts)


def _score(record: TrialRecord, metric: str) -> str:
    """A metric's value, with its standard error if it is a mean over seeds."""
    if metric not in record.metrics:
        return ""
    error = record.metrics.get(f"{metric}_se")
    return f"{record.metrics[metric]:.3f}" + ("" if error is None else f" ± {error:.3f}")


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{seconds:02d}"
