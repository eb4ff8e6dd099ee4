"""MLflow's model registry: versions with their lineage and key metrics, and their aliases."""

import difflib
import functools
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bgsweep.config.evaluation import CHALLENGER, check_alias
from bgsweep.errors import UserError
from bgsweep.tracking.client import as_global_uri, mlflow_client, pages, sqlite_file
from bgsweep.tracking.provenance import user
from bgsweep.tracking.tracker import Tracker

NUMBERS = {"test/knn/top1": "test_knn_top1", "test/linear/top1": "test_linear_top1", "test/knn/bg_gap": "test_bg_gap"}
"""Metrics of a version that `bgsweep models` shows: tags, and their names in versions of earlier releases."""

MADE_BY = "Written by bgsweep"
"""Beginning of each description that bgsweep writes, and may replace."""

DESCRIPTION_LENGTH = 5000  # MLflow's limit

LINEAGE = ("sweep", "trial", "digest", "images_digest", "masks_digest", "git_commit")
"""Tags of a version that `bgsweep models` shows: sweep, trial, data, masks and code."""


def open_registered_model(tracker: Tracker, name: str) -> None:
    """Create a registered model if it does not exist; sweeps call it early, to check that the registry is writable.

    Raises:
        UserError: MLflow rejects it.
    """
    from mlflow.exceptions import MlflowException

    def make() -> None:
        try:
            tracker.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    tracker.ask(make)


def add_version(tracker: Tracker, run: str, model: str, name: str, tags: Mapping[str, Any]) -> int:
    """Register a logged model of a run as a new version; returns its number."""
    open_registered_model(tracker, name)
    texts = {key: str(value) for key, value in tags.items()}
    # MLflow's SQL registry looks up the model with a client of its own, which uses the global tracking URI.
    with as_global_uri(tracker.address):
        made = tracker.ask(
            lambda: tracker.client.create_model_version(name, f"models:/{model}", run, tags=texts, model_id=model)
        )
    return int(made.version)


def give_alias(tracker: Tracker, name: str, version: int, alias: str) -> None:
    """Set the alias by which ``models:/NAME@ALIAS`` finds a version; with another than `CHALLENGER` it loses that."""
    tracker.ask(lambda: _give_alias(tracker.client, name, str(version), alias))


def tag_version(tracker: Tracker, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Replace tags of a version."""
    for key, value in tags.items():
        tracker.ask(functools.partial(tracker.client.set_model_version_tag, name, str(version), key, value))


def describe(tracker: Tracker, name: str, version: int, text: str) -> None:
    """Set the description of a version, and the model's own unless a person has written that (Markdown)."""
    text = text[:DESCRIPTION_LENGTH]
    tracker.ask(lambda: tracker.client.update_model_version(name, str(version), text))
    own = tracker.ask(lambda: tracker.client.get_registered_model(name)).description
    if not own or own.startswith(MADE_BY):
        tracker.ask(lambda: tracker.client.update_registered_model(name, text))


def version_of(tracker: Tracker, run: str, name: str) -> int | None:
    """The version of a registered model that a run created, if any."""
    found = tracker.ask(lambda: tracker.client.search_model_versions(f"run_id = '{run}'"))
    return next((int(version.version) for version in found if version.name == name), None)


def holder(tracker: Tracker, name: str, alias: str) -> Any:
    """MLflow's version object with an alias, if any."""
    return tracker.ask(lambda: _holder(tracker.client, name, alias))


def models(address: str, name: str | None = None) -> dict[str, Any]:
    """All versions of all registered models, or of one, the latest first.

    Returns:
        ``models``: each with ``name`` and ``versions``, which have ``version``, ``aliases``, ``created`` (seconds),
        ``run_id``, ``numbers`` (of `NUMBERS`), ``lineage`` (of `LINEAGE`), ``decision`` and ``reason``.

    Raises:
        UserError: there is no such model, or MLflow is unreachable.
    """
    database = sqlite_file(address)
    if database and not database.exists():
        return {"models": [] if name is None else _unknown(name, [])}
    with mlflow_client(address) as client:
        known = pages(client.search_registered_models)
        if name is not None:
            known = [model for model in known if model.name == name] or _unknown(name, known)
        found = [{"name": model.name, "versions": _versions(client, model)} for model in known]
    # A sweep creates its registered model before the first version; without versions it is not listed.
    return {"models": [model for model in found if name or model["versions"]]}


def promote(address: str, name: str, version: str, alias: str) -> dict[str, Any]:
    """Set an alias manually, and record that in the version's tags.

    Args:
        version: a version number, or an alias of the version.

    Returns:
        ``name``, ``version``, ``alias`` and ``before``: the version that had the alias, or None.

    Raises:
        UserError: there is no such version.
    """
    try:
        check_alias(alias)
    except ValueError as error:
        raise UserError(f"--alias {alias}: {error}") from error
    found = {str(each["version"]): each for each in models(address, name)["models"][0]["versions"]}
    by_alias = {held: number for number, each in found.items() for held in each["aliases"]}
    number = by_alias.get(version, version)
    if number not in found:
        raise UserError(f"{name}: no version {version}; there are: {', '.join([*found, *by_alias])}")
    before = by_alias.get(alias)
    made = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    reason = f"set to {alias} manually by {user()} at {made}" + (f"; before: version {before}" if before else "")
    with mlflow_client(address) as client:
        _give_alias(client, name, number, alias)
        client.set_model_version_tag(name, number, "decision", alias)
        client.set_model_version_tag(name, number, "reason", reason)
    return {"name": name, "version": int(number), "alias": alias, "before": int(before) if before else None}


def _give_alias(client: Any, name: str, number: str, alias: str) -> None:
    client.set_registered_model_alias(name, alias, number)
    challenger = None if alias == CHALLENGER else _holder(client, name, CHALLENGER)
    if challenger is not None and str(challenger.version) == number:
        client.delete_registered_model_alias(name, CHALLENGER)


def _holder(client: Any, name: str, alias: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None  # no such model; no such alias
        raise


def _unknown(name: str, known: list[Any]) -> list[Any]:
    names = [model.name for model in known]
    near = difflib.get_close_matches(name, names, n=1)
    told = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}" if names else "there are none"
    raise UserError(f"{name}: no such registered model; {told}")


def _versions(client: Any, model: Any) -> list[dict[str, Any]]:
    # MLflow's filters have no escape: for a name with both kinds of quotes, all versions are searched.
    mark = next((mark for mark in "'\"" if mark not in model.name), None)
    found = pages(client.search_model_versions, f"name = {mark}{model.name}{mark}" if mark else "")
    mine = [version for version in found if version.name == model.name]
    return [_public(version, model.aliases) for version in sorted(mine, key=lambda each: -int(each.version))]


def _public(version: Any, aliases: Mapping[str, str]) -> dict[str, Any]:
    tags = version.tags
    numbers = {name: tags.get(name, tags.get(earlier, "")) for name, earlier in NUMBERS.items()}
    return {
        "version": int(version.version),
        "aliases": sorted(alias for alias, number in aliases.items() if int(number) == int(version.version)),
        "created": version.creation_timestamp / 1000,
        "run_id": version.run_id,
        "numbers": {name: float(tag) for name, tag in numbers.items() if _is_number(tag)},
        "lineage": {name: tags[name] for name in LINEAGE if tags.get(name)},
        "decision": tags.get("decision"),
        "reason": tags.get("reason"),
    }


def _is_number(tag: str) -> bool:
    """True if a tag is a finite number; users can set any text."""
    try:
        return math.isfinite(float(tag))
    except ValueError:
        return False
