"""The values of the next trial: fixed points first, then those of a grid or an Optuna sampler (TPE or random)."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from ray.tune.search import Searcher

from bgsweep.config import Distribution, SweepConfig
from bgsweep.errors import UserError
from bgsweep.sweep.events import Event, Proposed, TrialRecord, replay
from bgsweep.sweep.journal import Journal

VALUES, FIXED, NUMBER, CHECKPOINT = "values", "fixed", "number", "checkpoint"


class OptunaSearcher(Searcher):
    """An Optuna study behind Ray Tune's interface of a searcher.

    A trial's configuration is ``{"values": {dotted key: value}, "fixed": name or None, "number": n, "checkpoint": path
    or None}``. Fixed points that lie inside the space are added to the study, so that Optuna learns from them.

    Args:
        past: the events of earlier drivers. They are repeated in their order, so that the sampler draws what it would
            have drawn without the interruption; the trials that had not ended are proposed first.
        refuse: called with each configuration whose values no trial can have, and the reason; the next one is proposed
            instead. Without it such values are proposed like others.
    """

    def __init__(
        self,
        config: SweepConfig,
        past: Sequence[Event] = (),
        journal: Journal | None = None,
        refuse: Callable[[dict[str, Any], str], None] | None = None,
    ) -> None:
        signs = config.search.signs
        super().__init__(None, None)  # Tune's own bookkeeping supports one metric only
        self.config = config
        self.journal = journal
        self._refuse = refuse
        self._points = [*fixed_points(config), *_grid(config)]
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions = [StudyDirection.MAXIMIZE if sign > 0 else StudyDirection.MINIMIZE for sign in signs.values()]
        self._study = optuna.create_study(sampler=_sampler(config), directions=directions)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._reported: dict[str, int] = {}
        self._given = 0
        self._names: dict[str, str] = {}
        self._unfinished = self._replay(past)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        while (found := self._unfinished.pop(0) if self._unfinished else self._proposed()) is not None:
            self._names[trial_id] = name_of(found[NUMBER])
            reason = self.config.refusal(found[VALUES]) if self._refuse else ""
            if not (self._refuse and reason):
                return found
            self._refuse(found, reason)
            self._tell(self._names[trial_id], None)
        return Searcher.FINISHED

    def _proposed(self) -> dict[str, Any] | None:
        found = self._next()
        if found is not None and self.journal is not None:
            self.journal.write(Proposed(id=name_of(found[NUMBER]), values=found[VALUES]))
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._names[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._tell(self._names[trial_id], None if error else result)

    def _next(self) -> dict[str, Any] | None:
        if self._given >= total_trials(self.config):
            return None
        index, self._given = self._given, self._given + 1
        base = {NUMBER: index, FIXED: None, CHECKPOINT: None}
        if index < len(self._points):
            name, values = self._points[index]
            inside = list(self.config.space.walk(values))
            if {key for key, _, _ in inside} == set(values) and all(
                distribution.contains(values[key]) for key, _, distribution in inside
            ):
                self._study.enqueue_trial({self._drawn(key, number): values[key] for key, number, _ in inside})
                self._ask(index)
            return {**base, VALUES: values, FIXED: name}
        return {**base, VALUES: self._ask(index)}

    def _ask(self, index: int) -> dict[str, Any]:
        """Draw a trial's values, each key after those that it depends on."""
        values: dict[str, Any] = {}
        with warnings.catch_warnings():
            # Optuna warns of lists among a choice's options, and of a range that its step does not divide; both work.
            warnings.simplefilter("ignore", UserWarning)
            trial = self._asked[name_of(index)] = self._study.ask()
            for key, number, distribution in self.config.space.walk(values):
                values[key] = _draw(trial, self._drawn(key, number), distribution)
        return self.config.typed(values)

    def _drawn(self, key: str, number: int) -> str:
        """Optuna's name of a parameter: one for each distribution of a key, since Optuna allows no change of it."""
        return key if len(self.config.space.parameters[key]) == 1 else f"{key} {number}"

    def _report(self, name: str, result: Mapping[str, Any]) -> None:
        epoch = int(result["epoch"])
        # A trial that continues from a checkpoint reports some epochs a second time.
        (first, *more) = self.config.search.metrics
        if not more and name in self._asked and first in result and epoch > self._reported.get(name, 0):
            self._reported[name] = epoch
            self._asked[name].report(result[first], epoch)

    def _tell(self, name: str, result: Mapping[str, Any] | None) -> None:
        """Tell the study a trial's last result; None if it failed."""
        if result:
            self._report(name, result)  # Tune does not report the result at which it stops a trial
        trial = self._asked.pop(name, None)
        if trial is None:
            return
        metrics = self.config.search.metrics
        whole = result is not None and result["epoch"] >= self.config.experiment.training.epochs
        if not result or not all(metric in result for metric in metrics) or (len(metrics) > 1 and not whole):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif not whole:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, [result[metric] for metric in metrics])

    def _replay(self, past: Sequence[Event]) -> list[dict[str, Any]]:
        """Repeat the proposals and results of an earlier driver; give the trials that were not at their end.

        The order matters: the sampler draws each proposal from what had been reported by then.
        """
        unfinished: dict[str, dict[str, Any]] = {}

        def propose_again(event: Proposed) -> None:
            proposed = self._next()
            if proposed is None or proposed[VALUES] != event.values:
                raise UserError(
                    f"{event.id}: the sweep would not propose this trial's values today; it was started by another "
                    "version of bgsweep or of Optuna, so start it anew"
                )
            unfinished[event.id] = proposed

        def end(record: TrialRecord) -> None:
            failed = record.status == "failed"
            self._tell(record.id, None if failed else {"epoch": record.epochs, **record.metrics})
            unfinished.pop(record.id, None)

        records = replay(
            past,
            on_proposed=propose_again,
            on_result=lambda event, _: self._report(event.id, {"epoch": event.epoch, **event.metrics}),
            on_ended=end,
        )
        for name in unfinished.keys() & records.keys():
            unfinished[name] |= {VALUES: records[name].params, CHECKPOINT: records[name].checkpoint}
        return list(unfinished.values())

    def save(self, checkpoint_path: str) -> None:
        """Part of Tune's interface; a sweep is resumed from its journal, not from a pickle."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


def fixed_points(config: SweepConfig) -> list[tuple[str | None, dict[str, Any]]]:
    """Names and values of the trials before the first draw: the baseline, then the points that the config lists."""
    off = config.experiment.without_background()
    # A background transform that is off has no schedule.
    rest = {key: value for key, value in config.complete({}).items() if key.rpartition(".")[0] not in off}
    named: list[tuple[str | None, dict[str, Any]]] = [("baseline", rest | off)] if config.search.baseline else []
    return named + [
        (f"point {index}", config.complete(point)) for index, point in enumerate(config.space.points, start=1)
    ]


def trial_name(trial: Any) -> str:
    """The name of one of Tune's trials in tables, folders and MLflow: t00, t01, ..."""
    return name_of(trial.config[NUMBER])


def name_of(number: int) -> str:
    """A trial's name by its number, from 0."""
    return f"t{number:02d}"


def total_trials(config: SweepConfig) -> int:
    """The number of the sweep's trials: of a grid its size, else `search.trials`."""
    if config.search.algorithm == "grid":
        return len(fixed_points(config)) + len(_grid(config))
    return config.search.trials


def _grid(config: SweepConfig) -> list[tuple[None, dict[str, Any]]]:
    """All combinations of the options, in the config's order; none if the algorithm is not the grid."""
    if config.search.algorithm != "grid":
        return []
    return [(None, values) for values in _combinations(config, {})]


def _combinations(config: SweepConfig, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The combinations that begin with these values."""
    following = next(((key, each) for key, _, each in config.space.walk(values) if key not in values), None)
    if following is None:
        yield values
        return
    key, distribution = following
    for option in distribution.options or ():
        yield from _combinations(config, {**values, key: option})


def _sampler(config: SweepConfig) -> optuna.samplers.BaseSampler:
    seed = config.search.seed
    if config.search.algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(4, config.search.trials // 4)))


def _draw(trial: optuna.trial.Trial, name: str, wanted: Distribution) -> Any:
    if wanted.uniform:
        return trial.suggest_float(name, *wanted.uniform)
    if wanted.loguniform:
        return trial.suggest_float(name, *wanted.loguniform, log=True)
    if wanted.quniform:
        low, high, step = wanted.quniform
        return trial.suggest_float(name, low, high, step=step)
    return trial.suggest_categorical(name, list(wanted.options or ()))
