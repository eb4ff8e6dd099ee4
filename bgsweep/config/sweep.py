"""`SweepConfig`: the content of one YAML file, with the checks that need more than one of its sections."""

import math
import re
import secrets
import time
from collections.abc import Mapping
from random import Random
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bgsweep.config.base import NAME_PATTERN, Section, gpus_for, nearest
from bgsweep.config.evaluation import Evaluate, Register
from bgsweep.config.experiment import Experiment, mutable
from bgsweep.config.keys import check_known, check_step, is_whole
from bgsweep.config.messages import reason
from bgsweep.config.methods import method_section
from bgsweep.config.plugins import UnknownPart
from bgsweep.config.search import Search
from bgsweep.config.space import Distribution, Space
from bgsweep.errors import UserError

_DRAWS = 300


class SweepConfig(Section):
    """One YAML file: the fixed experiment, the space around it, and how to search, evaluate and register."""

    name: str = Field("bgsweep", description="sweep name; default: the file's")
    experiment: Experiment = Experiment()
    space: Space = Space()
    search: Search = Search()
    evaluate: Evaluate = Evaluate()
    register_as: Register = Field(Register(), alias="register")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError("use letters, digits, `_`, `.` and `-` only, beginning with a letter or digit")
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.search.seeds > 1 and "seed" in self.space.parameters:
            raise ValueError("space.seed: search.seeds gives every trial the same seeds; leave one of the two out")
        if self.search.confirm and "seed" in self.space.parameters:
            raise ValueError("space.seed: search.confirm trains trials with other seeds; leave one of the two out")
        self._check_metrics()
        self._check_methods()
        for key, distributions in self.space.parameters.items():
            check_known(key)
            check_step(key, self.experiment)
            if key.startswith("encoder.weights") or (key.startswith("encoder.") and self.experiment.encoder.weights):
                raise ValueError(
                    f"space.{key}: encoder.weights are the same for all trials, and fit one network; leave out "
                    "one of the two, or start a sweep for each"
                )
            for distribution in distributions:
                self._check_whole(key, distribution)
                self._check_method(key, distribution)
        for key in self.space.parameters:
            if (whole := key.rpartition(".")[0]) in self.space.parameters:
                raise ValueError(f"space.{key}: {whole} is searched as a whole; leave one of the two out")
        for key in sorted(self.space.parameters, key=lambda key: not self.space.depends(key)):
            self._check_key(key)
        for index, point in enumerate(self.space.points):
            self._check_point(f"space.points[{index}]", point)
        if self.search.baseline:
            self._check_baseline()
        if self.search.scheduler == "pbt":
            self._check_population()
        return self

    def _check_metrics(self) -> None:
        for one in self.measured.metrics:
            if one.needs_masks and not self.experiment.data.has_masks:
                key = "metrics" if one in self.evaluate.metrics else "metric"
                raise ValueError(
                    f"{'evaluate' if key == 'metrics' else 'search'}.{key}: {one.name} needs foreground masks; set "
                    f"data.masks{self.experiment.data.included_masks}, or name another metric"
                )

    @property
    def measured(self) -> Evaluate:
        """The evaluation during training, with the metrics that trials are compared by."""
        return self.evaluate.with_metrics(goal.part for goal in self.search.goals if goal.part)

    def _check_methods(self) -> None:
        """Find the methods that are searched: their keys are known from then on."""
        for name in self.space.all("method.name") if "method.name" in self.space.parameters else ():
            if isinstance(name, str):  # another value is refused where it is tried
                try:
                    method_section(name)
                except UnknownPart as error:
                    raise ValueError(f"space.method.name: {error}") from error

    def with_values(self, values: dict[str, Any]) -> Self:
        """The config with a trial's values in its experiment."""
        return self.model_copy(update={"experiment": self.experiment.with_values(values)})

    @property
    def augments_background(self) -> bool:
        """True if the experiment or a trial can have background augmentations."""
        probabilities = {("background", name) for name in ("remove", "random", "swap")}
        searched = {tuple(key.split(".")[:2]) for key in self.space.parameters}
        return self.experiment.background.active or not searched.isdisjoint(probabilities)

    def gpus_of_process(self, available: bool) -> float:
        """GPUs of each process that trains: a worker, or a trial of one worker; ``available``: the cluster has any."""
        workers = self.experiment.workers
        wanted = workers.gpus if workers.count > 1 else self.search.gpus
        return gpus_for(wanted, workers.device, available)

    def _check_key(self, key: str) -> None:
        for distribution in self.space.parameters[key]:
            if self.search.exhaustive and distribution.options is None:
                raise ValueError(f"space.{key}: a grid search needs `grid` or `choice`, not a range")
            for value in distribution.extremes():
                self._check_everywhere(key, {**self.space.conditions(distribution), key: value})

    def _check_everywhere(self, key: str, given: dict[str, Any]) -> None:
        """Try a key's value with every value of the keys that others depend on."""
        deciding = {other for each in self.space.distributions() for other in each.when} | {"method.name"}
        others = [
            {name: option}
            for name in sorted(deciding & self.space.parameters.keys())
            for option in self.space.all(name)
        ]
        tried = 0
        for other in [{}, *others]:
            try:
                values = self.complete({**other, **given}, lenient=True)
            except ValueError:
                continue
            tried += 1
            self._try(f"space.{key}", values)
        if not tried:
            raise ValueError(f"space.{key}: its `when` is never met; name values that the other keys can have")

    @staticmethod
    def _check_whole(key: str, distribution: Distribution) -> None:
        low, high, step = distribution.quniform or (0.5, 0.5, 0.5)
        if is_whole(key) and distribution.bounds and not (low.is_integer() and step.is_integer()):
            low, high = distribution.bounds
            example = f"quniform: [{math.ceil(low)}, {math.floor(high)}, 1]"
            raise ValueError(f"space.{key}: takes whole numbers only; use `{example}` or a `choice`")

    def _check_method(self, key: str, distribution: Distribution) -> None:
        """Require `when` for a key that not all searched methods have."""
        section, _, leaf = key.rpartition(".")
        if section != "method" or leaf == "name" or "method.name" not in self.space.parameters:
            return
        names = self.space.all("method.name")
        applies = distribution.when.get("method.name", names)
        without = [name for name in applies if name in names and leaf not in method_section(name).model_fields]
        having = [name for name in names if leaf in method_section(name).model_fields]
        if without:
            cure = f"; add `when: {{method.name: {having[0]}}}`" if having else ""
            raise ValueError(f"space.{key}: {without[0]} has no such key{cure}")

    def _check_point(self, path: str, point: dict[str, Any]) -> None:
        for key in point:
            if key not in self.space.parameters:
                raise ValueError(f"{path}.{key}: not one of the searched keys; {nearest(key, self.space.parameters)}")
        try:
            values = self.complete(point)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        for key, _, distribution in self.space.walk(values):
            if key in point and not distribution.contains(point[key]):
                raise ValueError(
                    f"{path}.{key}: {point[key]!r} lies outside its distribution; widen that, or change the point"
                )
        self._try(path, values)

    def _check_baseline(self) -> None:
        try:
            self.complete({})
        except ValueError as error:
            raise ValueError(
                f"search.baseline: the first trial has the experiment's values; {error}, or set it to false"
            ) from error

    def complete(self, given: Mapping[str, Any], lenient: bool = False) -> dict[str, Any]:
        """A complete point of the space.

        A value that is not given is the experiment's own if the same distribution applies there, else the only option,
        else, if ``lenient``, any value.

        Raises:
            ValueError: a given key does not apply beside the others, or one that applies has no value.
        """
        own: dict[str, Any] = {}
        alike = set()
        for key, index, _ in self.space.walk(own):
            if self.experiment.has(key):
                own[key] = self.experiment.value(key)
                alike.add((key, index))
        values: dict[str, Any] = {}
        for key, index, distribution in self.space.walk(values):
            options = distribution.extremes()
            if key in given:
                values[key] = given[key]
            elif (key, index) in alike:
                values[key] = own[key]
            elif lenient or len(options) == 1:
                values[key] = options[0]
            else:
                raise ValueError(f"{key} is searched beside these values, and the experiment has none for it; name one")
        for key in given:
            if key not in values:
                raise ValueError(f"{key} is not searched beside the point's other values; leave it out of the point")
        return values

    def _check_population(self) -> None:
        """Check that population-based training (PBT) can run this file."""
        search, every = self.search, self.evaluate.every
        if self.experiment.workers.count > 1:
            raise ValueError(
                "search.scheduler: pbt passes trained weights on between trials of one worker each; set "
                "workers.count: 1"
            )
        if search.concurrent is not None:
            raise ValueError("search.concurrent: pbt trains as many trials at once as fit; leave it out")
        if search.budget.limits:
            raise ValueError("search.budget: pbt begins all trials at once; leave it out, or use asha")
        if search.perturb_epochs % every:
            raise ValueError(
                f"search.perturb_epochs: {search.perturb_epochs} is no multiple of evaluate.every {every}; change one"
            )
        if search.perturb_epochs >= self.experiment.training.epochs:
            raise ValueError(
                f"search.perturb_epochs: {search.perturb_epochs} is not below training.epochs "
                f"{self.experiment.training.epochs}, so that no trial would ever copy another; lower it"
            )
        if any(map(self.space.depends, self.space.parameters)):
            raise ValueError("search.scheduler: pbt cannot change keys that depend on others (`when`); use asha")
        self._check_exchanged()

    def _check_exchanged(self) -> None:
        """Check that a trial can go on from another's weights with values of its own."""
        name = self.experiment.encoder.name
        for key in self.space.parameters:
            if not mutable(key):
                raise ValueError(
                    f"space.{key}: pbt changes values during training, and this one must not change then; "
                    "use asha, or leave it out"
                )
            if key == "views.size" and name.startswith(("vit_", "timm:")):
                raise ValueError(
                    f"space.{key}: pbt passes weights on between trials, and position embeddings such as those of "
                    f"{name} are made for one size of views; use asha, or leave it out"
                )

    def _try(self, path: str, values: dict[str, Any]) -> None:
        if problem := self.refusal(values):
            raise ValueError(f"{path}: {problem.removeprefix(path.removeprefix('space.') + ': ')}")

    def refusal(self, values: dict[str, Any]) -> str:
        """The reason for which a trial cannot have these values; empty if it can."""
        try:
            self.experiment.with_values(values)
        except ValidationError as error:
            return reason(error, Experiment)
        return ""

    def typed(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values with integers for keys that take whole numbers: searchers draw floats."""
        return {
            key: int(value) if isinstance(value, float) and value.is_integer() and is_whole(key) else value
            for key, value in values.items()
        }

    def check_draws(self) -> None:
        """Refuse a space with values that cannot be trained, as far as some hundred draws show.

        Raises:
            UserError: the share of such draws, with an example.
        """
        random = Random(self.search.seed)
        draws = [self.space.draw(random) for _ in range(_DRAWS if self.space.parameters else 0)]
        refused = [values for values in draws if self.refusal(values)]
        if refused:
            example = ", ".join(f"{key}={_short(value)}" for key, value in refused[0].items())
            raise UserError(
                f"space: {len(refused)} of {_DRAWS} draws cannot be trained, such as {example}: "
                f"{self.refusal(refused[0])}; choose ranges whose values fit together, or separate them by `when`"
            )


def sweep_name(title: str) -> str:
    """A unique sweep name, TITLE-TIMESTAMP-XXXX, even if another sweep starts elsewhere in the same second."""
    return f"{title}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
