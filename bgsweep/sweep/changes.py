"""Settings that may change when a sweep is resumed: none that its finished trials' results depend on."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bgsweep.config import SweepConfig, resolve
from bgsweep.errors import UserError
from bgsweep.sweep.events import TrialRecord
from bgsweep.sweep.trial import dump

# How trials run, and how many: neither the values nor the results of those that have ended depend on these settings.
_OF_RUNNING = (
    *("concurrent", "cpus", "gpus", "hang_minutes"),
    *("keep_checkpoints", "max_failures", "trials", "wait_minutes"),
)


def changed(
    name: str, file: Mapping[str, Any], overrides: Sequence[str], records: Mapping[str, TrialRecord]
) -> SweepConfig:
    """A sweep's config with other settings.

    Raises:
        UserError: they would make its later trials differ from its earlier ones.
    """
    space = [override.partition("=")[0] for override in overrides if override.startswith("space.")]
    before = resolve(copy.deepcopy(dict(file)), (), name)
    after = resolve(copy.deepcopy(dict(file)), [each for each in overrides if not each.startswith("space.")], name)
    keys = space + [key for key in _differing(dump(before), dump(after)) if not _free(key, before, after)]
    fixed = [key for key in keys if not key.startswith("evaluate.")]
    if fixed:
        raise UserError(
            f"{_listed(fixed)}: cannot change within sweep {name}, whose trials could no longer be compared; start a "
            f"new sweep, with search.warm_start: [{name}] to learn from this one, or change only register.*, "
            f"evaluate.* or search.{', search.'.join(_OF_RUNNING)}"
        )
    running = sum(record.status == "running" for record in records.values())
    if keys and (running or after.search.trials > max(before.search.trials, len(records))):
        left = f"{running} have not" if running else "search.trials asks for more"
        raise UserError(
            f"{_listed(keys)}: cannot change before all trials of {name} have ended, {left}; resume it without this "
            "first"
        )
    return after


def _listed(keys: Sequence[str]) -> str:
    """Keys as the user gives them, relative to the experiment."""
    return ", ".join(key.removeprefix("experiment.") for key in keys)


def _free(key: str, before: SweepConfig, after: SweepConfig) -> bool:
    section, _, leaf = key.partition(".")
    if section == "experiment":  # such as a limit of failures, if the digest does not hold it
        return before.experiment.digest == after.experiment.digest
    if key == "search.trials" and before.search.scheduler == "pbt":
        return False  # a population exists from the beginning to the end
    return section == "register" or (section == "search" and leaf in _OF_RUNNING)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(one.keys() | other.keys()):
        first, second = one.get(key), other.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _differing(first, second, f"{prefix}{key}.")
        elif first != second:
            yield prefix + key
