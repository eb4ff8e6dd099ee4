"""Searcher, scheduler and budget of a sweep."""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bgsweep.config import plugins
from bgsweep.config.base import Count, GPUs, NonNegative, Positive, Section
from bgsweep.config.messages import reason
from bgsweep.config.metrics import Goal, Mode, goal_of, known_goals

IN_MLFLOW = "mlflow:"
"""Begins an entry of `search.warm_start` that names an MLflow experiment."""


class Algorithm(NamedTuple):
    """A value of `search.algorithm`.

    Attributes:
        path: module and class, which is imported only by sweeps.
        exhaustive: it proposes each combination of options once, so that `search.trials` and `search.seed` are unused.
    """

    path: str
    exhaustive: bool = False


SEARCHERS = {
    "optuna": Algorithm("bgsweep.sweep.searchers.sampled:TPESearcher"),
    "gp": Algorithm("bgsweep.sweep.searchers.gaussian:GaussianSearcher"),
    "random": Algorithm("bgsweep.sweep.searchers.sampled:RandomSearcher"),
    "grid": Algorithm("bgsweep.sweep.searchers.grid:GridSearcher", exhaustive=True),
}
"""Built-in searchers by name; each is a `bgsweep.sweep.searchers.base.TrialSearcher`."""

SCHEDULERS = ("asha", "median", "pbt", "none")
"""Built-in schedulers."""

_BASE = "bgsweep.sweep.searchers.base:TrialSearcher"


def searcher_of_another_package(name: str) -> Any:
    """The class of a searcher that is named by its path, or by an entry point of the group ``bgsweep.searchers``.

    Raises:
        UnknownPart: there is none.
    """
    return plugins.find(plugins.SEARCHERS, name, _BASE, SEARCHERS)


def scheduler_of_another_package(name: str) -> Any:
    """The class of a scheduler, as `searcher_of_another_package`, of the group ``bgsweep.schedulers``."""
    return plugins.find(plugins.SCHEDULERS, name, "bgsweep.sweep.stopping_rule:StoppingRule", SCHEDULERS)


def _check_name(name: Any, built_in: Container[str], find: Callable[[str], Any]) -> None:
    """Raise ValueError for a name that is neither a built-in part's nor another package's."""
    if isinstance(name, str) and name not in built_in:
        try:
            find(name)
        except plugins.UnknownPart as error:
            raise ValueError(str(error).removeprefix(f"{name!r} is not known; ")) from error


def _check_settings(key: str, options: Mapping[str, Any], name: str, settings: type[Section] | None) -> None:
    """Raise ValueError where options are not the settings of a part; built-in parts have none."""
    if settings is None:
        if options:
            raise ValueError(f"{key}: {name} has none; leave them out")
        return
    try:
        settings.model_validate(options)
    except ValidationError as error:
        raise ValueError(f"{key}.{reason(error, settings)}") from error


def all_texts(values: Iterable[Any]) -> bool:
    """True if all of them are texts."""
    return all(isinstance(each, str) for each in values)


def exhaustive(name: str) -> bool:
    """True for a searcher that proposes each combination of options once (`Algorithm.exhaustive`)."""
    known = SEARCHERS.get(name)
    return known.exhaustive if known else bool(searcher_of_another_package(name).exhaustive)


class Budget(Section):
    """Limits of a whole sweep: no trial begins that is not expected to end within them.

    They bound the search. The final evaluation, and what is running when a limit is reached, still go on.
    """

    hours: Positive | None = Field(None, description="hours for which the sweep runs, without interruptions")
    gpu_hours: Positive | None = Field(None, description="GPU-hours of all trials together")
    cost: Positive | None = Field(None, description="costs of these GPU-hours, in any currency")
    price_per_gpu_hour: Positive | None = Field(None, description="price of one GPU-hour, in the currency of `cost`")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cost is None) != (self.price_per_gpu_hour is None):
            given, missing = ("cost", "price_per_gpu_hour") if self.cost else ("price_per_gpu_hour", "cost")
            raise ValueError(f"{given}: limits nothing without {missing}; give both, or gpu_hours")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by their names."""
        named = {"hours": self.hours, "gpu_hours": self.gpu_hours, "cost": self.cost}
        return {key: limit for key, limit in named.items() if limit is not None}


class FrontOptions(Section):
    """`search.scheduler_options` of asha with several metrics."""

    spread: Literal["crowding", "epsilon_net"] = Field(
        "crowding", description="order within a front: the loneliest trials first, or those of an epsilon-net"
    )


class Confirm(Section):
    """The search's best trials, trained again with seeds that the search has not used, to choose the champion by."""

    top: Count = Field(3, description="trials that are trained again")
    seeds: Annotated[int, Field(ge=2)] = Field(3, description="new seeds of each, the same for all")


class Search(Section):
    """The searcher that proposes trials, the scheduler that stops them, and the resources of each trial."""

    algorithm: str = Field(
        "optuna",
        description=f"searcher that proposes trials: {', '.join(SEARCHERS)}, package.module:Class or an entry point",
    )
    options: dict[str, Any] = Field({}, description="settings of a searcher of another package")
    trials: Count = Field(16, description="number of trials, fixed points included (grid: the grid decides)")
    baseline: bool = Field(
        True, description="the first trial has no background augmentation and is never stopped early"
    )
    scheduler: str = Field(
        "asha",
        description=f"scheduler that stops trials: {', '.join(SCHEDULERS)}, package.module:Class or an entry point",
    )
    scheduler_options: dict[str, Any] = Field(
        {}, description="settings of a scheduler of another package; of asha with several metrics: spread"
    )
    metric: str | tuple[str, ...] = Field(
        "knn_top1", description="metric to optimise (docs/metrics.md), or a list for a Pareto front"
    )
    mode: Mode | tuple[Mode, ...] = Field(
        "max", description="max or min, for each metric; left out: what is better, which the metric knows"
    )
    grace_epochs: Count = Field(1, description="epochs before which no trial is stopped")
    reduction: Annotated[int, Field(ge=2)] = Field(
        3, description="ASHA continues one in `reduction` trials at each rung"
    )
    perturb_epochs: Count = Field(10, description="PBT: epochs after which the worst trials copy the best ones")
    seed: int = Field(0, ge=0)
    seeds: Count = Field(
        1, description="runs of each trial, with seeds from experiment.seed on; the trial's score is their mean"
    )
    confirm: Confirm | None = Field(
        None, description="train the best trials again with new seeds, by which the champion is chosen; null: do not"
    )
    concurrent: Count | None = Field(None, description="trials at once; null: as many as fit on the cluster")
    budget: Budget = Budget()
    wait_minutes: NonNegative | None = Field(
        None,
        description="minutes to wait for a cluster to grow; null: 15 under Ray's cluster launcher, else 0",
    )
    share_views: bool = Field(
        True,
        description="trials on the same machine make each view that several of them train on once (docs/sweeps.md)",
    )
    cpus: Positive = Field(1.0, description="CPU cores of a trial of one worker")
    gpus: GPUs = Field(
        None,
        description="GPUs, or a share of one, of a trial of one worker; null: one where workers.device is cuda, or is "
        "auto and the cluster has GPUs",
    )
    max_failures: int = Field(2, ge=0, description="restarts of a trial from its last checkpoint")
    refill_epochs: Count | None = Field(
        10, description="epochs after a failure that give a trial all its restarts back; null: none do"
    )
    keep_checkpoints: Count | None = Field(
        10, description="checkpoints that are kept of trials that have ended: those of the best; null: all"
    )
    warm_start: tuple[str, ...] = Field(
        (),
        description="names of earlier sweeps of the same store, or mlflow:EXPERIMENT for all trials of an MLflow "
        "experiment, whose results the searcher learns from",
    )
    hang_minutes: Literal["auto"] | Positive | None = Field(
        "auto",
        description="minutes without progress, such as a step, after which a trial is taken to hang, and fails; auto: "
        "ten times the longest pause so far, at least 15; null: never",
    )

    @model_validator(mode="before")
    @classmethod
    def _known_metrics(cls, value: Any) -> Any:
        """Metrics by their names in journals, and the direction of each where the file gives none."""
        metric = value.get("metric") if isinstance(value, Mapping) else None
        if not isinstance(metric, str) and not (isinstance(metric, list | tuple) and all_texts(metric)):
            return value
        try:
            goals = [goal_of(name) for name in ([metric] if isinstance(metric, str) else metric)]
        except ValueError as error:
            raise ValueError(f"metric: {error}") from error
        names, modes = [goal.name for goal in goals], [goal.mode for goal in goals]
        given = {"metric": names[0], "mode": modes[0]} if isinstance(metric, str) else {"metric": names, "mode": modes}
        return {**value, "metric": given["metric"], "mode": value.get("mode") or given["mode"]}

    @field_validator("algorithm", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value == "bohb":
            raise ValueError(
                "bohb needs hpbandster, which is not maintained and ignores seeds, so that a sweep could "
                "not be resumed; use optuna with scheduler asha, which also learns from trials stopped early"
            )
        _check_name(value, SEARCHERS, searcher_of_another_package)
        return value

    @field_validator("scheduler", mode="before")
    @classmethod
    def _known_scheduler(cls, value: Any) -> Any:
        _check_name(value, SCHEDULERS, scheduler_of_another_package)
        return value

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        own = None if self.algorithm in SEARCHERS else searcher_of_another_package(self.algorithm).Settings
        _check_settings("options", self.options, self.algorithm, own)
        own = None if self.scheduler in SCHEDULERS else scheduler_of_another_package(self.scheduler).Settings
        own = FrontOptions if self.scheduler == "asha" and len(self.metrics) > 1 else own
        _check_settings("scheduler_options", self.scheduler_options, self.scheduler, own)
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        metrics, modes = self.metrics, (self.mode,) if isinstance(self.mode, str) else self.mode
        if not metrics or len(set(metrics)) < len(metrics):
            raise ValueError(f"metric: name each metric once; known: {', '.join(known_goals())}")
        if len(modes) != len(metrics):
            best = ", ".join(goal.mode for goal in self.goals)
            raise ValueError(
                f"mode: {len(metrics)} metrics need {len(metrics)} modes, such as [{best}]; or leave it out"
            )
        if self.confirm and self.scheduler == "pbt":
            raise ValueError(
                "confirm: the values of a population's trial change while it trains, so that it cannot be trained "
                "again; leave it out, or use another scheduler"
            )
        if len(metrics) > 1 and self.scheduler not in ("asha", "none"):
            raise ValueError(
                f"scheduler: {self.scheduler} compares trials by one metric and metric names {len(metrics)}; "
                "set scheduler: asha or none"
            )
        return self

    @property
    def exhaustive(self) -> bool:
        """Each combination of options is tried once (`Algorithm.exhaustive`)."""
        return exhaustive(self.algorithm)

    @property
    def stops_early(self) -> bool:
        """The scheduler may stop trials before their last epoch."""
        return self.scheduler not in ("pbt", "none")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that trials are compared by; the first is shown if there is room for only one."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def goals(self) -> list[Goal]:
        """The same, each with the metric that yields it and the direction that is better."""
        return [goal_of(name) for name in self.metrics]

    @property
    def signs(self) -> dict[str, int]:
        """For each metric 1 if higher is better, -1 if lower is."""
        modes = (self.mode,) if isinstance(self.mode, str) else self.mode
        return {metric: 1 if mode == "max" else -1 for metric, mode in zip(self.metrics, modes, strict=True)}
