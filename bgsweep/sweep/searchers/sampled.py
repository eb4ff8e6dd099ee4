"""Searchers that draw values with Optuna's samplers: TPE and random search."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.study import StudyDirection

from bgsweep.config import Distribution, SweepConfig
from bgsweep.sweep.searchers.base import TrialSearcher
from bgsweep.sweep.searchers.curves import Curve, expected_end


class TPESearcher(TrialSearcher):
    """The tree-structured Parzen estimator (Bergstra et al. 2011), for several metrics multi-objective.

    A trial that was stopped ranks after all that have completed, by its last epoch and its metric there. Optuna has no
    such rank for several metrics: there it counts as if it rose as much as those that have completed, as soon as there
    is one.
    """

    def __init__(self, config: SweepConfig) -> None:
        super().__init__(config)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        signs = config.search.signs.values()
        directions = [StudyDirection.MAXIMIZE if sign > 0 else StudyDirection.MINIMIZE for sign in signs]
        self._study = optuna.create_study(sampler=self._sampler(), directions=directions)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._curves: dict[str, dict[int, list[float]]] = {}
        self._whole: list[Curve] = []
        self._waiting: list[tuple[optuna.trial.Trial, Curve]] = []  # stopped, with nothing to expect yet

    def _sampler(self) -> optuna.samplers.BaseSampler:
        search = self.config.search
        # Optuna's default of 10 random trials at the start would be most of a small sweep.
        return optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=min(10, max(4, search.trials // 4)))

    def propose(self, trial: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        with warnings.catch_warnings():
            # Optuna warns of lists among a choice's options, and of a range that its step does not divide; both work.
            warnings.simplefilter("ignore", UserWarning)
            asked = self._asked[trial] = self._study.ask()
            for key, number, distribution in self.config.space.walk(values):
                values[key] = _draw(asked, self._name(key, number), distribution)
        return self.config.typed(values)

    def add_fixed(self, trial: str, values: Mapping[str, Any]) -> None:
        walk = self.config.space.walk(dict(values))
        self._study.enqueue_trial({self._name(key, number): values[key] for key, number, _ in walk})
        self.propose(trial)

    def on_result(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self._curves.setdefault(trial, {})[epoch] = list(metrics.values())
        if len(metrics) == 1 and trial in self._asked:  # Optuna knows no intermediate values of several objectives
            self._asked[trial].report(next(iter(metrics.values())), epoch)

    def on_end(
        self, trial: str, status: Literal["completed", "stopped", "failed"], metrics: Mapping[str, float]
    ) -> None:
        asked, curve = self._asked.pop(trial, None), self._curves.pop(trial, None)
        if status == "completed" and curve:
            self._whole.append(curve)
        if asked and status == "completed":
            self._study.tell(asked, list(metrics.values()))
        elif asked and status == "stopped" and len(metrics) == 1:
            self._study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        elif asked and status == "stopped" and curve:
            self._waiting.append((asked, curve))
        elif asked:  # also one that an earlier sweep stopped, at an epoch that is not known
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        self._tell_stopped()

    def _tell_stopped(self) -> None:
        """Tell Optuna of the stopped trials whose end can be expected by now."""
        waiting, self._waiting = self._waiting, []
        for asked, curve in waiting:
            if (found := expected_end(curve, self._whole)) is not None:
                self._study.tell(asked, found)
            else:
                self._waiting.append((asked, curve))

    def _name(self, key: str, number: int) -> str:
        """Optuna's name of a parameter: one for each distribution of a key, since Optuna allows no change of it."""
        return key if len(self.config.space.parameters[key]) == 1 else f"{key} {number}"


class RandomSearcher(TPESearcher):
    """Independent draws."""

    def _sampler(self) -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed=self.config.search.seed)


def _draw(trial: optuna.trial.Trial, name: str, wanted: Distribution) -> Any:
    if wanted.uniform:
        return trial.suggest_float(name, *wanted.uniform)
    if wanted.loguniform:
        return trial.suggest_float(name, *wanted.loguniform, log=True)
    if wanted.quniform:
        low, high, step = wanted.quniform
        return trial.suggest_float(name, low, high, step=step)
    return trial.suggest_categorical(name, list(wanted.options or ()))
