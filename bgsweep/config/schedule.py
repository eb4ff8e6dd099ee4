"""Probabilities and other numbers that change over training."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from bgsweep.config.base import NonNegative, Probability, Section

PerView = Probability | tuple[Probability, Probability]
"""One probability for all views, or a pair: the first view's, every other view's."""


class Schedule(Section):
    """A probability that changes epoch by epoch: `from` in the first epoch, `to` in the last."""

    model_config = ConfigDict(serialize_by_alias=True)

    start: PerView = Field(alias="from")
    end: PerView = Field(alias="to")
    course: Literal["constant", "linear", "cosine", "reversed_linear", "reversed_cosine"] = Field(
        "linear",
        description="constant: `from` throughout; cosine: half a period, flat at both ends; reversed: `to` comes first",
    )

    def at(self, epoch: int, epochs: int) -> PerView:
        """The probability in an epoch (counted from 0) of `epochs`."""
        if self.course == "constant":
            return self.start
        progress = min(1.0, epoch / max(1, epochs - 1))
        if self.course.endswith("cosine"):
            progress = (1 - math.cos(math.pi * progress)) / 2
        if self.course.startswith("reversed"):
            progress = 1 - progress
        pairs = list(zip(_pair(self.start), _pair(self.end), strict=True))
        first, others = (start + progress * (end - start) for start, end in pairs)
        return (first, others) if isinstance(self.start, tuple) or isinstance(self.end, tuple) else first


class NumberSchedule(Schedule):
    """As `Schedule`, of a number that is not negative and changes step by step."""

    start: NonNegative = Field(alias="from")
    end: NonNegative = Field(alias="to")


def _kind(value: Any) -> str:
    return "schedule" if isinstance(value, Mapping | Schedule) else "value"


ScheduledPerView = Annotated[
    Annotated[PerView, Tag("value")] | Annotated[Schedule, Tag("schedule")], Discriminator(_kind)
]

ScheduledNumber = Annotated[
    Annotated[NonNegative, Tag("value")] | Annotated[NumberSchedule, Tag("schedule")], Discriminator(_kind)
]


def at_step(value: float | NumberSchedule, step: int, steps: int) -> float:
    """The number in a step (counted from 0) of `steps`."""
    return highest(value.at(step, steps)) if isinstance(value, NumberSchedule) else value


def at_epoch(value: PerView | Schedule, epoch: int, epochs: int) -> PerView:
    """The value in an epoch (counted from 0) of `epochs`."""
    return value.at(epoch, epochs) if isinstance(value, Schedule) else value


def highest(value: PerView | Schedule) -> float:
    """The largest probability that any view has in any epoch."""
    if isinstance(value, Schedule):
        return highest(value.start) if value.course == "constant" else max(highest(value.start), highest(value.end))
    return max(_pair(value))


def as_schedule(value: Any) -> dict[str, Any]:
    """A constant probability as the mapping of a schedule."""
    return {"from": value, "to": value, "course": "linear"}


def _pair(value: PerView) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)
