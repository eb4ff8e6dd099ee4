"""One YAML file: reading it, overriding it, and saying what is wrong with it in one line."""

import math
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from bgsweep.config.base import NAME_PATTERN, Section, nearest
from bgsweep.config.evaluation import Evaluate, Register, SuiteConfig
from bgsweep.config.experiment import Experiment, mutable
from bgsweep.config.masks import MaskTraining
from bgsweep.config.methods import METHODS
from bgsweep.config.refusals import choose, words
from bgsweep.config.search import Search
from bgsweep.config.space import Distribution, Space
from bgsweep.config.yaml_file import parse_yaml, read_yaml
from bgsweep.errors import UserError

_DRAWS = 300


class SweepConfig(Section):
    """What one YAML file says: the fixed experiment, the space around it, and how to search, judge and register."""

    name: str = Field("bgsweep", description="of the sweep; file name by default")
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
        needed = set(self.search.metrics) & {"bg_gap", "mixed_same", "mixed_rand"}
        if needed and not self.evaluate.bg_gap:
            raise ValueError(
                f"search.metric: {min(needed)} is measured during training with evaluate.bg_gap: true only"
            )
        for key, distributions in self.space.parameters.items():
            _known_key(key)
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
        if self.search.scheduler == "pbt":
            self._check_population()
        return self

    def _check_key(self, key: str) -> None:
        for distribution in self.space.parameters[key]:
            if self.search.algorithm == "grid" and distribution.options is None:
                raise ValueError(f"space.{key}: a grid search needs `grid` or `choice`, not a range")
            for value in distribution.extremes():
                self._check_everywhere(key, {**self.space.conditions(distribution), key: value})

    def _check_everywhere(self, key: str, given: dict[str, Any]) -> None:
        """Try a key's value beside every value of the keys that decide about others."""
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
        if _is_whole(key) and distribution.bounds and not (low.is_integer() and step.is_integer()):
            low, high = distribution.bounds
            example = f"quniform: [{math.ceil(low)}, {math.floor(high)}, 1]"
            raise ValueError(f"space.{key}: takes whole numbers only; use `{example}` or a `choice`")

    def _check_method(self, key: str, distribution: Distribution) -> None:
        """A method's own key must say so where other methods are tried too."""
        section, _, leaf = key.rpartition(".")
        if section != "method" or leaf == "name" or "method.name" not in self.space.parameters:
            return
        names = self.space.all("method.name")
        applies = distribution.when.get("method.name", names)
        without = [name for name in applies if name in METHODS and leaf not in METHODS[name].model_fields]
        having = [name for name in names if name in METHODS and leaf in METHODS[name].model_fields]
        if without:
            cure = f"; add `when: {{method.name: {having[0]}}}`" if having else ""
            raise ValueError(f"space.{key}: {without[0]} has no such key{cure}")

    def _check_point(self, place: str, point: dict[str, Any]) -> None:
        for key in point:
            if key not in self.space.parameters:
                raise ValueError(f"{place}.{key}: not one of the searched keys; {nearest(key, self.space.parameters)}")
        try:
            values = self.complete(point)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        for key, _, distribution in self.space.walk(values):
            if key in point and not distribution.contains(point[key]):
                raise ValueError(
                    f"{place}.{key}: {point[key]!r} lies outside its distribution; widen that, or change the point"
                )
        self._try(place, values)

    def complete(self, given: Mapping[str, Any], lenient: bool = False) -> dict[str, Any]:
        """A point of the space. What is not given is the experiment's own, where it is searched there alike, else the
        only option there is, or where ``lenient`` any value.

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
        """What training by a population (PBT) can do with this file."""
        search, every = self.search, self.evaluate.every
        if self.experiment.workers.count > 1:
            raise ValueError(
                "search.scheduler: pbt passes trained weights on between trials of one worker each; set "
                "workers.count: 1"
            )
        if search.concurrent is not None:
            raise ValueError("search.concurrent: pbt trains as many trials at once as there is room for; leave it out")
        if search.perturb_epochs % every:
            raise ValueError(
                f"search.perturb_epochs: {search.perturb_epochs} is no multiple of evaluate.every {every}; change one"
            )
        if search.perturb_epochs >= self.experiment.training.epochs:
            raise ValueError(
                f"search.perturb_epochs: {search.perturb_epochs} is not below training.epochs "
                f"{self.experiment.training.epochs}, so that nothing would ever be taken over; lower it"
            )
        if any(map(self.space.depends, self.space.parameters)):
            raise ValueError("search.scheduler: pbt cannot change keys that depend on others (`when`); use asha")
        for key in self.space.parameters:
            if not mutable(key):
                raise ValueError(
                    f"space.{key}: pbt changes values in the midst of training, and this one cannot change then; "
                    "use asha, or leave it out"
                )

    def _try(self, place: str, values: dict[str, Any]) -> None:
        if reason := self.refusal(values):
            raise ValueError(f"{place}: {reason.removeprefix(place.removeprefix('space.') + ': ')}")

    def refusal(self, values: dict[str, Any]) -> str:
        """Why a trial cannot have these values; an empty text where it can."""
        try:
            self.experiment.with_values(values)
        except ValidationError as error:
            return _reason(error)
        return ""

    def typed(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values with whole numbers as such where a key takes only those: searchers draw floats."""
        return {
            key: int(value) if isinstance(value, float) and value.is_integer() and _is_whole(key) else value
            for key, value in values.items()
        }

    def check_draws(self) -> None:
        """Refuse a space with draws that no trial can have, as far as some hundred draws show it.

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
                f"{self.refusal(refused[0])}; choose ranges whose values go together, or tell them apart by `when`"
            )


def sweep_name(title: str) -> str:
    """A name for a sweep of a file called so, that no other sweep has, even one begun in the same second elsewhere."""
    return f"{title}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"


def load(path: str | Path, overrides: Sequence[str] = (), searched: bool = True) -> SweepConfig:
    """Read a YAML file, apply ``key=value`` overrides, and validate.

    Args:
        searched: false for a command that uses the experiment alone, which the space and the search must not stop.

    Raises:
        UserError: one line with the file, the key's full path, the range or the nearest valid name.
    """
    path = Path(path)
    tree = _mapping(path, "experiment")
    tree.setdefault("name", re.sub("[^A-Za-z0-9_.-]+", "-", path.stem).lstrip("_.-") or "bgsweep")
    file = resolve(tree, overrides, str(path), searched)
    try:
        file.check_draws()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return file


def load_suite(path: Path) -> SuiteConfig:
    """Read and validate the YAML file of an evaluation suite.

    Raises:
        UserError: as `load`.
    """
    try:
        return SuiteConfig.model_validate(_mapping(path, "data"))
    except ValidationError as error:
        raise UserError(f"{path}: {_reason(error, SuiteConfig)}") from error


def _mapping(path: Path, section: str) -> dict[str, Any]:
    tree = read_yaml(path)
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping with `{section}:` at its top, found {type(tree).__name__}")
    return tree or {}


def resolve(
    tree: dict[str, Any], overrides: Iterable[str] = (), origin: str = "configuration", searched: bool = True
) -> SweepConfig:
    """Validate a parsed file after overrides, whose keys are relative to ``experiment`` unless they name a section."""
    for override in overrides:
        _override(tree, override)
    if not searched:
        given = tree.get("search")
        kept = {key: value for key, value in given.items() if key == "wait_minutes"} if isinstance(given, dict) else {}
        tree = {key: value for key, value in tree.items() if key != "space"} | {"search": kept}
    try:
        return SweepConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {_reason(error)}") from error


def mask_training(overrides: Iterable[str] = ()) -> MaskTraining:
    """The settings of `bgsweep masks train`, by ``key=value``.

    Raises:
        UserError: as `load`.
    """
    tree: dict[str, Any] = {}
    for override in overrides:
        path, value = _parsed(override)
        _put(tree, path, value, override)
    try:
        return MaskTraining.model_validate(tree)
    except ValidationError as error:
        raise UserError(_reason(error, MaskTraining)) from error


def _override(tree: dict[str, Any], override: str) -> None:
    path, value = _parsed(override)
    if path[0] == "space" and len(path) > 1:
        path = ["space", ".".join(path[1:])]
    elif path[0] not in ("name", "experiment", "space", "search", "evaluate", "register"):
        path = ["experiment", *path]
    _put(tree, path, value, override)


def _parsed(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    path = [part for part in key.split(".") if part]
    if not equals or not path:
        raise UserError(f"{override!r}: an override is written key=value, e.g. background.remove=0.3")
    return path, parse_yaml(text, override)


def _put(tree: dict[str, Any], path: Sequence[str], value: Any, override: str) -> None:
    branch = tree
    for part in path[:-1]:
        if branch.get(part) is None:
            branch[part] = {}
        branch = branch[part]
        if not isinstance(branch, dict):
            raise UserError(f"{override!r}: {part} is a single value, not a section; write it as {part}=VALUE")
    branch[path[-1]] = value


def _known_key(key: str) -> None:
    model: Any = Experiment
    for depth, part in enumerate(key.split(".")):
        fields = _fields(model)
        if part not in fields:
            raise ValueError(_unknown("space." + ".".join(key.split(".")[: depth + 1]), part, fields))
        model = fields[part]
    if _fields(model) and not _takes_values(model):
        raise ValueError(
            f"space.{key}: a section, not a single value; name one of its keys: {', '.join(_fields(model))}"
        )


def _takes_values(annotation: Any) -> bool:
    """Whether a key with sections among its types takes plain values too, as a probability with a schedule does."""
    if get_args(annotation):
        return any(map(_takes_values, get_args(annotation)))
    return annotation is float


def _is_whole(key: str) -> bool:
    """Whether a key's values are whole numbers."""
    model: Any = Experiment
    for part in key.split("."):
        model = _fields(model).get(part)
    kinds = {model, *get_args(model)}
    return int in kinds and float not in kinds


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fields(annotation: Any) -> dict[str, Any]:
    """Names and annotations of the section (or of all the sections of a union) that an annotation stands for."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
    found: dict[str, Any] = {}
    for part in get_args(annotation):
        found |= _fields(part)
    return found


def _unknown(path: str, name: str, known: Iterable[str]) -> str:
    return f"{path}: unknown key; {nearest(name, known)}"


def _reason(error: ValidationError, root: Any = None) -> str:
    """The first problem, as one line: full path of the key, what is wrong, what would be right."""
    problem = choose(error.errors())
    model = root or (SweepConfig if problem["loc"] and problem["loc"][0] in _fields(SweepConfig) else Experiment)
    path: list[str] = []
    known: dict[str, Any] = {}
    unknown = problem["type"] == "extra_forbidden"
    for depth, part in enumerate(problem["loc"], start=1):
        if get_origin(model) is dict:
            path.append(str(part))
            model = get_args(model)[1]
            continue
        if isinstance(part, int):
            if problem["type"] not in ("missing", "too_long"):  # else the list is meant, not what it lacks
                path.append(str(part))
            continue
        fields = _fields(model)
        if part not in fields and not (unknown and depth == len(problem["loc"])):
            continue  # the tag of a union, not a key of the file
        path.append(part)
        known, model = fields, fields.get(part)
    place = ".".join(path)
    if place.startswith("space.parameters."):  # a key's only distribution has no number of its own in the file
        place = re.sub(r"\.0(?=\.|$)", "", place.replace("space.parameters.", "space."))
    if unknown:
        return _unknown(place, path[-1], known)
    message = words(problem, _default(root or SweepConfig, path), list(_fields(model)))
    if problem["type"] == "value_error":
        key = message.partition(":")[0].partition(".")[0]
        if key in _fields(model):  # a section speaks of its own keys
            return f"{place}.{message}" if place else message
    return f"{place}: {message}" if place else message


def _default(model: Any, path: Sequence[str]) -> str:
    """A key's default as it is written in the file, for an example; empty where it has none."""
    for place, part in enumerate(path):
        if part == "experiment" and model is not SweepConfig:
            return ""
        field = next((field for name, field in _model_fields(model) if part == (field.alias or name)), None)
        if field is None:
            return ""
        if place == len(path) - 1:
            value = field.default
            plain = isinstance(value, str | int | float | tuple) and not isinstance(value, bool)
            return str(list(value) if isinstance(value, tuple) else value) if plain and value != () else ""
        model = field.annotation
    return ""


def _model_fields(annotation: Any) -> list[tuple[str, Any]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.model_fields.items())
    return [pair for part in get_args(annotation) for pair in _model_fields(part)]
