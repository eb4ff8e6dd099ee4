"""Base class of all configuration sections, and number types that they share."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*=[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A label of Ray's nodes, KEY=VALUE."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of sweeps, which become folders and MLflow experiments."""


class Section(BaseModel):
    """A frozen section of the YAML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        """Give an empty section, such as ``search:`` by itself, its defaults."""
        if not isinstance(value, dict):
            return value
        names = {field.alias or name for name, field in cls.model_fields.items() if _is_section(field.annotation)}
        return {key: item for key, item in value.items() if item is not None or key not in names}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested sections under dotted keys, such as ``background.remove``."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def part_of(branch: Any, part: str) -> Any:
    """The value under one part of a dotted key; of a list, by its number, or by the name in the only entry that has it.

    Raises:
        KeyError: there is none.
    """
    if isinstance(branch, Mapping):
        return branch[part]
    if not isinstance(branch, list | tuple):
        raise KeyError(part)
    if part.isdigit() and int(part) < len(branch):
        return branch[int(part)]
    having = [each for each in branch if isinstance(each, Mapping) and part in each]
    if len(having) != 1:
        raise KeyError(part)
    return having[0][part]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the most similar known one, and all known ones."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"did you mean `{near[0]}`? " if near else "") + f"known: {', '.join(known)}"


def multiple(value: int, of: int) -> int:
    """The largest multiple of `of` up to a value, and at least `of`: an example in an error."""
    return max(1, value // of) * of


def divisor(value: int, of: int) -> int:
    """The largest divisor of `of` up to a value: an example in an error."""
    return next(number for number in range(min(value, of), 0, -1) if of % number == 0)


def _shareable(gpus: float | None) -> float | None:
    if gpus is not None and gpus > 1 and gpus % 1:
        raise ValueError(f"{gpus:g} GPUs cannot be assigned: give a whole number, or a share below 1 of one GPU")
    return gpus


GPUs = Annotated[NonNegative | None, AfterValidator(_shareable)]
"""GPUs of a process, or a share of one; None where the device decides (`gpus_for`)."""


def gpus_for(gpus: float | None, device: str, available: bool) -> float:
    """GPUs of each process: as set, else one where the device is cuda, and for auto where GPUs are ``available``."""
    if device == "cpu":
        return 0.0
    return float(device == "cuda" or available) if gpus is None else gpus
