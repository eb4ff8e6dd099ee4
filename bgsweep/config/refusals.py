"""Words for what pydantic refuses: what is allowed, what was given, and an example."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bgsweep.config.base import NAME_PATTERN
from bgsweep.errors import without_password

_LONGEST = 80  # characters of a value that is shown
_DISTRIBUTION = (
    "a searched key needs a distribution, such as {uniform: [0, 0.5]}, {loguniform: [0.01, 1]} or {choice: [1, 2]}; a "
    "fixed value is written without `space.`"
)


def choose(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The problem to tell: the first, but for a list where a number may stand too what is wrong with the list."""
    first = problems[0]
    if first["type"] in ("float_type", "int_type") and isinstance(first["input"], list | tuple):
        place = first["loc"][:-1]
        return next((one for one in problems[1:] if one["loc"][: len(place)] == place), first)
    return first


def words(problem: Mapping[str, Any], shape: str = "", known: Sequence[str] = ()) -> str:
    """What is wrong with a value.

    Args:
        shape: the value that the key has by default, as an example.
        known: the keys of the section that was to stand there, if it was one.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    given = problem.get("input")
    example = f", such as {shape}" if shape else ""
    if kind == "model_type" and context.get("class_name") == "Distribution":
        message = _DISTRIBUTION
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "a section with keys is needed" + (f", one or more of: {', '.join(known)}" if known else "")
    elif kind == "too_long":
        message = f"a list of {context['max_length']} values is needed{example if shape[:1] == '[' else ''}"
    elif kind in ("tuple_type", "list_type", "missing", "too_short"):
        message = f"a list in brackets is needed{example if shape[:1] == '[' else ', such as [0.1, 0.5]'}"
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
    else:
        message = problem["msg"].removeprefix("Value error, ")
    return message + _shown(given)


def _shown(given: Any) -> str:
    if isinstance(given, str | int | float | bool | list | tuple):
        text = without_password(repr(given))
        return f" (given: {text})" if len(text) <= _LONGEST else ""
    return " (nothing is given)" if given is None else ""
