"""Which runs the study consists of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from bgsweep.config import Experiment, SweepConfig, load
from bgsweep.config.base import Probability, Section
from bgsweep.config.methods import METHODS
from bgsweep.config.yaml_file import read_yaml
from bgsweep.errors import UserError

NONE = "none"
FormName = Literal[
    "mild", "quick", "paired", "swaps", "donors", "fills", "larger", "searched", "rho80", "unbiased", "byol", "gpu"
]
Word = Literal["tiled", "inpainted", "plain", "soft", "black", "mean", "noise", "foreground"]
Setting = Probability | Word | dict[str, Any]
"""A value of an arm; a mapping is a schedule of a probability, which `bgsweep.config.schedule` reads."""
_OFF = {"background.remove": 0.0, "background.random": 0.0}


class Curve(Section):
    """One method with one key at several values, beside the arm that has it already."""

    method: str
    key: str
    values: tuple[Probability, ...]


class Form(Section):
    """The settings that another form of the study changes; None leaves one as it is."""

    methods: tuple[str, ...] | None = None
    arms: dict[str, dict[str, Setting]] | None = None
    reference: str | None = None
    seeds: tuple[int, ...] | None = None
    rhos: tuple[Probability, ...] | None = None
    curve: tuple[Probability, ...] | None = None
    overrides: tuple[str, ...] = ()
    method_overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="for one method's runs")


class StudyFile(Section):
    """The study's YAML file."""

    methods: dict[str, str]
    arms: dict[str, dict[str, Setting]]
    reference: str = Field(NONE, description="the arm that the others are compared with")
    rhos: tuple[Probability, ...]
    seeds: tuple[int, ...] = Field(min_length=2, description="fewer than three leave no interval")
    curve: Curve
    overrides: tuple[str, ...] = ()
    method_overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="for one method's runs")
    forms: dict[FormName, Form] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _methods_are_known(self) -> Self:
        every: list[tuple[str, StudyFile | Form]] = [
            ("", self),
            *((f"forms.{name}: ", each) for name, each in self.forms.items()),
        ]
        for where, form in every:
            unknown = {*(form.methods or ()), *form.method_overrides} - self.methods.keys()
            if unknown:
                raise ValueError(f"{where}{', '.join(sorted(unknown))}: `methods` has {', '.join(self.methods)} only")
        return self


@dataclass(frozen=True)
class Planned:
    """One run: what it is compared as, the file of its method, and the values that make it."""

    method: str
    arm: str
    rho: float
    seed: int
    file: SweepConfig
    values: dict[str, Any]

    @property
    def experiment(self) -> Experiment:
        return self.file.experiment.with_values(self.values)


def read_study(path: Path, form: FormName | None, overrides: Sequence[str] = ()) -> StudyFile:
    """Read the study's file in one of its forms.

    Raises:
        UserError: one line of what is wrong with it.
    """
    try:
        file = StudyFile.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors()[0]
        what = [".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")]
        raise UserError(": ".join([str(path), *filter(None, what)])) from error
    change = file.forms.get(form, Form()) if form else Form()
    methods = file.methods if change.methods is None else {name: file.methods[name] for name in change.methods}
    values = file.curve.values if change.curve is None else change.curve
    return file.model_copy(
        update={
            "methods": methods,
            "arms": change.arms or file.arms,
            "reference": change.reference or file.reference,
            "seeds": change.seeds or file.seeds,
            "rhos": change.rhos or file.rhos,
            "curve": file.curve.model_copy(update={"values": values}),
            "method_overrides": change.method_overrides or file.method_overrides,
            "overrides": (*file.overrides, *change.overrides, *overrides),
        }
    )


def planned(study: StudyFile, folder: Path) -> list[Planned]:
    """All runs of the study; those that are compared have the same seeds. ``folder`` is that of the methods' files."""
    runs = []
    for method, name in study.methods.items():
        own = study.method_overrides.get(method, ())  # first, so that an override of the command line has its way
        file = load(folder / name, [*own, *study.overrides, "background.swap=0.0"])
        points = _points(study, method)
        for arm, values in arms_of(study, method).items():
            for rho in study.rhos[:1] if arm in points else study.rhos:
                runs += [
                    Planned(method, arm, rho, seed, file, {**_OFF, **values, "data.shortcut.rho": rho, "seed": seed})
                    for seed in study.seeds
                ]
    return runs


def arms_of(study: StudyFile, method: str) -> dict[str, dict[str, Setting]]:
    """The arms that a method has, by name; the points of the curve among them."""
    swaps = METHODS[method].supports_swaps
    known = {name: values for name, values in study.arms.items() if swaps or "background.swap" not in values}
    return {NONE: {}, **known, **_points(study, method)}


def _points(study: StudyFile, method: str) -> dict[str, dict[str, Setting]]:
    """Of the curve, which is drawn at the first rho only."""
    curve = study.curve
    return {curve_arm(curve.key, value): {curve.key: value} for value in curve.values if curve.method == method}


def curve_arm(key: str, value: float) -> str:
    """The name of a point of the curve."""
    return f"{key.removeprefix('background.')} {value:g}"
