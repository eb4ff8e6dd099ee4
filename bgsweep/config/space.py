"""The search space: distributions of dotted keys of the experiment, which may depend on other keys' values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from bgsweep.config.base import Positive, Section, nearest
from bgsweep.config.schedule import same


class Distribution(Section):
    """One searched dimension: exactly one of its keys besides `when` is given."""

    uniform: tuple[float, float] | None = None
    loguniform: tuple[Positive, Positive] | None = None
    quniform: tuple[float, float, Positive] | None = Field(None, description="low, high, step")
    choice: tuple[Any, ...] | None = None
    grid: tuple[Any, ...] | None = None
    when: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="searched keys with the value, or values, for which this one is searched"
    )

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        """Accept a single value for a list of one."""
        if not isinstance(value, dict):
            return value
        return {key: item if isinstance(item, list | tuple) else (item,) for key, item in value.items()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = [name for name in type(self).model_fields if name != "when"]
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of uniform, loguniform, quniform, choice, grid"
                + (f"; leave out all but one of: {', '.join(given)}" if given else ", such as {uniform: [0, 0.5]}")
            )
        bounds = self.bounds
        if bounds is not None and bounds[0] >= bounds[1]:
            raise ValueError(
                f"{given[0]}: the lower bound {bounds[0]} is not below the upper bound {bounds[1]}; exchange them"
            )
        if self.options == ():
            raise ValueError(f"{given[0]}: no values given; name one or more, such as [1, 2]")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest value of a range, or None for a list of options."""
        pair = self.uniform or self.loguniform or self.quniform
        return (pair[0], pair[1]) if pair else None

    @property
    def options(self) -> Sequence[Any] | None:
        """The values of a choice or grid, or None for a range."""
        return self.choice if self.choice is not None else self.grid

    def extremes(self) -> Sequence[Any]:
        """Values that, if valid, make every value of the distribution valid."""
        if self.bounds is None:
            return self.options or ()
        low, high = self.bounds
        return low, min(self.on_step(high), high)  # of steps that miss the upper bound, the last

    def contains(self, value: Any) -> bool:
        """True if a fixed point may have this value."""
        if self.bounds is None:
            return any(same(value, option) for option in self.options or ())
        low, high = self.bounds
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    def as_listed(self, value: Any) -> Any:
        """The option that is the same as a value, as the file writes it; in a range the value itself."""
        return next((option for option in self.options or () if same(value, option)), value)

    def draw(self, random: Random) -> Any:
        """A value drawn by Python's generator, to check the space; trials get theirs from the searcher."""
        if self.bounds is None:
            return random.choice(self.options or ())
        low, high = self.bounds
        if self.loguniform:
            return min(max(math.exp(random.uniform(math.log(low), math.log(high))), low), high)
        return self.on_step(random.uniform(low, high))

    def on_step(self, value: float) -> float:
        """The nearest value that `quniform` allows; other distributions allow any."""
        if self.quniform is None:
            return value
        low, high, step = self.quniform
        return low + step * min(round((value - low) / step), math.floor((high - low) / step + 1e-9))

    def applies(self, values: Mapping[str, Any]) -> bool:
        """True if the key is searched when other keys have these values."""
        return all(
            key in values and any(same(values[key], each) for each in wanted) for key, wanted in self.when.items()
        )


class Space(Section):
    """Dotted keys of the experiment with their distributions, and fixed points that are tried first.

    A key may have several distributions, of which at most one applies at a time.
    """

    parameters: dict[str, tuple[Distribution, ...]] = Field(default_factory=dict)
    points: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """Accept YAML, in which dotted keys stand beside `points` and a single distribution needs no list."""
        known = value.get("parameters", {}) if isinstance(value, dict) else None
        if not isinstance(known, dict):
            return value
        flat = {
            key: item if isinstance(item, list | tuple) else (item,)
            for key, item in value.items()
            if key not in ("parameters", "points")
        }  # also beside those that were validated before, as overrides of a typed configuration are
        return {"parameters": {**known, **flat}, "points": value.get("points") or ()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, distributions in self.parameters.items():
            for distribution in distributions:
                for other, wanted in distribution.when.items():
                    self._check_condition(key, other, wanted)
            self._check_apart(key, distributions)
        self._ordered()
        return self

    def _check_condition(self, key: str, other: str, wanted: Sequence[Any]) -> None:
        if other not in self.parameters:
            raise ValueError(f"{key}.when.{other}: not one of the searched keys; {nearest(other, self.parameters)}")
        options = self.all(other)
        if not all(each.options for each in self.parameters[other]):
            raise ValueError(f"{key}.when.{other}: a range has too many values to depend on; make it a choice")
        for value in wanted:
            if value not in options:
                raise ValueError(
                    f"{key}.when.{other}: {value} is none of its values; {nearest(str(value), map(str, options))}"
                )

    @staticmethod
    def _check_apart(key: str, distributions: Sequence[Distribution]) -> None:
        for index, one in enumerate(distributions):
            for other in distributions[:index]:
                shared = one.when.keys() & other.when.keys()
                if not any(not set(map(str, one.when[name])) & set(map(str, other.when[name])) for name in shared):
                    raise ValueError(f"{key}: two distributions apply at once; tell them apart by `when`")

    def _ordered(self) -> list[str]:
        """The keys, each after those that it depends on."""
        order: list[str] = []
        waiting = list(self.parameters)
        while waiting:
            ready = [
                key for key in waiting if all(other in order for each in self.parameters[key] for other in each.when)
            ]
            if not ready:
                raise ValueError(
                    f"{waiting[0]}.when: {', '.join(waiting)} depend on one another in a circle; remove one `when`"
                )
            order += ready
            waiting = [key for key in waiting if key not in ready]
        return order

    def walk(self, values: Mapping[str, Any]) -> Iterator[tuple[str, int, Distribution]]:
        """The searched keys, each with the number and the distribution that applies.

        The caller puts each key's value into ``values`` before the next iteration.
        """
        for key in self._ordered():
            for index, distribution in enumerate(self.parameters[key]):
                if distribution.applies(values):
                    yield key, index, distribution

    def conditions(self, distribution: Distribution) -> dict[str, Any]:
        """Values of other keys with which a distribution applies."""
        values: dict[str, Any] = {}
        for key, wanted in distribution.when.items():
            origin = next(each for each in self.parameters[key] if wanted[0] in (each.options or ()))
            values |= {**self.conditions(origin), key: wanted[0]}
        return values

    def draw(self, random: Random) -> dict[str, Any]:
        """A random point of the space."""
        values: dict[str, Any] = {}
        for key, _, distribution in self.walk(values):
            values[key] = distribution.draw(random)
        return values

    def distributions(self) -> Iterator[Distribution]:
        """The distributions of all keys."""
        for each in self.parameters.values():
            yield from each

    def all(self, key: str) -> list[Any]:
        """Options of all distributions of a key."""
        return [option for each in self.parameters[key] for option in each.options or ()]

    def depends(self, key: str) -> bool:
        """True if other keys decide whether or how this key is searched."""
        return any(each.when for each in self.parameters[key])
