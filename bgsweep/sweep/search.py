"""The search of a sweep: one run of Ray Tune, with our searcher, scheduler and callbacks."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from bgsweep.config import SweepConfig
from bgsweep.stopping import leave_on_sigterm, remember_sigint
from bgsweep.storage.layout import tune_name
from bgsweep.storage.uri import Uri
from bgsweep.sweep.budget import BudgetGuard
from bgsweep.sweep.callbacks import SweepCallback, diverged
from bgsweep.sweep.capacity import trials_that_fit
from bgsweep.sweep.confirmation import Confirmations, confirming, proposals_of
from bgsweep.sweep.events import Event, Proposed, of_search
from bgsweep.sweep.fair_share import FairShare, FairShareSearcher
from bgsweep.sweep.heartbeat import stop_file
from bgsweep.sweep.pbt import PBTScheduler
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import TuneSearcher, named, total_trials, trial_name
from bgsweep.sweep.selection import searched
from bgsweep.sweep.trial import trainable
from bgsweep.sweep.trial_names import confirmed_by


def run_search(
    config: SweepConfig,
    folder: Path,
    target: Uri,
    monitor: SweepCallback,
    past: list[Event],
    share: FairShare,
    budget: BudgetGuard,
) -> None:
    """Run the trials that have not ended yet.

    Args:
        folder: of the sweep on this machine, with its journal.
        target: the sweep's folder in the store, for its checkpoints.
        past: events of earlier drivers.
        budget: withholds trials that are not expected to end within it.
    """
    scheduler, to_stop = _scheduler(config, folder, monitor, of_search(past), share)
    past = of_search([*past, *map(monitor.end, to_stop)])
    proposed = sum(isinstance(event, Proposed) for event in past)
    total = max(total_trials(config), proposed)  # fewer trials may be asked for than there are
    left = total - _ended(monitor)
    if left <= 0:
        return

    def refuse(proposal: dict[str, Any], reason: str) -> None:
        monitor.refuse(proposal, reason)
        if isinstance(scheduler, PBTScheduler):  # which waits for all its members
            scheduler.size -= 1

    searcher = TuneSearcher(config, past, monitor.journal, refuse, budget.refusal)
    share.begin(lambda: len(searcher.begun) if searcher.over else total - _ended(monitor))
    _fit(config, folder, target, monitor, searcher, scheduler, share, left)


def run_confirmations(
    config: SweepConfig, folder: Path, target: Uri, monitor: SweepCallback, share: FairShare, budget: BudgetGuard
) -> None:
    """Train the search's best trials again with new seeds, unless the sweep was asked to stop; arguments as above."""
    if config.search.confirm is None or stop_file(folder).exists():
        return
    left = proposals_of(config, monitor.records)
    if not left:
        return
    names = ", ".join(confirmed_by(named(each)) for each in left)
    monitor.progress.note(
        f"training again with {config.search.confirm.seeds} seeds that the search has not used: {names}"
    )
    searcher = Confirmations(left, functools.partial(budget.refusal, confirming=True))
    ended = sum(record.status != "running" for record in monitor.records.values())
    monitor.progress.trials = ended + len(left)
    share.begin(lambda: len(searcher.begun) if searcher.over else monitor.progress.trials - _ended(monitor, False))
    scheduler, _ = build_scheduler(confirming(config))
    _fit(confirming(config), folder, target, monitor, searcher, scheduler, share, len(left))


def _fit(
    config: SweepConfig,
    folder: Path,
    target: Uri,
    monitor: SweepCallback,
    searcher: TuneSearcher | Confirmations,
    scheduler: TrialScheduler,
    share: FairShare,
    left: int,
) -> None:
    _set_environment(config.search.concurrent or trials_that_fit(config))
    with no_retry_of_diverged(), leave_on_sigterm() as monitor.early.asked, remember_sigint() as interrupted:
        stopper = _Stop(stop_file(folder), monitor, share, interrupted)
        _tuner(config, target, monitor, searcher, scheduler, share, stopper, left).fit()
    if monitor.early.leave or interrupted():
        raise KeyboardInterrupt
    if searcher.over:
        monitor.progress.note(f"no further trial is expected to end within {searcher.over}")


def _tuner(
    config: SweepConfig,
    target: Uri,
    monitor: SweepCallback,
    searcher: TuneSearcher | Confirmations,
    scheduler: TrialScheduler,
    share: FairShare,
    stopper: tune.Stopper,
    left: int,
) -> tune.Tuner:
    """Ray Tune for the ``left`` trials that have not ended."""
    population = config.search.scheduler == "pbt"
    return tune.Tuner(
        trainable(config, target, share.board),
        tune_config=tune.TuneConfig(
            # All trials of a population exist at once: those that wait for the others would count against the share.
            search_alg=searcher if population else FairShareSearcher(searcher, share),
            scheduler=scheduler,
            num_samples=left,
            reuse_actors=config.experiment.workers.count == 1,
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=tune_name(monitor.journal.token),
            storage_path=str(target),
            callbacks=[monitor],
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            checkpoint_config=_checkpoints(config),
            # A sweep has its own table; Tune's would go to stdout, where the result is printed.
            verbose=0,
        ),
    )


@contextlib.contextmanager
def no_retry_of_diverged() -> Iterator[None]:
    """A context in which a trial whose loss is no number fails at once: it resumes bit-identically and would again.

    Tune has no setting for it, and no callback is called before it decides.
    """
    should_recover: Callable[[Trial], bool] = Trial.should_recover
    Trial.should_recover = lambda trial: not diverged(trial) and should_recover(trial)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trial.should_recover = should_recover  # type: ignore[method-assign]


class _Stop(tune.Stopper):
    """Ends the search once the stop file is there, the disk is full, a new node is refused, or after a signal."""

    def __init__(self, path: Path, monitor: SweepCallback, share: FairShare, interrupted: Callable[[], bool]) -> None:
        self.path = path
        self.monitor = monitor
        self.share = share
        self.interrupted = interrupted

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its stoppers into its own state file; ours live in this process only."""
        return tune.stopper.NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        ended = self.monitor.disk.full or self.share.refused or self.monitor.early.leave
        return bool(ended) or self.interrupted() or self.path.exists()


def _set_environment(concurrent: int) -> None:
    """Tune reads these settings from the environment only."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints a table to stdout, whatever `verbose` says
    # Tune would swallow Ctrl-C and return what there is, as if the search had been completed.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Its tables of each trial's results nobody reads, and for TensorBoard's the driver would import torch.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrent)
    # A trial reports each checkpoint too, which is not of an epoch with an evaluation alone.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"


def _scheduler(
    config: SweepConfig, folder: Path, monitor: SweepCallback, past: list[Event], share: FairShare
) -> tuple[TrialScheduler, list[str]]:
    """The search's scheduler, and the running trials that it stops at once."""
    if config.search.scheduler == "pbt":
        size = total_trials(config) - _ended(monitor)
        return PBTScheduler(config, folder, size, share, monitor.exchanged, past), []
    return build_scheduler(config, past)


def _ended(monitor: SweepCallback, search: bool = True) -> int:
    """Trials that have ended; without ``search`` also those that confirm others."""
    records = list(monitor.records.values())
    return sum(record.status != "running" for record in (searched(records) if search else records))


def _checkpoints(config: SweepConfig) -> tune.CheckpointConfig:
    if config.experiment.workers.count > 1:  # Ray Train keeps them
        return tune.CheckpointConfig()
    return tune.CheckpointConfig(num_to_keep=1, checkpoint_at_end=True)  # trials say when the others are due
