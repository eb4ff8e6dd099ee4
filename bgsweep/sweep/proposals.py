"""Who says what the next trial is: fixed points first, then a grid or an Optuna sampler (TPE or random)."""

import itertools
from typing import Any

import optuna
from optuna.study import StudyDirection
from ray.tune.search import Searcher

from bgsweep.config import Distribution, SweepFile

VALUES, FIXED, NUMBER = "values", "fixed", "number"


class Proposals(Searcher):
    """Ray Tune's view of an Optuna study.

    A trial's configuration is ``{"values": {dotted key: value}, "fixed": name or None, "number": n}``. Fixed points are
    shown to Optuna too where they lie inside the space, so that it learns from them.
    """

    def __init__(self, file: SweepFile) -> None:
        super().__init__(metric=file.search.metric, mode=file.search.mode)
        self.file = file
        self._points = [*fixed_points(file), *_grid(file)]
        self._distributions = {key: _distribution(value) for key, value in file.space.parameters.items()}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = StudyDirection.MAXIMIZE if file.search.mode == "max" else StudyDirection.MINIMIZE
        self._study = optuna.create_study(sampler=_sampler(file), direction=direction)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._given = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        total = total_trials(self.file)
        if self._given >= total:
            return Searcher.FINISHED
        index, self._given = self._given, self._given + 1
        if index < len(self._points):
            name, values = self._points[index]
            if set(values) == set(self._distributions) and all(
                self.file.space.parameters[key].contains(value) for key, value in values.items()
            ):
                self._study.enqueue_trial(values)
                self._asked[trial_id] = self._study.ask(self._distributions)
            return {VALUES: values, FIXED: name, NUMBER: index}
        trial = self._study.ask(self._distributions)
        self._asked[trial_id] = trial
        return {VALUES: dict(trial.params), FIXED: None, NUMBER: index}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self._asked and self.metric in result:
            self._asked[trial_id].report(result[self.metric], int(result["epoch"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._asked.pop(trial_id, None)
        if trial is None:
            return
        if error or not result or self.metric not in result:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif result["epoch"] < self.file.experiment.training.epochs:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, result[self.metric])

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
    return f"t{trial.config[NUMBER]:02d}"


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
