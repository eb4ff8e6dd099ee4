"""A pydantic error as one line: the key, what is allowed, what was given, an example."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bgsweep.config.base import NAME_PATTERN, nearest
from bgsweep.config.plugins import PartSection, loaded
from bgsweep.errors import without_password

_LONGEST = 80  # characters of a value that is shown
_DISTRIBUTION = (
    "a searched key needs a distribution, such as {uniform: [0, 0.5]}, {loguniform: [0.01, 1]} or {choice: [1, 2]}; a "
    "fixed value is written without `space.`"
)


def reason(error: ValidationError, root: type[BaseModel]) -> str:
    """The most telling problem of an error as one line: full path of the key, what is wrong, what would be right.

    Args:
        root: the model whose validation raised the error.
    """
    problem = _choose(error.errors())
    names, model, known = _located(problem, root)
    path = ".".join(names)
    if path.startswith("space.parameters."):  # a key's only distribution has no number of its own in the file
        path = re.sub(r"\.0(?=\.|$)", "", path.replace("space.parameters.", "space."))
    if problem["type"] == "extra_forbidden":
        return unknown_key(path, names[-1], known)
    message = _message(problem, _default(root, names), list(keys_of(model)))
    if problem["type"] == "value_error":
        key = message.partition(":")[0].partition(".")[0]
        if key in keys_of(model):  # a section names its own keys
            return f"{path}.{message}" if path else message
    return f"{path}: {message}" if path else message


def unknown_key(path: str, name: str, known: Iterable[str]) -> str:
    """The message for a key that does not exist."""
    return f"{path}: unknown key; {nearest(name, known)}"


def keys_of(annotation: Any) -> dict[str, Any]:
    """Keys and types of a section; of a union, those of all its sections."""
    return {field.alias or name: field.annotation for name, field in _fields(annotation)}


def _fields(annotation: Any) -> list[tuple[str, FieldInfo]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        own = [*annotation.model_fields.items()]
        return own + [pair for part in _joined([annotation]) for pair in part.model_fields.items()]
    parts: list[Any] = list(get_args(annotation))
    return [pair for part in (*parts, *_joined(parts)) for pair in _fields(part)]


def _joined(parts: Sequence[Any]) -> list[type[PartSection]]:
    """The sections of other packages that may stand in place of some of these; each once."""
    if any(part in loaded(part) for part in parts):
        return []
    return next(filter(None, map(loaded, parts)), [])


def _located(problem: Mapping[str, Any], root: type[BaseModel]) -> tuple[list[str], Any, dict[str, Any]]:
    """The keys that lead to a problem as written in the file, the type there, and the keys beside it."""
    names: list[str] = []
    model: Any = root
    known: dict[str, Any] = {}
    for depth, part in enumerate(problem["loc"], start=1):
        if get_origin(model) is dict:
            names.append(str(part))
            model = get_args(model)[1]
        elif isinstance(part, int):
            if problem["type"] not in ("missing", "too_long"):  # those are about the list, not one of its items
                names.append(str(part))
        else:
            here = keys_of(model)
            last_unknown = problem["type"] == "extra_forbidden" and depth == len(problem["loc"])
            if part not in here and not last_unknown:
                continue  # the tag of a union, not a key of the file
            names.append(part)
            known, model = here, here.get(part)
    return names, model, known


def _default(model: Any, path: Sequence[str]) -> str:
    """A key's default as it is written in the file, for an example; empty if it has none."""
    value = None
    for part in path:
        field = next((field for name, field in _fields(model) if part == (field.alias or name)), None)
        if field is None:
            return ""
        value, model = field.default, field.annotation
    plain = isinstance(value, str | int | float | tuple) and not isinstance(value, bool)
    return str(list(value) if isinstance(value, tuple) else value) if plain and value != () else ""


def _choose(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first problem; but for a list where a number is allowed too, the problem of the list."""
    first = problems[0]
    if first["type"] in ("float_type", "int_type") and isinstance(first["input"], list | tuple):
        above = first["loc"][:-1]
        lists = [one for one in problems[1:] if one["loc"][: len(above)] == above]
        # Of several lengths that are allowed, the one that was given; else the longest.
        items = [one for one in lists if one["type"] not in ("too_long", "missing")]
        return items[0] if items else lists[-1] if lists else first
    return first


def _message(problem: Mapping[str, Any], default: str = "", known: Sequence[str] = ()) -> str:
    """Describe the error in a value and the values allowed.

    Args:
        default: the key's default, as an example.
        known: the keys of the section that belongs there, if one does.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    given = problem.get("input")
    example = f", such as {default}" if default else ""
    if kind == "model_type" and context.get("class_name") == "Distribution":
        message = _DISTRIBUTION
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "a section with keys is needed" + (f", one or more of: {', '.join(known)}" if known else "")
    elif kind == "missing" and isinstance(problem["loc"][-1], str):
        return f"missing; give it a value{example}"
    elif kind == "too_long":
        message = f"a list of {context['max_length']} values is needed{example if default[:1] == '[' else ''}"
    elif kind in ("tuple_type", "list_type", "missing", "too_short"):
        message = f"a list in brackets is needed{example if default[:1] == '[' else ', such as [0.1, 0.5]'}"
    elif kind == "union_tag_invalid":
        tags = re.findall("'(.*?)'", context["expected_tags"])
        near = difflib.get_close_matches(context["tag"], tags, n=1, cutoff=0.5)
        meant = f"did you mean `{near[0]}`? " if near else ""
        return f"{context['tag']!r} is not known; {meant}known: {', '.join(tags)}"
    elif kind == "string_pattern_mismatch" and context.get("pattern") == NAME_PATTERN:
        message = "use letters, digits, '.', '-' and '_', with a letter or digit first"
    elif kind in ("int_parsing", "int_type", "int_from_float"):
        message = f"a whole number is needed{example}"
    elif kind in ("float_parsing", "float_type", "finite_number"):
        message = f"a number is needed{example}"
    elif kind in ("bool_parsing", "bool_type"):
        message = "true or false is needed"
    elif kind == "string_type":
        message = f"a text is needed{example}"
    elif kind == "invalid_key":
        return f"{given!r} stands where a key is needed; remove it, and write decimals with a point, such as 0.3"
    else:
        message = problem["msg"].removeprefix("Value error, ")
    return message + _shown(given)


def _shown(given: Any) -> str:
    if isinstance(given, str | int | float | bool | list | tuple):
        text = without_password(repr(given))
        return f" (given: {text})" if len(text) <= _LONGEST else ""
    return " (nothing is given)" if given is None else ""
