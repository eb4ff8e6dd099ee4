"""JSON Schema of the YAML files, with which editors complete and check them."""

from collections.abc import Iterable
from typing import Any

from bgsweep.config.base import Section
from bgsweep.config.evaluation import SuiteConfig
from bgsweep.config.methods import METHODS
from bgsweep.config.metrics import METRIC_PARTS
from bgsweep.config.plugins import DatasetSection, TransformSection
from bgsweep.config.sweep import SweepConfig

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def sweep_schema() -> dict[str, Any]:
    """The schema of a sweep's or experiment's file, as it is written: dotted keys in `space`, empty sections."""
    schema = _schema(SweepConfig)
    parts = schema["$defs"]
    parts["Space"] = _space()
    parts["Distribution"]["properties"]["when"]["additionalProperties"] = True  # a value, or a list of them
    for part in (DatasetSection, TransformSection):  # whose keys only their packages know
        parts[part.__name__]["additionalProperties"] = True
    method = parts["Experiment"]["properties"]["method"]
    _open_to_others(method, "a method of another package", METHODS)
    return schema


def suite_schema() -> dict[str, Any]:
    """The schema of an evaluation suite's file."""
    return _schema(SuiteConfig)


def _schema(section: type[Section]) -> dict[str, Any]:
    schema = section.model_json_schema(by_alias=True)
    for part in [schema, *schema["$defs"].values()]:
        for name, value in part.get("properties", {}).items():
            if "$ref" in value:  # `search:` by itself is a section with its defaults
                described = {key: item for key, item in value.items() if key != "$ref"}
                part["properties"][name] = described | {"anyOf": [{"$ref": value["$ref"]}, {"type": "null"}]}
    metric = schema["$defs"]["Evaluate"]["properties"]["metrics"]["items"]
    _open_to_others(metric, "a metric of another package", METRIC_PARTS)
    metric["anyOf"].append({"type": "string", "title": "a metric with its default settings"})
    return {"$schema": _DIALECT, **schema}


def _open_to_others(union: dict[str, Any], title: str, built_in: Iterable[str]) -> None:
    """Let a union of built-in sections take another package's too, whose keys are not known here."""
    name = {"type": "string", "not": {"enum": list(built_in)}}
    plugged_in = {"type": "object", "title": title, "required": ["name"], "properties": {"name": name}}
    union["anyOf"] = [*union.pop("oneOf"), plugged_in]
    del union["discriminator"]


def _space() -> dict[str, Any]:
    one = {"$ref": "#/$defs/Distribution"}
    several = {"type": "array", "items": one}
    points = {"type": ["array", "null"], "items": {"type": "object"}, "description": "fixed points, tried first"}
    return {
        "type": "object",
        "title": "Space",
        "description": "dotted keys of the experiment with their distributions",
        "properties": {"points": points},
        "additionalProperties": {"anyOf": [one, several]},
    }
