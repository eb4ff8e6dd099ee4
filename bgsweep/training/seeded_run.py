"""One configuration under several seeds, and a run under one or several."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from bgsweep.config import SweepConfig
from bgsweep.config.metric_names import validated
from bgsweep.data import Splits
from bgsweep.data.loader import FeedFor
from bgsweep.stopping import Asked, nothing_asked
from bgsweep.storage.layout import CHECKPOINT_FILE, seed_checkpoints
from bgsweep.storage.uri import Uri, downloaded
from bgsweep.training.checkpoint import load_checkpoint
from bgsweep.training.run import Run


class SeededRun:
    """One configuration under several seeds, trained side by side: all of them are at the same epoch.

    The seeds follow on the experiment's own, so that all configurations have the same ones. Values are means over the
    seeds. Beside the loss and each online value, NAME, stand its standard error, ``NAME_se``, and the seeds' own
    values, ``NAME/seed_N``.
    """

    def __init__(
        self,
        config: SweepConfig,
        seeds: int,
        rank: int = 0,
        world_size: int = 1,
        device: str | None = None,
        feed_for: FeedFor | None = None,
        asked: Asked = nothing_asked,
    ) -> None:
        self.config = config
        self.rank = rank
        self.runs: list[Run] = []
        for seed in range(config.experiment.seed, config.experiment.seed + seeds):
            seeded = config.model_copy(update={"experiment": config.experiment.with_values({"seed": seed})})
            splits = self.runs[0].splits if self.runs else None
            self.runs.append(Run(seeded, rank, world_size, device, splits, feed_for, asked))

    @property
    def position(self) -> tuple[int, int]:
        """As of `Run.position`, of the seed that is in training."""
        return min(run.position for run in self.runs)

    @property
    def splits(self) -> Splits:
        """The images, which all seeds share."""
        return self.runs[0].splits

    @property
    def finished(self) -> bool:
        """True after the last epoch."""
        return self.runs[-1].finished

    def step_epoch(self) -> dict[str, float]:
        """Train each seed for one epoch; give their means and how sure these are.

        Raises:
            Stopped: as of `Run.step_epoch`; the seeds before the one that was training are an epoch further.
        """
        behind = [run for run in self.runs if run.reported < self.runs[0].reported]
        for run in behind or self.runs:
            run.step_epoch()
        return self.metrics

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last epoch; empty within an epoch that some seeds have trained and others not."""
        if any(run.reported != self.runs[0].reported for run in self.runs):
            return {}
        return average_over_seeds([run.metrics for run in self.runs], self.config.experiment.seed)

    @property
    def history(self) -> list[dict[str, float]]:
        """Of each epoch that all seeds have trained."""
        seeds = [{metrics["epoch"]: metrics for metrics in run.history} for run in self.runs]
        together = [epoch for epoch in seeds[0] if all(epoch in metrics for metrics in seeds)]
        first = self.config.experiment.seed
        return [average_over_seeds([metrics[epoch] for metrics in seeds], first) for epoch in together]

    def checkpoint_due(self) -> bool:
        """True if a checkpoint is to be written after the last finished epoch."""
        return self.runs[0].checkpoint_due()

    def save(self, folder: Path) -> Path:
        """As `Run.save`, for the first seed; the others' are in folders below it."""
        for run, below in self._places(folder):
            run.save(below)
        return folder / CHECKPOINT_FILE

    def restore(self, folder: Path, foreign: bool = False) -> None:
        for run, below in self._places(folder):
            run.restore(below, foreign)

    def _places(self, folder: Path) -> list[tuple[Run, Path]]:
        folders = seed_checkpoints(folder, self.config.experiment.seed, len(self.runs))
        return [(run, Path(each)) for run, each in zip(self.runs, folders, strict=True)]


def average_over_seeds(found: Sequence[dict[str, float]], first: int) -> dict[str, float]:
    """Means over the metrics of the seeds from ``first`` on, with standard errors and the seeds' own values."""
    names = [name for name in found[0] if not name.endswith("_se")]  # a metric's own: the seeds tell more
    values = {name: mean(each[name] for each in found) for name in names}
    for name in names:
        if name == "loss" or validated(name):
            values[f"{name}_se"] = stdev(each[name] for each in found) / math.sqrt(len(found))
            values |= {f"{name}/seed_{seed}": each[name] for seed, each in enumerate(found, first)}
    return values


def saved_metrics(checkpoint: Uri, first: int, seeds: int) -> dict[str, float]:
    """The metrics that a run of so many seeds from ``first`` on had reported when it wrote a checkpoint.

    Raises:
        UserError: there is no such checkpoint.
    """
    with downloaded(checkpoint) as folder:
        states = [load_checkpoint(Path(each) / CHECKPOINT_FILE) for each in seed_checkpoints(folder, first, seeds)]
    found: list[dict[str, float]] = [state["metrics"] for state in states]
    return average_over_seeds(found, first) if seeds > 1 else found[0]


def start(
    config: SweepConfig,
    seeds: int = 1,
    rank: int = 0,
    world_size: int = 1,
    device: str | None = None,
    feed_for: FeedFor | None = None,
    asked: Asked = nothing_asked,
) -> Run | SeededRun:
    """A run from its first epoch on, under one seed or several."""
    if seeds == 1:
        return Run(config, rank, world_size, device, feed_for=feed_for, asked=asked)
    return SeededRun(config, seeds, rank, world_size, device, feed_for, asked)


def checkpoint_bytes(run: Run | SeededRun) -> int:
    """About how large a checkpoint of a run becomes, the optimiser's averages included."""
    runs = run.runs if isinstance(run, SeededRun) else [run]
    method = runs[0].training.method
    kept: int = sum(value.nbytes for value in method.state_dict().values())
    trained: int = sum(value.nbytes for value in method.parameters() if value.requires_grad)
    return len(runs) * (kept + trained * (2 if runs[0].experiment.optimizer.name == "adamw" else 1))
