"""Who says what the next trial is: fixed points first, then a grid or an Optuna sampler (TPE or random)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from ray.tune.search import Searcher

from bgsweep.config import Distribution, SweepFile
from bgsweep.errors import UserError
from bgsweep.sweep.journal import Event, Journal

VALUES, FIXED, NUMBER, CHECKPOINT = "values", "fixed", "number", "checkpoint"


class Proposals(Searcher):
    """Ray Tune's view of an Optuna study.

    A trial's configuration is ``{"values": {dotted key: value}, "fixed": name or None, "number": n, "checkpoint": path
    or None}``. Fixed points are shown to Optuna too where they lie inside the space, so that it learns from them.

    ``past`` is what happened in the sweep before its driver died: it is told again, in its order, so that the sampler
    draws on as if nothing had been; the trials that were running come first.
    """

    def __init__(self, file: SweepFile, past: Sequence[Event] = (), journal: Journal | None = None) -> None:
        super().__init__(metric=file.search.metric, mode=file.search.mode)
        self.file = file
        self.journal = journal
        self._points = [*fixed_points(file), *_grid(file)]
        self._distributions = {key: _distribution(value) for key, value in file.space.parameters.items()}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = StudyDirection.MAXIMIZE if file.search.mode == "max" else StudyDirection.MINIMIZE
        self._study = optuna.create_study(sampler=_sampler(file), direction=direction)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._reported: dict[str, int] = {}
        self._given = 0
        self._names: dict[str, str] = {}
        self._unfinished = self._replay(past)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        if self._unfinished:
            found: dict[str, Any] | None = self._unfinished.pop(0)
        else:
            found = self._next()
            if found is not None and self.journal is not None:
                self.journal.write("proposed", id=name_of(found[NUMBER]), values=found[VALUES])
        if found is None:
            return Searcher.FINISHED
        self._names[trial_id] = name_of(found[NUMBER])
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._names[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._tell(self._names[trial_id], None if error else result)

    def _next(self) -> dict[str, Any] | None:
        if self._given >= total_trials(self.file):
            return None
        index, self._given = self._given, self._given + 1
        base = {NUMBER: index, FIXED: None, CHECKPOINT: None}
        if index < len(self._points):
            name, values = self._points[index]
            if set(values) == set(self._distributions) and all(
                self.file.space.parameters[key].contains(value) for key, value in values.items()
            ):
                self._study.enqueue_trial(values)
                self._asked[name_of(index)] = self._study.ask(self._distributions)
            return {**base, VALUES: values, FIXED: name}
        trial = self._study.ask(self._distributions)
        self._asked[name_of(index)] = trial
        return {**base, VALUES: dict(trial.params)}

    def _report(self, name: str, result: Mapping[str, Any]) -> None:
        epoch = int(result["epoch"])
        # A trial that goes on from a checkpoint reports some epochs a second time.
        if name in self._asked and self.metric in result and epoch > self._reported.get(name, 0):
            self._reported[name] = epoch
            self._asked[name].report(result[self.metric], epoch)

    def _tell(self, name: str, result: Mapping[str, Any] | None) -> None:
        """How a trial ended; None where it failed."""
        if result:
            self._report(name, result)  # Tune does not report the result at which a trial is stopped
        trial = self._asked.pop(name, None)
        if trial is None:
            return
        if not result or self.metric not in result:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif result["epoch"] < self.file.experiment.training.epochs:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, result[self.metric])

    def _replay(self, past: Sequence[Event]) -> list[dict[str, Any]]:
        """Tell the study again what happened; give the trials that were running."""
        running: dict[str, dict[str, Any]] = {}
        for event in past:
            if event["event"] == "proposed":
                proposed = self._next()
                if proposed is None or proposed[VALUES] != event["values"]:
                    raise UserError(
                        f"{event['id']}: the sweep would not propose this trial's values today; it was started by "
                        "another version of bgsweep or of Optuna, so start it anew"
                    )
                running[event["id"]] = proposed
            elif event["event"] == "result":
                self._report(event["id"], {"epoch": event["epoch"], **event["metrics"]})
            elif event["event"] == "checkpoint":
                running[event["id"]][CHECKPOINT] = event["path"]
            elif event["event"] == "ended":
                trial = event["trial"]
                result = {"epoch": trial["epochs"], **trial["metrics"]}
                self._tell(trial["id"], None if trial["status"] == "failed" else result)
                del running[trial["id"]]
        return list(running.values())

    def save(self, checkpoint_path: str) -> None:
        """Part of Tune's interface; a sweep is resumed from its journal, not from a pickle."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


def fixed_points(file: SweepFile) -> list[tuple[str | None, dict[str, Any]]]:
    """Names and values of the trials that come before any proposal: the baseline, then the file's own points.

    A point takes the values that it does not name from the experiment.
    """
    experiment = file.experiment
    defaults = {key: experiment.value(key) for key in file.space.parameters}
    named: list[tuple[str | None, dict[str, Any]]] = (
        [("baseline", defaults | experiment.without_background())] if file.search.baseline else []
    )
    return named + [(f"point {index}", defaults | point) for index, point in enumerate(file.space.points, start=1)]


def trial_name(trial: Any) -> str:
    """What a trial of Tune's is called in tables, folders and MLflow: t00, t01, ..."""
    return name_of(trial.config[NUMBER])


def name_of(number: int) -> str:
    """A trial's name by its number, from 0."""
    return f"t{number:02d}"


def total_trials(file: SweepFile) -> int:
    """How many trials the sweep makes; a grid's own size decides where the grid searches."""
    if file.search.algorithm == "grid":
        return len(fixed_points(file)) + len(_grid(file))
    return file.search.trials


def _grid(file: SweepFile) -> list[tuple[None, dict[str, Any]]]:
    """All combinations of the options, in the file's order, where the grid searches."""
    if file.search.algorithm != "grid":
        return []
    options = [distribution.options or () for distribution in file.space.parameters.values()]
    return [(None, dict(zip(file.space.parameters, point, strict=True))) for point in itertools.product(*options)]


def _sampler(file: SweepFile) -> optuna.samplers.BaseSampler:
    seed = file.search.seed
    if file.search.algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(4, file.search.trials // 4)))


def _distribution(wanted: Distribution) -> optuna.distributions.BaseDistribution:
    if wanted.uniform:
        return optuna.distributions.FloatDistribution(*wanted.uniform)
    if wanted.loguniform:
        return optuna.distributions.FloatDistribution(*wanted.loguniform, log=True)
    if wanted.quniform:
        low, high, step = wanted.quniform
        return optuna.distributions.FloatDistribution(low, high, step=step)
    return optuna.distributions.CategoricalDistribution(list(wanted.options or ()))
