"""Read a YAML file, apply `key=value` overrides, validate."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bgsweep.config.albumentations_steps import plain
from bgsweep.config.base import part_of
from bgsweep.config.columns import Columns
from bgsweep.config.evaluation import SuiteConfig
from bgsweep.config.mask_format import MaskFormat
from bgsweep.config.masks import MaskTraining
from bgsweep.config.messages import reason
from bgsweep.config.sweep import SweepConfig
from bgsweep.config.yaml_file import parse_yaml, read_yaml
from bgsweep.errors import UserError


def load(path: str | Path, overrides: Sequence[str] = (), searched: bool = True) -> SweepConfig:
    """Read a YAML file, apply ``key=value`` overrides, and validate.

    Args:
        searched: False for commands that use only the experiment; mistakes in `space` and `search` are ignored.

    Raises:
        UserError: one line with the file, the key's full path, the range or the nearest valid name.
    """
    path = Path(path)
    tree = _mapping(path, "experiment")
    tree.setdefault("name", re.sub("[^A-Za-z0-9_.-]+", "-", path.stem).lstrip("_.-") or "bgsweep")
    config = resolve(tree, overrides, str(path), searched)
    try:
        config.check_draws()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config


def load_suite(suite: str | Path | Mapping[str, Any] | SuiteConfig) -> SuiteConfig:
    """Read and validate an evaluation suite: the path of its YAML file, or its sections.

    Raises:
        UserError: as `load`.
    """
    path = Path(suite) if isinstance(suite, str | Path) else None
    tree = suite if path is None else _mapping(path, "data")
    try:
        return SuiteConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path or 'suite'}: {reason(error, SuiteConfig)}") from error


def _mapping(path: Path, section: str) -> dict[str, Any]:
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        held = "has no settings" if tree is None else f"a {type(tree).__name__}"
        raise UserError(f"{path}: {held}; begin with `{section}:`, as search_spaces/ do")
    return tree


def resolve(
    tree: dict[str, Any], overrides: Iterable[str] = (), origin: str = "configuration", searched: bool = True
) -> SweepConfig:
    """Apply overrides, whose keys are relative to ``experiment`` or name a section, to a parsed file; validate it."""
    for override in overrides:
        _override(tree, override)
    if not searched:
        given = tree.get("search")
        kept = {key: value for key, value in given.items() if key == "wait_minutes"} if isinstance(given, dict) else {}
        tree = {key: value for key, value in tree.items() if key != "space"} | {"search": kept}
    try:
        return SweepConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {reason(error, SweepConfig)}") from error


def mask_training(overrides: Iterable[str] = ()) -> MaskTraining:
    """Settings of `bgsweep masks train` from ``key=value`` words.

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
        raise UserError(reason(error, MaskTraining)) from error


def image_columns(words: Iterable[str]) -> Columns:
    """`data.columns` from the ``key=name`` words of a command.

    Raises:
        UserError: as `load`.
    """
    pairs = [word.partition("=") for word in words]
    for key, equals, _ in pairs:
        if not equals:
            raise UserError(f"--columns: {key!r} is not KEY=NAME, such as label=category")
    try:
        return Columns.model_validate({key: name for key, _, name in pairs})
    except ValidationError as error:
        raise UserError(f"--columns: {reason(error, Columns)}") from error


def mask_format(**given: Any) -> MaskFormat:
    """A mask format from the options of a command; None stands for an option that is not given.

    Raises:
        UserError: as `load`.
    """
    try:
        return MaskFormat.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise UserError(f"--{reason(error, MaskFormat)}") from error


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
        if isinstance(branch, dict) and branch.get(part) is None:
            branch[part] = {}
        if part == "albumentations" and isinstance(branch, dict):
            # Of a transform that is just a name the arguments get a place.
            with suppress(ValueError):  # told when the whole is validated
                branch[part] = plain(branch[part])
        try:
            branch = part_of(branch, part)
        except KeyError:
            raise UserError(f"{override!r}: no entry {part}, or several; name it by its number, from 0 on") from None
        if not isinstance(branch, dict | list):
            raise UserError(f"{override!r}: {part} is a single value, not a section; write it as {part}=VALUE")
    if not isinstance(branch, dict):
        raise UserError(f"{override!r}: {path[-2]} is a list, and {path[-1]} none of its keys; override the whole list")
    branch[path[-1]] = value
