"""Metrics of the online evaluation: what each yields, which direction is better, and its settings.

Apart from what computes them (`bgsweep/evaluation/metrics/`), since the process that drives a sweep compares trials by
them without importing torch.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from bgsweep.config.base import Count, nearest
from bgsweep.config.metric_names import shown_name, trial_name
from bgsweep.config.plugins import PartSection, offered

Mode = Literal["max", "min"]

Values = Mapping[str, Mode | None]
"""Names of values, and which of them are better."""


class MetricSection(PartSection):
    """Base of the sections of metrics, for `evaluate.metrics` and `search.metric`.

    The `implementation` is called with the section and an `EvalContext`, and gives an
    `bgsweep.evaluation.metrics.OnlineMetric`.
    """

    group = "bgsweep.metrics"

    values: ClassVar[Values]
    """The values that it yields, and which of them are better: higher or lower ones, or neither. The first is meant
    where `search.metric` names the metric alone."""

    needs_masks: ClassVar[bool] = False
    """It needs foreground masks of the validation images."""

    needs_classes: ClassVar[bool] = False
    """It needs the classes of the validation images."""

    title: ClassVar[str] = ""
    """The second part of the names of its values; empty: the metric's name."""

    @classmethod
    def recorded(cls, part: str, value: str) -> str:
        """The name in journals of a value of the metric that is named `part`."""
        return trial_name(f"validation/{cls.title or part}/{value}")


class KnnMetric(MetricSection):
    """Accuracy of weighted kNN, as a share; always measured where there are classes."""

    implementation = "bgsweep.evaluation.metrics.labelled:KnnAccuracy"
    values: ClassVar[Values] = {"top1": "max"}
    needs_classes = True
    name: Literal["knn"]


class BGGapMetric(MetricSection):
    """kNN on Mixed-Same and Mixed-Rand, and BG-Gap, as shares."""

    implementation = "bgsweep.evaluation.metrics.labelled:BGGap"
    values: ClassVar[Values] = {"bg_gap": "min", "mixed_same": "max", "mixed_rand": "max"}
    needs_classes = needs_masks = True
    title = "knn"
    name: Literal["bg_gap"]


class RankMeMetric(MetricSection):
    """Effective rank of the features."""

    implementation = "bgsweep.evaluation.metrics.rankme:RankMe"
    values: ClassVar[Values] = {"rank": "max"}
    name: Literal["rankme"]
    images: Count = Field(4096, description="most validation images that are used")


class LiDARMetric(MetricSection):
    """Effective rank of the discriminant matrix that tells images from their views."""

    implementation = "bgsweep.evaluation.metrics.lidar:LiDAR"
    values: ClassVar[Values] = {"rank": "max"}
    name: Literal["lidar"]
    images: Annotated[int, Field(ge=2)] = Field(128, description="number of images, each a surrogate class")
    views: Annotated[int, Field(ge=2)] = Field(8, description="number of views of each image")


class AlphaReQMetric(MetricSection):
    """Exponent of the power law that the eigenvalues of the features' covariance follow, and its distance from 1."""

    implementation = "bgsweep.evaluation.metrics.alpha_req:AlphaReQ"
    values: ClassVar[Values] = {"distance": "min", "alpha": None}
    name: Literal["alpha_req"]
    images: Count = Field(4096, description="most validation images that are used")
    first: Count = Field(5, description="number of the first eigenvalue that the power law is fitted to")
    last: Count = Field(100, description="number of the last one")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last < (least := self.first + 2):  # with fewer than three the fit would begin at the first of all
            raise ValueError(
                f"last: the fit takes three eigenvalues or more, from first, {self.first}, on; set it to {least} or "
                "more, or lower first"
            )
        return self


class HypersphereMetric(MetricSection):
    """Alignment of an image's views and uniformity of the features on the unit sphere, and their sum."""

    implementation = "bgsweep.evaluation.metrics.hypersphere:Hypersphere"
    values: ClassVar[Values] = {"sum": "min", "alignment": "min", "uniformity": "min"}
    name: Literal["hypersphere"]
    images: Annotated[int, Field(ge=2)] = Field(128, description="number of images for the alignment")
    most: Annotated[int, Field(ge=2)] = Field(4096, description="most validation images for the uniformity")


class RotationMetric(MetricSection):
    """Accuracy of a linear probe that predicts by how much an image was rotated."""

    implementation = "bgsweep.evaluation.metrics.rotation:Rotation"
    values: ClassVar[Values] = {"top1": "max"}
    name: Literal["rotation"]
    images: Annotated[int, Field(ge=4)] = Field(512, description="number of images, each seen four times")
    epochs: Count = Field(50, description="epochs of the probe")


class RelianceMetric(MetricSection):
    """Shares of the features' variance that foregrounds, backgrounds and their interaction explain, and swap-LiDAR."""

    implementation = "bgsweep.evaluation.metrics.reliance:Reliance"
    values: ClassVar[Values] = {"bg_share": "min", "fg_share": "max", "interaction_share": None, "swap_lidar": "max"}
    needs_masks = True
    name: Literal["reliance"]
    foregrounds: Annotated[int, Field(ge=2)] = Field(32, description="number of foregrounds")
    backgrounds: Annotated[int, Field(ge=2)] = Field(32, description="number of backgrounds that each is seen on")
    resamplings: Annotated[int, Field(ge=10)] = Field(100, description="resamplings for the standard errors")


_Any = (
    KnnMetric
    | BGGapMetric
    | RankMeMetric
    | LiDARMetric
    | AlphaReQMetric
    | HypersphereMetric
    | RotationMetric
    | RelianceMetric
)

METRIC_PARTS: dict[str, type[MetricSection]] = {
    get_args(one.model_fields["name"].annotation)[0]: one for one in get_args(_Any)
}
"""Each built-in metric's section by the metric's name."""


class Goal(NamedTuple):
    """A value that trials can be compared by.

    Attributes:
        name: its name in journals.
        mode: which are better, higher or lower values.
        part: the name of the metric that yields it; None for the training loss, which training itself gives.
    """

    name: str
    mode: Mode
    part: str | None


LOSS = Goal("loss", "min", None)


def section_of(name: str) -> type[MetricSection]:
    """The section of a metric by its name.

    Raises:
        UnknownPart: there is none.
    """
    return METRIC_PARTS[name] if name in METRIC_PARTS else MetricSection.named(name, METRIC_PARTS)


def _goals_of(part: str) -> dict[str, Goal]:
    """The goals that a metric yields, by their values' names."""
    section = section_of(part)
    return {
        value: Goal(section.recorded(part, value), mode, part)
        for value, mode in section.values.items()
        if mode is not None
    }


def _built_in() -> dict[str, Goal]:
    """Goals by every name that `search.metric` takes for them; a value's own only where no other metric has it."""
    found, names = dict[str, Goal](), dict[str, list[Goal]]()
    for part in METRIC_PARTS:
        goals = _goals_of(part)
        found |= {part: next(iter(goals.values()))}
        for value, goal in goals.items():
            names.setdefault(value, []).append(goal)
            found |= {goal.name: goal, f"{part}/{value}": goal}
    found["loss"] = LOSS
    return found | {value: goals[0] for value, goals in names.items() if len(goals) == 1 and value not in found}


_GOALS = _built_in()

METRICS = tuple(dict.fromkeys(goal.name for goal in _GOALS.values()))
"""Built-in metrics that trials can be compared by, as they are called in journals."""


def goal_of(name: str) -> Goal:
    """The goal that `search.metric` names: VALUE, METRIC, METRIC/VALUE, or either behind `validation/`.

    Raises:
        ValueError: there is none of this name.
    """
    given = name.removeprefix("validation/")
    for known in (given, trial_name(f"validation/{given}")):
        if known in _GOALS:
            return _GOALS[known]
    for part, value in ((given, ""), given.rpartition("/")[::2]):
        if "/" in part or (":" not in part and part not in offered(MetricSection.group).names):
            continue
        goals = _goals_of(part)
        if value in goals or (not value and goals):
            return goals[value] if value else next(iter(goals.values()))
        raise ValueError(f"{part} yields no {value or 'value with a direction'}; known: {', '.join(goals)}")
    raise ValueError(f"{name} is not measured during training; {nearest(name, known_goals())}")


def known_goals() -> list[str]:
    """The names that `search.metric` takes, for errors."""
    others = sorted(offered(MetricSection.group).names - METRIC_PARTS.keys())
    return [*(shown_name(name).removeprefix("validation/") for name in METRICS), *others]


def _expanded(value: Any) -> Any:
    """A name stands for the metric, or the one that yields such a value, with its default settings."""
    if not isinstance(value, str):
        return value
    if value in METRIC_PARTS or ":" in value or value in offered(MetricSection.group).names:
        return {"name": value}
    goal = _GOALS.get(value)
    return {"name": goal.part if goal is not None and goal.part else value}


def _by_name(value: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
    return MetricSection.chosen(value, built_in, METRIC_PARTS)


Metric = Annotated[
    _Any, Field(discriminator="name"), WrapValidator(_by_name), BeforeValidator(_expanded), SerializeAsAny()
]
