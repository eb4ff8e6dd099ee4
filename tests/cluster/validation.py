"""Errors in the files of cluster/, found without a cluster: every key is compared with a schema or an API."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import kubernetes_validate
import ray.autoscaler
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start
from referencing import Registry, Resource

CLUSTER = Path(__file__).parents[2] / "cluster"
SCHEMAS: dict[str, Any] = yaml.safe_load((Path(__file__).with_name("schemas.yaml")).read_text(encoding="utf-8"))
STRICT = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.37.0-local-strict"
KINDS = {
    "Deployment": "Deployment-apps",
    "StatefulSet": "StatefulSet-apps",
    "Service": "Service",
    "PersistentVolumeClaim": "PersistentVolumeClaim",
}
RAY_START = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}
TYPES = {"str": str, "int": int, "bool": bool}


def read(path: Path) -> list[Any]:
    """A file's documents; through JSON, so that what YAML's anchors share is no longer one object."""
    documents: list[Any] = json.loads(json.dumps(list(yaml.safe_load_all(path.read_text(encoding="utf-8")))))
    return documents


def problems(path: Path, document: Any) -> list[str]:
    """All that is wrong with one document of a file; nothing where it is well."""
    if path.parent.name == "kuberay" and path.name != "values.yaml":
        kind = document.get("kind")
        if kind in SCHEMAS:
            return list(_walk(SCHEMAS[kind], document))
        return _kubernetes(KINDS[kind], document) if kind in KINDS else [f"kind {kind}: unknown"]
    if path.name in SCHEMAS:
        return list(_walk(SCHEMAS[path.name], document))
    return _ray_up(path.stem, document)


def _ray_up(name: str, document: Any) -> list[str]:
    found = [error.message for error in jsonschema.Draft7Validator(_ray_schema()).iter_errors(document)]
    for node in document.get("available_node_types", {}).values():
        found += _node(name, node.get("node_config", {}))
        found += [f"resource {key}" for key in node.get("resources", {}) if key not in ("CPU", "GPU")]
    if not found:
        try:
            validate_config(prepare_config(document))
        except Exception as error:  # Ray raises a click exception, ValueError and others
            found.append(str(error))
    return found


def _node(name: str, config: Any) -> list[str]:
    if name == "gcp":
        return list(_walk(SCHEMAS["gcp node"], config))
    shape = _run_instances()
    unknown = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **config}, shape)
    return [unknown.generate_report()] if unknown.has_errors() else []


@functools.cache
def _run_instances() -> Any:
    model = botocore.session.Session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


@functools.cache
def _ray_schema() -> dict[str, Any]:
    """Ray's own, with every section closed that it leaves open."""
    schema: dict[str, Any] = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema and "patternProperties" not in schema:
            schema["additionalProperties"] = False
        for inner in schema.values():
            _close(inner)


def _kubernetes(kind: str, value: Any) -> list[str]:
    """Hold a value against a type of Kubernetes: PodTemplateSpec, Deployment-apps, ObjectMeta-meta."""
    return list(_found(kind, json.dumps(value)))


@functools.cache
def _found(kind: str, text: str) -> tuple[str, ...]:
    return tuple(error.message for error in _validator(kind).iter_errors(json.loads(text)))


@functools.cache
def _validator(kind: str) -> Any:
    schema = json.loads((STRICT / f"{kind.lower()}-v1.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema, registry=_registry())


@functools.cache
def _registry() -> Any:
    definitions = json.loads((STRICT / "_definitions.json").read_text(encoding="utf-8"))
    return Resource.from_contents(definitions) @ Registry()


def _walk(schema: Any, value: Any, place: str = "") -> Iterator[str]:
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{place}: not a mapping"
            return
        keys = {key.rstrip("!"): inner for key, inner in schema.items()}
        yield from (f"{place}.{key[:-1]}: missing" for key in schema if key[-1] == "!" and key[:-1] not in value)
        for key, inner in value.items():
            if key not in keys and "*" not in keys:
                yield f"{place}.{key}: unknown"
            else:
                yield from _walk(keys.get(key, keys.get("*")), inner, f"{place}.{key}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{place}: not a list"
            return
        for index, inner in enumerate(value):
            yield from _walk(schema[0], inner, f"{place}[{index}]")
    elif schema == "ray start":
        yield from (f"{place}.{key}: not an option of ray start" for key in value if key not in RAY_START)
    elif schema == "pod":
        yield from (f"{place}: {problem}" for problem in _kubernetes("PodTemplateSpec", value))
    elif schema in TYPES and not isinstance(value, TYPES[schema]):
        yield f"{place}: {value!r} is not {schema}"
    elif schema.startswith("core "):
        yield from (f"{place}: {problem}" for problem in _kubernetes(schema.removeprefix("core "), value))
