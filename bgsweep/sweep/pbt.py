"""Population-based training (Jaderberg et al. 2017): bad trials continue from good ones, with perturbed values."""

import contextlib
import math
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from bgsweep.config import Distribution, SweepConfig
from bgsweep.storage.layout import exchange_folder
from bgsweep.sweep.events import Event, Generation, replay
from bgsweep.sweep.searcher import CHECKPOINT, FIXED, VALUES, trial_name
from bgsweep.sweep.trial_names import by_number
from bgsweep.sweep.trial_record import Exchange

QUANTILE, RESAMPLE = 0.25, 0.25
FACTORS = (0.8, 1.2)
_TRIES = 20


class PBTScheduler(FIFOScheduler):
    """Lets all trials reach the same epoch, at which the worst quarter takes over the weights of the best quarter.

    All trials wait for one another at the end of each generation of `search.perturb_epochs`. So the exchanges depend on
    the seed and the metrics alone, not on which trial was faster, and no donor replaces its checkpoint while it is
    copied. The baseline may be a donor, but never takes anything over.

    Args:
        folder: of the sweep; copies of the donors' checkpoints stay in it until the next generation.
        size: number of trials that have not ended.
        at_once: gives the number of trials that can run at a time, which may grow.
        tell: called with a generation's epoch and exchanges before any trial continues.
        past: the events of earlier drivers.
    """

    def __init__(
        self,
        config: SweepConfig,
        folder: Path,
        size: int,
        at_once: Callable[[], int],
        tell: Callable[[int, list[Exchange]], None],
        past: Iterable[Event] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.file, self.folder, self.size, self.at_once, self.tell = config, folder, size, at_once, tell
        self._end = config.search.perturb_epochs  # of the present generation
        self._scores: dict[tuple[str, int], float] = {}

        def next_generation(event: Generation) -> None:
            self._end = event.epoch + config.search.perturb_epochs

        replay(
            past,
            on_result=lambda event, _: self._note(event.id, {"epoch": event.epoch, **event.metrics}),
            on_generation=next_generation,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its scheduler into its own state file; a sweep is resumed from its journal."""
        return FIFOScheduler, ()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._note(trial_name(trial), result)
        over = self._end <= result["epoch"] < self.file.experiment.training.epochs
        decision: str = TrialScheduler.PAUSE if over else TrialScheduler.CONTINUE
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        trials = tune_controller.get_trials()
        living = [trial for trial in trials if not trial.is_finished()]
        if living and len(trials) == self.size and all(self._waits(trial) for trial in living):
            self._exchange(living)
        begun = sum(trial.status in (Trial.RUNNING, Trial.PENDING) for trial in living)
        if begun < self.at_once():
            ready = (trial for trial in living if trial.status == Trial.PAUSED and not self._waits(trial))
            return next(ready, None)
        return None

    def _waits(self, trial: Trial) -> bool:
        """True if a trial has reached the generation's end, with its checkpoint written."""
        return trial.status == Trial.PAUSED and (trial_name(trial), self._end) in self._scores

    def _note(self, name: str, result: dict[str, Any]) -> None:
        ((metric, sign), *_) = self.file.search.signs.items()
        if metric in result:
            self._scores[name, int(result["epoch"])] = sign * result[metric]

    def _exchange(self, members: Sequence[Trial]) -> None:
        epoch = self._end
        names = {trial: trial_name(trial) for trial in members}
        ranked = sorted(members, key=lambda trial: (-self._scores[names[trial], epoch], by_number(names[trial])))
        count = min(math.ceil(QUANTILE * len(ranked)), len(ranked) // 2)
        target = exchange_folder(self.folder, epoch)
        exchanges = []
        for trial in ranked[len(ranked) - count :]:
            if trial.config[FIXED] != "baseline":
                draw = random.Random(f"{self.file.search.seed} {epoch} {trial_name(trial)}")
                exchanges.append(self._take_over(trial, draw.choice(ranked[:count]), draw, target))
        for trial in members:  # by now each has a checkpoint of Tune's, newer than the one that it was resumed from
            trial.set_config({**trial.config, CHECKPOINT: None})
        self.tell(epoch, exchanges)
        # Trials that went on from copies of the last generation have checkpoints of their own by now. One that has
        # failed is no member any more, and may have nothing but its copy.
        last = exchange_folder(self.folder, epoch - self.file.search.perturb_epochs)
        for name in names.values():
            shutil.rmtree(last / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty, or there was none
            last.rmdir()
        self._end += self.file.search.perturb_epochs

    def _take_over(self, trial: Any, donor: Any, draw: random.Random, target: Path) -> Exchange:
        name, values = trial_name(trial), self._explored(donor.config[VALUES], draw)
        copy = target / name
        shutil.rmtree(copy, ignore_errors=True)  # of a driver that died before it wrote the event
        # A copy, because Tune removes a donor's older checkpoints while it trains on.
        shutil.copytree(donor.checkpoint.path, copy)
        trial.set_config({**trial.config, VALUES: values})
        # The checkpoint that the trial starts again from, set as in Ray's own PBT.
        trial.run_metadata.checkpoint_manager._latest_checkpoint_result = _TrainingResult(
            checkpoint=Checkpoint.from_directory(str(copy)), metrics=donor.last_result
        )
        return Exchange(name, trial_name(donor), values, str(copy))

    def _explored(self, values: dict[str, Any], draw: random.Random) -> dict[str, Any]:
        """Perturbed values of a donor; its own if none of several draws can be combined.

        They have the searched keys alone. The baseline also switches off what the file fixes, which stays on in all
        other trials, and has no value for the parts of a schedule that is off.
        """
        whole = self.file.experiment.with_values(values)
        own = {key: values[key] if key in values else whole.value(key) for key in self.file.space.parameters}
        for _ in range(_TRIES):
            found = {
                key: explore(own[key], distribution, draw)
                for key, (distribution,) in self.file.space.parameters.items()
            }
            if not self.file.refusal(found):
                return self.file.typed(found)
        return own


def explore(value: Any, distribution: Distribution, draw: random.Random) -> Any:
    """A perturbed value: drawn anew, a fifth more or less, or the next of the options."""
    anew = draw.random() < RESAMPLE
    if distribution.options is not None:
        options, value = list(distribution.options), distribution.as_listed(value)
        if anew or value not in options:
            return draw.choice(options)
        return options[min(max(options.index(value) + draw.choice((-1, 1)), 0), len(options) - 1)]
    if anew or not isinstance(value, int | float):  # a pair, one value for each view, is the experiment's own
        return distribution.draw(draw)
    low, high = distribution.bounds or (0.0, 0.0)
    return min(max(distribution.on_step(value * draw.choice(FACTORS)), low), high)
