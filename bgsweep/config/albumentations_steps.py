"""Albumentations pipelines that a configuration writes out (`views.albumentations`), in place of bgsweep's own colors.

    albumentations:
      - ColorJitter: {brightness: [0.6, 1.4], contrast: [0.6, 1.4], p: 0.8}
      - OneOf: {transforms: [{GaussianBlur: {sigma_limit: [0.1, 2.0]}}, Sharpen], p: 0.5}

Names and arguments are Albumentations' own, as its `to_dict` writes them.
"""

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from bgsweep.config.base import nearest
from bgsweep.config.messages import reason

_CLASS = "__class_fullname__"
_GROUPS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")
# These take a mask too, but cover parts of the image without moving any.
_ERASERS = ("CoarseDropout", "Erasing", "GridDropout", "PixelDropout")
_OTHER_TYPES = ("FromFloat", "Normalize", "ToFloat")


def plain(value: Any) -> Any:
    """Steps as they are stored: `{NAME: {ARGUMENT: VALUE}}` each, in one list, or in a list for each kind of view.

    Raises:
        ValueError: something else is given.
    """
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ValueError("a list of transforms is needed, such as [{ColorJitter: {p: 0.8}}, ToGray]")
    if not any(isinstance(each, list | tuple) for each in value):
        return [_step(each) for each in value]
    if len(value) not in (2, 3) or not all(isinstance(each, list | tuple) for each in value):
        raise ValueError(
            "give one list of transforms, two (first view, others), or three (first view, second view, small crops)"
        )
    return [[_step(each) for each in steps] for steps in value]


def _step(step: Any) -> dict[str, dict[str, Any]]:
    if isinstance(step, str):
        return {step: {}}
    step = _lists(step)
    if isinstance(step, Mapping) and _CLASS in step:  # what `to_dict` writes
        step = {step[_CLASS]: {key: value for key, value in step.items() if key != _CLASS}}
    if not (isinstance(step, Mapping) and len(step) == 1):
        raise ValueError(f"{step}: a transform is written NAME or NAME: {{ARGUMENT: VALUE, …}}")
    ((name, arguments),) = step.items()
    if not (isinstance(name, str) and isinstance(arguments, Mapping | None)):
        raise ValueError(f"{step}: a transform is written NAME or NAME: {{ARGUMENT: VALUE, …}}")
    given = dict(arguments or {})
    if name in _GROUPS and isinstance(given.get("transforms"), list | tuple):
        given["transforms"] = [_step(each) for each in given["transforms"]]
    return {name: given}


def _lists(value: Any) -> Any:
    """A value with lists for tuples, as it is read back from a file."""
    if isinstance(value, Mapping):
        return {key: _lists(each) for key, each in value.items()}
    return [_lists(each) for each in value] if isinstance(value, list | tuple) else value


def per_view(steps: Sequence[Any]) -> list[Sequence[Any]]:
    """The lists of steps: one, two or three, as `plain` takes them."""
    return list(steps) if any(isinstance(each, list | tuple) for each in steps) else [steps]


def check(steps: Sequence[Any]) -> None:
    """Raise ValueError, with the path of the mistake below `views`, unless all transforms can be built."""
    try:
        _albumentations()
    except ValueError as error:
        raise ValueError(f"albumentations: {error}") from error
    lists = per_view(steps)
    for number, each in enumerate(lists):
        try:
            build(each)
        except ValueError as error:
            raise ValueError(f"albumentations.{f'{number}.' if len(lists) > 1 else ''}{error}") from error


def build(steps: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Any]:
    """The transforms of one list of steps.

    Raises:
        ValueError: Albumentations is not installed, or has no such transform or argument, or the transform cannot be
            used on a view. The message begins with the transform's name.
    """
    library = _albumentations()
    return [_transform(library, name, arguments) for step in steps for name, arguments in step.items()]


def _albumentations() -> Any:
    """Albumentations, imported without torch: of it only `ToTensorV2` needs torch, which takes half a gigabyte."""
    blocked = not {"torch", "albumentations"} & sys.modules.keys()
    if blocked:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        import albumentations
    except ImportError as error:
        raise ValueError(
            "Albumentations is not installed; pip install albumentations, or use jitter, gray, blur and solarize"
        ) from error
    finally:
        if blocked:
            del sys.modules["torch"]
    return albumentations


def _transform(library: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    known = set(usable(library))
    if name not in known:
        raise ValueError(f"{name}: {_refusal(library, name, known)}")
    kind = getattr(library, name)
    accepted = [each for each in inspect.signature(kind.__init__).parameters if each not in ("self", "strict")]
    for argument in arguments:
        if argument not in accepted:
            raise ValueError(f"{name}.{argument}: unknown argument; {nearest(argument, accepted)}")
    given = dict(arguments)
    try:
        if name not in _GROUPS:
            with warnings.catch_warnings():
                # Of some mistakes Albumentations only warns, and takes its default.
                warnings.simplefilter("error", UserWarning)
                transform = kind(**given)
        elif not 0 <= given.get("p", 1) <= 1:  # Albumentations does not check that of groups
            raise ValueError(f"p: a probability is needed, 0 to 1 (given: {given['p']})")
        else:
            transform = kind(**given | {"transforms": build(given.get("transforms", ()))})
    except ValueError as error:
        cause = error.__cause__
        described = reason(cause, kind.InitSchema) if isinstance(cause, ValidationError) else str(error)
        raise ValueError(f"{name}.{described}") from error
    except (TypeError, AttributeError, IndexError, UserWarning) as error:
        raise ValueError(f"{name}: {error}; see its arguments in Albumentations' documentation") from error
    if inputs := getattr(transform, "targets_as_params", None):
        raise ValueError(f"{name}: needs {', '.join(inputs)} besides the image, which views do not have")
    return transform


def usable(library: Any) -> Iterator[str]:
    """Names of the transforms that change the pixels of an image without moving any."""
    base = library.ImageOnlyTransform
    for name, kind in vars(library).items():
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base and name not in _OTHER_TYPES:
            yield name
    yield from (*_GROUPS, *_ERASERS)


def default_of(name: str, argument: str) -> Any:
    """An argument's default in Albumentations.

    Raises:
        KeyError: there is no such transform or argument, or it has no default.
    """
    library = _albumentations()
    if name not in usable(library):
        raise KeyError(name)
    default = inspect.signature(getattr(library, name).__init__).parameters[argument].default
    if default is inspect.Parameter.empty:
        raise KeyError(argument)
    return _lists(default)


def _refusal(library: Any, name: str, known: set[str]) -> str:
    if name in _OTHER_TYPES or name == "ToTensorV2":
        return "views stay uint8 until they are on the device, which normalizes them; leave it out"
    if isinstance(kind := getattr(library, name, None), type) and issubclass(kind, library.BasicTransform):
        return (
            "is not a pixel-level transform, and the foreground mask would no longer fit; crops and flips are set by "
            "views.scale, views.ratio and views.flip"
        )
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"Albumentations has no such transform; {f'did you mean `{near[0]}`?' if near else 'see its documentation'}"
