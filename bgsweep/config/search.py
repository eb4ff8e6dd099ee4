"""The space around an experiment, and how it is searched."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bgsweep.config.section import Count, NonNegative, Positive, Section


class Distribution(Section):
    """One searched dimension: exactly one of its keys is given."""

    uniform: tuple[float, float] | None = None
    loguniform: tuple[Positive, Positive] | None = None
    quniform: tuple[float, float, Positive] | None = Field(None, description="low, high, step")
    choice: tuple[Any, ...] | None = None
    grid: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of uniform, loguniform, quniform, choice, grid")
        bounds = self.bounds
        if bounds is not None and bounds[0] >= bounds[1]:
            raise ValueError(f"{given[0]}: the lower bound {bounds[0]} is not below the upper bound {bounds[1]}")
        if self.options == ():
            raise ValueError(f"{given[0]}: no values given")
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
        """Values that must be valid for every value of the distribution to be."""
        return self.bounds or self.options or ()

    def contains(self, value: Any) -> bool:
        """Whether a fixed point may have this value."""
        bounds = self.bounds
        return bounds[0] <= value <= bounds[1] if bounds is not None else value in (self.options or ())


class Space(Section):
    """Dotted keys of the experiment with their distributions, and fixed points that are tried first."""

    parameters: dict[str, Distribution] = Field(default_factory=dict)
    points: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """In YAML the dotted keys stand beside `points`."""
        if isinstance(value, dict) and "parameters" not in value:
            rest = {key: item for key, item in value.items() if key != "points"}
            return {"parameters": rest, "points": value.get("points") or ()}
        return value


class Search(Section):
    """Who proposes trials, who stops them, and what each may use."""

    algorithm: Literal["optuna", "random", "grid"] = "optuna"
    trials: Count = Field(16, description="all trials, fixed points included (grid: the grid decides)")
    baseline: bool = Field(
        True, description="the first trial has no background augmentation and is never stopped early"
    )
    scheduler: Literal["asha", "none"] = "asha"
    metric: str = "knn_top1"
    mode: Literal["max", "min"] = "max"
    grace_epochs: Count = Field(1, description="no trial is stopped before")
    reduction: Annotated[int, Field(ge=2)] = Field(3, description="ASHA keeps one in so many at each rung")
    seed: int = Field(0, ge=0)
    concurrent: Count | None = Field(None, description="trials at once; null: as many as the cluster has room for")
    wait_minutes: NonNegative | None = Field(
        None,
        description="how long to wait for a cluster to grow; null: 15 under Ray's cluster launcher, else not at all",
    )
    cpus: Positive = Field(1.0, description="CPU cores of a trial of one worker")
    gpus: NonNegative = Field(0.0, description="GPUs, or a share of one, of a trial of one worker")
    max_failures: int = Field(2, ge=0, description="restarts of a trial from its last checkpoint")
    hang_minutes: Positive | None = Field(
        120,
        description="a trial without an online evaluation for so long is taken to hang, and has failed; null: never",
    )
