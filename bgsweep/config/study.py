"""One YAML file: reading it, overriding it, and saying what is wrong with it in one line."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from bgsweep.config.evaluate import Evaluate, Register
from bgsweep.config.experiment import Experiment
from bgsweep.config.search import Search, Space
from bgsweep.config.section import Section
from bgsweep.config.suite import SuiteFile
from bgsweep.errors import UserError, without_password


class SweepFile(Section):
    """What one YAML file says: the fixed experiment, the space around it, and how to search, judge and register."""

    name: str = Field(
        "bgsweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="of the sweep; file name by default"
    )
    experiment: Experiment = Experiment()
    space: Space = Space()
    search: Search = Search()
    evaluate: Evaluate = Evaluate()
    register_as: Register = Field(Register(), alias="register")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, distribution in self.space.parameters.items():
            _known_key(key)
            for value in distribution.extremes():
                self._try(f"space.{key}", {key: value})
            if self.search.algorithm == "grid" and distribution.options is None:
                raise ValueError(f"space.{key}: a grid search needs `grid` or `choice`, not a range")
        for index, point in enumerate(self.space.points):
            for key, value in point.items():
                if key not in self.space.parameters:
                    raise ValueError(f"space.points[{index}].{key}: not one of the searched keys")
                if not self.space.parameters[key].contains(value):
                    raise ValueError(f"space.points[{index}].{key}: {value} lies outside its distribution")
            self._try(f"space.points[{index}]", point)
        return self

    def _try(self, place: str, values: dict[str, Any]) -> None:
        try:
            self.experiment.with_values(values)
        except ValidationError as error:
            raise ValueError(f"{place}: {_reason(error)}") from error


def load(path: str | Path, overrides: Sequence[str] = ()) -> SweepFile:
    """Read a YAML file, apply ``key=value`` overrides, and validate.

    Raises:
        UserError: one line with the file, the key's full path, the range or the nearest valid name.
    """
    path = Path(path)
    tree = _mapping(path, "experiment")
    tree.setdefault("name", path.stem)
    return resolve(tree, overrides, str(path))


def load_suite(path: Path) -> SuiteFile:
    """Read and validate the YAML file of an evaluation suite.

    Raises:
        UserError: as `load`.
    """
    try:
        return SuiteFile.model_validate(_mapping(path, "data"))
    except ValidationError as error:
        raise UserError(f"{path}: {_reason(error, SuiteFile)}") from error


def _mapping(path: Path, section: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping with `{section}:` at its top, found {type(tree).__name__}")
    return tree or {}


def resolve(tree: dict[str, Any], overrides: Iterable[str] = (), origin: str = "configuration") -> SweepFile:
    """Validate a parsed file after overrides, whose keys are relative to ``experiment`` unless they name a section."""
    for override in overrides:
        _override(tree, override)
    try:
        return SweepFile.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {_reason(error)}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = [part for part in key.split(".") if part]
    if not equals or not path:
        raise UserError(f"{override!r}: an override is written key=value, e.g. background.remove=0.3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not valid YAML") from error
    if path[0] == "space":
        path = ["space", ".".join(path[1:])]
    elif path[0] not in ("name", "experiment", "search", "evaluate", "register"):
        path = ["experiment", *path]
    branch = tree
    for part in path[:-1]:
        if branch.get(part) is None:
            branch[part] = {}
        branch = branch[part]
        if not isinstance(branch, dict):
            raise UserError(f"{override!r}: {part} is a single value, not a section")
    branch[path[-1]] = value


def _known_key(key: str) -> None:
    model: Any = Experiment
    for depth, part in enumerate(key.split(".")):
        fields = _fields(model)
        if part not in fields:
            raise ValueError(f"space.{key}: {_unknown('.'.join(key.split('.')[: depth + 1]), part, fields)}")
        model = fields[part]
    if _fields(model):
        raise ValueError(
            f"space.{key}: a section, not a single value; name one of its keys: {', '.join(_fields(model))}"
        )


def _fields(annotation: Any) -> dict[str, Any]:
    """Names and annotations of the section (or of all the sections of a union) that an annotation stands for."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
    found: dict[str, Any] = {}
    for part in get_args(annotation):
        found |= _fields(part)
    return found


def _unknown(path: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"{path}: unknown key" + (f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(known)}")


def _reason(error: ValidationError, root: Any = None) -> str:
    """The first problem, as one line: full path of the key, what is wrong, what would be right."""
    problem = error.errors()[0]
    model = root or (SweepFile if problem["loc"] and problem["loc"][0] in _fields(SweepFile) else Experiment)
    path: list[str] = []
    known: dict[str, Any] = {}
    unknown = problem["type"] == "extra_forbidden"
    for depth, part in enumerate(problem["loc"], start=1):
        if get_origin(model) is dict:
            path.append(str(part))
            model = get_args(model)[1]
            continue
        fields = _fields(model)
        if isinstance(part, str) and part not in fields and not (unknown and depth == len(problem["loc"])):
            continue  # the tag of a union, not a key of the file
        path.append(str(part))
        known, model = fields, fields.get(str(part))
    place = ".".join(path).replace("space.parameters.", "space.")
    if unknown:
        return _unknown(place, path[-1], known)
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {without_password(repr(given))})" if isinstance(given, str | int | float | bool) else ""
    return f"{place}: {message}{shown}" if place else message
