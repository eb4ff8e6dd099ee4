"""Safe YAML: 1e-3 is a number, a key given twice is an error, and size and depth are limited."""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from bgsweep.errors import UserError, one_line

_DEEPEST = 50  # levels; PyYAML is recursive
_LARGEST = 100_000  # values


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, closer to YAML 1.2."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {_DEEPEST} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse duplicate keys: PyYAML would silently take the last."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                raise _DuplicateKeyError(key.value, lines[key.value], line)
        return node


# YAML 1.1, which PyYAML implements, reads 1e-3 as text because it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


class _DuplicateKeyError(yaml.YAMLError):
    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(f"line {second}: the key `{key}` is already given in line {first}; keep one of them")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: it cannot be read, or is not valid YAML.
    """
    try:
        return _parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*.y*ml")], n=1)
        meant = f"did you mean {path.with_name(near[0])}?" if near else "name a YAML file"
        raise UserError(f"{path}: {error.strerror}; {meant}") from error
    except IsADirectoryError as error:
        inside = ", ".join(sorted(one.name for one in path.glob("*.y*ml"))[:5])
        raise UserError(f"{path}: a folder; name a YAML file{f' in it, such as {inside}' if inside else ''}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a YAML file that can be read") from error
    except _DuplicateKeyError as error:
        raise UserError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text in UTF-8; save it with that encoding, or name a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise UserError(f"{path}: not valid YAML: {_described(error)}") from error


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a text such as ``[0.2, 1e-3]``; raises `UserError`, which names the ``origin``."""
    try:
        return _parse(text)
    except _DuplicateKeyError as error:
        raise UserError(f"{origin!r}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{origin!r}: the value is not valid YAML: {_described(error)}") from error


def _parse(text: str) -> Any:
    value = yaml.load(text, _Loader)
    if _size(value, frozenset(), {}) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} values, which aliases (`*name`) can make of few lines")
    return value


def _size(value: Any, above: frozenset[int], known: dict[int, int]) -> int:
    """Number of values within a value; raises `ValueError` for text that cannot be a file name."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text holds a NUL character")
        value.encode()  # half a surrogate pair, written as "\ud800", cannot be encoded
    if not isinstance(value, dict | list):
        return 1
    if id(value) in above:
        raise ValueError("a value contains itself")
    if id(value) not in known:
        children = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(child, above | {id(value)}, known) for child in children)
    return known[id(value)]


def _described(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return one_line(error)
