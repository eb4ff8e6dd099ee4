"""Settings that may change when a sweep is resumed: none that its finished trials' results depend on."""

import copy
import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bgsweep.config import SweepConfig, resolve
from bgsweep.config.evaluation import Evaluate
from bgsweep.config.resuming import changes, decisive, moved, other_images
from bgsweep.errors import UserError
from bgsweep.sweep.confirmation import proposals_of
from bgsweep.sweep.searcher import total_trials
from bgsweep.sweep.selection import searched
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_names import is_confirmation
from bgsweep.sweep.trial_record import TrialRecord

# How trials run, and how many: neither the values nor the results of those that have ended depend on these settings.
_OF_RUNNING = (
    *("budget", "concurrent", "confirm", "cpus", "gpus", "hang_minutes"),
    *("keep_checkpoints", "max_failures", "refill_epochs", "share_views", "trials", "wait_minutes"),
)

# Nothing that trials are compared by depends on these settings of `evaluate`.
_OF_THE_END = ("evaluate.batch_size", "evaluate.linear.")

PARTS = ("search", "confirm")
"""The parts of a sweep that train trials."""


def closed(manifest: Mapping[str, Any], overrides: Sequence[str] = (), retry_failed: bool = False) -> list[str]:
    """The parts of a resumed sweep that train nothing more: it had come to its final evaluation.

    `bgsweep stop` and budgets leave trials out, which a repetition of the end must not train. Who asks for trials opens
    both parts again; `search.confirm` opens the confirmation alone.
    """
    over = manifest.get("closed", PARTS if manifest.get("result") else ())
    keys = [override.partition("=")[0] for override in overrides]
    if retry_failed or any(f"{key}.".startswith(("search.trials.", "search.budget.")) for key in keys):
        return []
    again = any(f"{key}.".startswith("search.confirm.") for key in keys)
    return [part for part in over if not (again and part == "confirm")]


def changed(
    name: str,
    file: Mapping[str, Any],
    overrides: Sequence[str],
    records: Mapping[str, TrialRecord],
    over: Collection[str] = (),
    measured: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
) -> SweepConfig:
    """A sweep's config with other settings.

    Args:
        over: the parts that train nothing more (`closed`).
        measured: `evaluate` as the trials were measured by it, where an earlier resume may have changed that of the
            ``file``, which is taken without it.
        retry_failed: the trials that failed run again.

    Raises:
        UserError: they would make its later trials differ from its earlier ones.
    """
    space = [override.partition("=")[0] for override in overrides if override.startswith("space.")]
    before = resolve(copy.deepcopy(dict(file)), (), name)
    after = resolve(copy.deepcopy(dict(file)), [each for each in overrides if not each.startswith("space.")], name)
    others = [key for key in _differing(dump(before), dump(after)) if not key.startswith("experiment.")]
    keys = space + _of_experiment(before, after, records)
    again = any(map(is_confirmation, records))
    keys += [key for key in others if not _free(key, before) or (again and key.startswith("search.confirm"))]
    fixed = [key for key in keys if not key.startswith("evaluate.")]
    if fixed:
        raise UserError(
            f"{_listed(fixed)}: cannot change within sweep {name}, whose trials could no longer be compared; start a "
            f"new sweep, with search.warm_start: [{name}] to learn from this one, or change only how trials run "
            f"(docs/failures.md), register.*, evaluate.* or search.{', search.'.join(_OF_RUNNING)}"
        )
    if left := _left(after, records, over, retry_failed):
        _check_measure(name, dump(before)["evaluate"] if measured is None else measured, after, keys, left)
    return after


def compare_images(name: str, before: Mapping[str, Any], now: SweepConfig, images: Mapping[str, str]) -> list[str]:
    """Compare the fingerprints of a resumed sweep's images with those in its manifest; warnings for the user.

    Raises:
        UserError: other images are at another path.
    """
    has_moved = moved(changes(resolve(copy.deepcopy(before["file"])).experiment, now.experiment))
    recorded = before.get("images")
    if recorded is None:
        told = f"{name}: began with a version that did not record its images; those at the new path are not compared"
        return [told] if has_moved else []
    other = ", ".join(other_images(recorded, images))
    if other and has_moved:
        raise UserError(
            f"{name}: data.images, data.masks or data.pack has other images or masks in {other} than the sweep began "
            "with; name their copy, or start a new sweep"
        )
    return [f"{other}: the images or masks have changed since {name} began"] if other else []


def _check_measure(
    name: str, measured: Mapping[str, Any], after: SweepConfig, given: Collection[str], left: str
) -> None:
    """Raise UserError where the trials that are ``left`` would be measured otherwise than those before them.

    Args:
        given: keys that the user has changed now.
    """
    then = Evaluate.model_validate(measured).model_dump(mode="json")
    differing = _differing(then, dump(after)["evaluate"], "evaluate.")
    keys = [key for key in differing if key in given or not f"{key}.".startswith(_OF_THE_END)]
    if keys:
        raise UserError(
            f"{', '.join(keys)}: cannot change before all trials of {name} have ended, {left}; resume it with "
            f"{' '.join(_word(key, then) for key in keys)} first, by which its trials were measured"
        )


def _left(config: SweepConfig, records: Mapping[str, TrialRecord], over: Collection[str], retry_failed: bool) -> str:
    """The trials that a resumed sweep will train, in words; empty for none."""
    ended = sum(record.status != "running" for record in searched(records.values()))
    if "search" not in over and (left := total_trials(config) - ended) > 0:
        return f"{left} have not"
    failed = [each for each in records.values() if each.status == "failed" and not config.refusal(each.params)]
    if retry_failed and failed:
        return f"--retry-failed runs {len(failed)} again"
    if config.search.confirm and "confirm" not in over and (again := proposals_of(config, records)):
        return f"search.confirm trains {len(again)} more"
    return ""


def _word(key: str, evaluate: Mapping[str, Any]) -> str:
    """A setting of `evaluate` as the user gives it to a shell."""
    value: Any = {"evaluate": evaluate}
    for part in key.split("."):
        value = value[part]
    return shlex.quote(f"{key}={value if isinstance(value, str) else json.dumps(value)}")


def _listed(keys: Sequence[str]) -> str:
    """Keys as the user gives them, relative to the experiment."""
    return ", ".join(key.removeprefix("experiment.") for key in keys)


def _of_experiment(before: SweepConfig, after: SweepConfig, records: Mapping[str, TrialRecord]) -> list[str]:
    """Changes of the experiment that decide results, of any trial: one may have another `method.split_bn`."""
    found = set(changes(before.experiment, after.experiment)) & {"training.epochs"}
    for values in ({}, *(record.params for record in records.values() if not before.refusal(record.params))):
        found |= decisive(before.experiment.with_values(values), after.experiment.with_values(values)).keys()
    return [f"experiment.{key}" for key in sorted(found)]


def _free(key: str, before: SweepConfig) -> bool:
    section, _, leaf = key.partition(".")
    if key == "search.trials" and before.search.scheduler == "pbt":
        return False  # a population exists from the beginning to the end
    return section == "register" or (section == "search" and leaf.partition(".")[0] in _OF_RUNNING)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(one.keys() | other.keys()):
        first, second = one.get(key), other.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _differing(first, second, f"{prefix}{key}.")
        elif first != second:
            yield prefix + key
