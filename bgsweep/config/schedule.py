"""Probabilities and other numbers that change over training."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Discriminator, Field, Tag

from bgsweep.config.base import NonNegative, Probability, Section

PerView = Probability | tuple[Probability, Probability] | tuple[Probability, Probability, Probability]
"""One probability for all views; the first view's and every other's; or the first's, the second's, the small crops'."""


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
        kinds = max(len(_each(self.start)), len(_each(self.end)))
        pairs = [(for_view(self.start, view), for_view(self.end, view)) for view in range(kinds)]
        now = tuple(start + progress * (end - start) for start, end in pairs)
        return now[0] if kinds == 1 else cast(PerView, now)


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
    return max(_each(value))


def for_view(value: PerView, view: int) -> float:
    """The probability of a view, counted from 0."""
    each = _each(value)
    return each[min(view, len(each) - 1)]


def as_schedule(value: Any) -> dict[str, Any]:
    """A constant probability as the mapping of a schedule."""
    return {"from": value, "to": value, "course": "linear"}


def as_json(value: Any) -> Any:
    """A value with lists for tuples, as files and journals give it back."""
    if isinstance(value, Mapping):
        return {key: as_json(each) for key, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, list | tuple) else value


def same(one: Any, other: Any) -> bool:
    """True if two values of a key mean the same, as lists or tuples, and as schedules with or without a `course`."""
    return bool(_whole(as_json(one)) == _whole(as_json(other)))


def _whole(value: Any) -> Any:
    is_schedule = isinstance(value, dict) and {"from", "to"} <= value.keys()
    return {"course": Schedule.model_fields["course"].default, **value} if is_schedule else value


def _each(value: PerView) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
