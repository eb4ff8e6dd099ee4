"""Parts of other packages that a configuration names: `package.module:Name`, or the name of an entry point.

Worker processes find them by the same name, so that a part must be importable there: from an installed package, from
the folder in which the command runs, or from what Ray's runtime environment uploads (`submit --module`).
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from bgsweep.config.base import Section, nearest
from bgsweep.errors import UserError, one_line

EVALUATORS, SEARCHERS, SCHEDULERS = "bgsweep.evaluators", "bgsweep.searchers", "bgsweep.schedulers"
MASK_METHODS = "bgsweep.mask_methods"
"""Groups of entry points; sections of parts name their own."""


class UnknownPart(UserError, ValueError):
    """A name that is neither a built-in part's nor another package's, or whose object cannot be used."""


def offered(group: str) -> EntryPoints:
    """The entry points of all installed packages in a group."""
    return entry_points(group=group)


def find(group: str, name: str, base: type | str, built_in: Iterable[str] = ()) -> Any:
    """The class that a name stands for.

    Args:
        group: the group of entry points in which a name without a colon is looked up.
        base: the class that it must be derived from; its path, ``module:Class``, where importing it would be slow.
        built_in: names of the built-in parts, for the error.

    Raises:
        UnknownPart: there is none, it cannot be imported, or is something else.
    """
    path = name
    if ":" not in name:
        points = offered(group)
        if name not in points.names:
            raise UnknownPart(f"{name!r} is not known; {nearest(name, [*built_in, *sorted(points.names)])}")
        path = points[name].value
    found, parent = imported(path, name), base if isinstance(base, type) else imported(base, base)
    if not (isinstance(found, type) and issubclass(found, parent)):
        raise UnknownPart(f"{name!r}: {path} is not a class derived from {parent.__module__}.{parent.__name__}")
    return found


def imported(path: str, name: str) -> Any:
    """The object at `package.module:Name`; the folder in which the command runs is searched last.

    Raises:
        UnknownPart: it is not there, or its module cannot be imported.
    """
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109  a console script has not, `python -m` has
        sys.path.append(here)
    module, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except Exception as error:  # a module of the user's may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UnknownPart(
            f"{name!r} cannot be imported ({reason}); name it package.module:Class, and install its package or run "
            "from the folder of its module"
        ) from error
    return found


class PartSection(Section):
    """Base of the sections of parts that a configuration chooses by `name`.

    A section is apart from what it configures, since the process that drives a sweep reads configurations without
    torch, which takes half a gigabyte.
    """

    name: str = Field(description="package.module:Class of another package's section, or its entry point")

    group: ClassVar[str]
    """The group of entry points in which the name is looked up."""

    implementation: ClassVar[str]
    """The part itself, as ``package.module:Name``: it is called with the section, and what its kind needs besides."""

    @model_validator(mode="before")
    @classmethod
    def _own_name(cls, value: Any) -> Any:
        """Name a section that is made in Python after its class."""
        if isinstance(value, dict) and cls.model_fields["name"].annotation is str:
            return {"name": f"{cls.__module__}:{cls.__qualname__}", **value}
        return value

    @classmethod
    def named(cls, name: str, built_in: Iterable[str] = ()) -> type[Self]:
        """The section of another package that a name stands for.

        Raises:
            UnknownPart: there is none.
        """
        known = _loaded.setdefault(cls.group, {})
        if name not in known:
            known[name] = find(cls.group, name, cls, built_in)
        section: type[Self] = known[name]
        return section

    @classmethod
    def chosen(cls, value: Any, other: Callable[[Any], Any], built_in: Mapping[str, type[Section]]) -> Any:
        """A section from its keys; ``other`` validates what is not of another package."""
        if isinstance(value, cls) and type(value) not in built_in.values():
            return value
        name = value.get("name") if isinstance(value, Mapping) else None
        if isinstance(name, str) and name not in built_in:
            return cls.named(name, built_in).model_validate(value)
        return other(value)


class DatasetSection(PartSection):
    """Base of the sections of other packages' datasets, for `data.dataset`.

    The `implementation` is called with the section and the name of a split (`data.train`, …), and gives a
    `bgsweep.data.ImageDataset`. It can be pickled, and its ids do not change: random draws are keyed by them.
    """

    group = "bgsweep.datasets"

    has_masks: ClassVar[bool] = False
    """The images come with foreground masks."""


class TransformSection(PartSection):
    """Base of the sections of other packages' transforms, for `views.extra`.

    The `implementation` is called with the section, and gives a function of a view (H, W, 3) of uint8 and of a
    `random.Random`, from which all its draws come, that gives the changed view, of the same size.
    """

    group = "bgsweep.transforms"


def _dataset(value: Any, base: ValidatorFunctionWrapHandler) -> Any:
    return DatasetSection.chosen(value, base, {})


def _transform(value: Any, base: ValidatorFunctionWrapHandler) -> Any:
    return TransformSection.chosen(value, base, {})


Dataset = Annotated[DatasetSection, WrapValidator(_dataset), SerializeAsAny()]
Transform = Annotated[TransformSection, WrapValidator(_transform), SerializeAsAny()]

_loaded: dict[str, dict[str, Any]] = {}


def loaded(section: Any) -> list[type[PartSection]]:
    """The sections of other packages that were named so far, of the kind of a section; none of another one."""
    return list(_loaded.get(getattr(section, "group", ""), {}).values())
