"""Reference pages of the site as Markdown: the command line from its parser, configuration keys from their schema.

`scripts/site_hooks.py` adds them to the site; this module needs no MkDocs, so that tests read the pages without it.
"""

import argparse
import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import bgsweep
from bgsweep import testing
from bgsweep.cli.main import command_line
from bgsweep.config.methods import METHODS
from bgsweep.config.schema import suite_schema, sweep_schema

PARTS = {
    "train": "Train and search",
    "runs": "Sweeps",
    "models": "Registered encoders",
    "evaluate": "Evaluate and export",
    "data": "Images and this machine",
    "masks": "Masks",
    "files": "Files to start from",
}
"""Modules of `bgsweep.cli`, each a page of commands."""

SECTIONS = {
    "data": "Images and masks",
    "views": "Views",
    "background": "Background augmentations",
    "method": "Methods",
    "training": "Encoder, optimizer, training and workers",
    "search": "Space, search, evaluation and registration",
    "suite": "Files of evaluation suites",
}
"""Pages of configuration keys; sections that are not named here are on that of `training` or `search`."""

INTERFACES = (
    "bgsweep.methods.base.Method",
    "bgsweep.methods.base.Views",
    "bgsweep.methods.base.Step",
    "bgsweep.config.methods.MethodSection",
    "bgsweep.evaluation.evaluator.EvaluatorClass",
    "bgsweep.evaluation.evaluator.Evaluator",
    "bgsweep.evaluation.context.EvalContext",
    "bgsweep.evaluation.metrics.base.OnlineMetric",
    "bgsweep.evaluation.metrics.base.Measured",
    "bgsweep.config.metrics.MetricSection",
    "bgsweep.sweep.searchers.base.TrialSearcher",
    "bgsweep.sweep.stopping_rule.StoppingRule",
    "bgsweep.data.sample.ImageDataset",
    "bgsweep.data.sample.Sample",
    "bgsweep.config.plugins.DatasetSection",
    "bgsweep.config.plugins.TransformSection",
    "bgsweep.masks.registry.MaskMethodClass",
)
"""Classes that plug-ins derive from or are given."""


def pages() -> dict[str, str]:
    """All reference pages: Markdown by path below `docs/`."""
    found = {f"reference/commands-{part}.md": text for part, text in _command_pages().items()}
    found |= {f"reference/keys-{section}.md": text for section, text in _key_pages().items()}
    return found | {
        "reference/python.md": _python(),
        "reference/interfaces.md": _interfaces(),
        "reference/testing.md": _testing(),
    }


# The command line


def commands(parser: argparse.ArgumentParser | None = None) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, also of those in groups."""
    parser = parser or command_line()
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for each in action.choices.values():
            yield from commands(each)


def _command_pages() -> dict[str, str]:
    found = {part: f"# Commands: {title.lower()}\n" for part, title in PARTS.items()}
    for parser in commands():
        module = type(parser.get_default("command")).__module__.rpartition(".")[2]
        found["masks" if " masks " in parser.prog else module] += f"\n{_command(parser)}"
    return found


def _command(parser: argparse.ArgumentParser) -> str:
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip().replace(" [-h]", "")
    rows = [_argument(parser, action) for action in parser._actions if action.dest != "help"]
    lines = [f"## {parser.prog}", "", f"{parser.description}", "", "```", *_wrapped(usage), "```", ""]
    return "\n".join([*lines, "| argument | meaning |", "|---|---|", *rows, ""])


def _wrapped(usage: str, width: int = 80) -> list[str]:
    """A usage line broken between its arguments."""
    lines = [""]
    for part in re.findall(r"\[.*?\](?=\s|$)|\S+", usage):
        if len(lines[-1]) + len(part) >= width:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return lines


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    names = action.option_strings or [""]
    value = (
        ""
        if action.nargs == 0
        else formatter._format_args(
            action,
            formatter._get_default_metavar_for_positional(action) if not action.option_strings else action.dest.upper(),
        )
    )
    shown = ", ".join(f"{name} {value}".strip() for name in names)
    return f"| {_code(shown)} | {_cell(formatter._expand_help(action))} |"


# Configuration keys


def keys() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each key of a sweep's file by its dotted name, as overrides are written."""
    schema = sweep_schema()
    found = dict(_keys(schema, schema["$defs"]))
    for name, section in METHODS.items():
        ours = dict(_keys(section.model_json_schema(by_alias=True), schema["$defs"]))
        found |= {f"method.{key}" if key == "name" else f"method({name}).{key}": value for key, value in ours.items()}
    found["method.name"] = {"enum": list(METHODS), "default": "moco_v2", "description": _METHOD}
    return {key.removeprefix("experiment."): value for key, value in found.items()}


_METHOD = "or a class of another package, package.module:Class"


def suite_keys() -> dict[str, dict[str, Any]]:
    """The same of a suite's file."""
    schema = suite_schema()
    return dict(_keys(schema, schema["$defs"]))


def _keys(schema: Mapping[str, Any], parts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in schema.get("properties", {}).items():
        section = _section(value, parts)
        if section is None or not section.get("properties"):
            if prefix + name != "experiment.method":
                yield prefix + name, value
        else:
            yield from _keys(section, parts, f"{prefix}{name}.")


def _section(value: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a key holds; None for values, and for sections that plain values may replace."""
    options = [each for each in value.get("anyOf", [value]) if each.get("type") != "null"]
    if len(options) != 1 or "$ref" not in options[0]:
        return None
    found: Mapping[str, Any] = parts[options[0]["$ref"].rpartition("/")[2]]
    return found


def _key_pages() -> dict[str, str]:
    found = {section: f"# Keys: {title.lower()}\n" for section, title in SECTIONS.items()}
    tables: dict[str, dict[str, list[str]]] = {section: {} for section in SECTIONS}
    schema = sweep_schema()
    for key, value in keys().items():
        top = key.partition(".")[0].partition("(")[0]
        tables[_page_of(top)].setdefault(_table_of(key), []).append(_key(key, value, schema["$defs"]))
    parts = suite_schema()["$defs"]
    for key, value in suite_keys().items():
        if not key.startswith("data."):
            tables["suite"].setdefault(key.partition(".")[0] if "." in key else "", []).append(_key(key, value, parts))
    for page, by_title in tables.items():
        found[page] += _PREFACE["suite" if page == "suite" else "sweep"]
        for title, rows in sorted(by_title.items(), key=lambda item: item[0] != ""):
            told = _cell(_told(title, parts if page == "suite" else schema["$defs"]))
            heading = f"## {title}\n\n{told}\n\n" if title else ""
            found[page] += f"\n{heading}| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)
    return found


def _told(title: str, parts: Mapping[str, Any]) -> str:
    """The first paragraph about a section."""
    classes = {f"method.name: {name}": section.__name__ for name, section in METHODS.items()}
    name = classes.get(title, title.title().replace("_", ""))
    return str(parts.get(name, {}).get("description", "")).partition("\n\n")[0]


_PREFACE = {
    "sweep": "\nIn a file these keys are below `experiment:` unless they begin with `space`, `search`, `evaluate` or "
    "`register`; on the command line and in `space:` they are written as here: `background.remove=0.3`. `bgsweep "
    "schema` prints the same for editors.\n",
    "suite": "\nKeys of the file that `bgsweep evaluate --data` takes; `data` has the [keys of an experiment's]"
    "(keys-data.md). `bgsweep schema --suite` prints the same for editors.\n",
}


def _page_of(top: str) -> str:
    if top in SECTIONS:
        return top
    return "search" if top in ("name", "space", "search", "evaluate", "register") else "training"


def _table_of(key: str) -> str:
    top, dot, _ = key.partition(".")
    name = re.sub(r"method\((\w+)\)", r"method.name: \1", top)
    return name if dot else ""


def _key(key: str, value: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    shown = re.sub(r"^method\(\w+\)", "method", key)
    default = f"`{json.dumps(value['default'], ensure_ascii=False)}`" if "default" in value else "required"
    return f"| `{shown}` | {_values(value, parts)} | {default} | {_cell(value.get('description', ''))} |\n"


def _values(value: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """The values that a schema allows, in words."""
    if "anyOf" in value or "oneOf" in value:
        options = [_values(each, parts) for each in value.get("anyOf", value.get("oneOf"))]
        return " or ".join(dict.fromkeys(options))
    if "$ref" in value:
        part = parts[value["$ref"].rpartition("/")[2]]
        return f"`{{{', '.join(part.get('properties', {}))}}}`" if part.get("properties") else "a mapping"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{each}`" for each in value.get("enum", [value.get("const")]))
    kind = value.get("type", "any value")
    if kind == "array":
        if items := value.get("prefixItems"):
            return f"[{', '.join(_values(each, parts) for each in items)}]"
        return f"list of {_values(value.get('items', {}), parts)}"
    named = {"object": "a mapping", "string": "text", "boolean": "true or false", "integer": "whole number"}
    return named.get(str(kind), str(kind)) + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    if (value.get("minimum"), value.get("maximum")) == (0, 1):
        return " from 0 to 1"
    signs = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    found = [f"{sign} {value[name]:g}" for name, sign in signs.items() if name in value]
    return f" {', '.join(found)}" if found else ""


# Python


@cache
def public_names() -> dict[str, str]:
    """The functions and classes of `import bgsweep as bg`, with their modules."""
    return {name: module for name, module in bgsweep._ELSEWHERE.items() if name != "SweepConfig"}


def _python() -> str:
    where = {"sweep": "bgsweep.api.sweep", "Sweep": "bgsweep.config.sweep.SweepConfig"}
    where |= {"Experiment": "bgsweep.config.experiment.Experiment"}
    lines = ["# Python", "", "Names of `import bgsweep as bg`; [From Python](../python.md) shows them in use."]
    for name, module in sorted(public_names().items(), key=lambda item: (item[0][0].isupper(), item[0])):
        # The classes are their keys, which have pages of their own.
        lines += _documented(where.get(name, f"{module}.{name}"), f"bg.{name}", members=not name[0].isupper())
        if name in ("Sweep", "Experiment"):
            lines += ["", "Its keys are those of the [configuration](keys-data.md)."]
    encoder = "bgsweep.workflows.load_encoder.LoadedEncoder"
    return "\n".join([*lines, *_documented(encoder, "LoadedEncoder"), ""])


def _documented(path: str, heading: str, label: str = "", members: bool = True) -> list[str]:
    """A section that mkdocstrings fills from a docstring."""
    options = [
        f"heading: {heading}",
        f"toc_label: {label or heading}",
        "heading_level: 2",
        *([] if members else ["members: false"]),
    ]
    return ["", f"::: {path}", "    options:", *(f"      {option}" for option in options)]


def _interfaces() -> str:
    lines = ["# Interfaces of plug-ins", "", "Classes that [plug-ins](../plug-ins.md) derive from, or are given."]
    for path in INTERFACES:
        lines += _documented(path, path, path.rpartition(".")[2])
    return "\n".join([*lines, ""])


def checks() -> list[str]:
    """The checks of `bgsweep.testing`, in their order."""
    found = ast.parse(inspect.getsource(testing)).body
    return [each.name for each in found if isinstance(each, ast.FunctionDef) and each.name.startswith("check_")]


def _testing() -> str:
    lines = ["# bgsweep.testing", "", (testing.__doc__ or "").strip()]
    for name in checks():
        lines += _documented(f"bgsweep.testing.{name}", name)
    return "\n".join([*lines, ""])


# Cells of tables


def _cell(text: str) -> str:
    """Text in a cell of a table: neither markup nor the end of the cell."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = [part if part.startswith("`") else re.sub(r"([*_<>\[\]{}|\\])", r"\\\1", part) for part in parts]
    return "".join(plain).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _code(text: str) -> str:
    return f"`{text}`"
