"""The report page of a sweep: written on demand; at the sweep's end also into its folder and MLflow."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgsweep.config import SweepConfig, resolve
from bgsweep.errors import UserError, one_line
from bgsweep.storage.uri import Uri
from bgsweep.sweep import budget
from bgsweep.sweep.budget import seconds_of
from bgsweep.sweep.events import Event, Result, of_search, replay
from bgsweep.sweep.fronts import hypervolume
from bgsweep.sweep.journal import read_journal, without_collection
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.store import local_store
from bgsweep.sweep.trial_names import by_number, confirmed_by, is_confirmation
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri

if TYPE_CHECKING:
    from bgsweep.report.page import SweepResults

FILE = "report.html"

_log = logging.getLogger(__name__)


def report(name: str, store: Uri, out: Path) -> dict[str, Any]:
    """Write the report page of a sweep, which may still be running.

    Returns:
        ``sweep``, ``page``, and the `Findings` of the trials: ``epoch``, ``importance``, ``effects``, ``sentences``.

    Raises:
        UserError: there is no such sweep, or the page cannot be written.
    """
    with without_collection():  # of what the imports make, too: a fifth of the command's time
        return _report(name, store, out)


def _report(name: str, store: Uri, out: Path) -> dict[str, Any]:
    from bgsweep.report.page import page

    with local_store(store, name) as local:
        folder, manifest = find_sweep(name, local)
        events = read_journal(folder)
    try:
        tags, datasets = _from_mlflow(Tracker(tracking_uri(store), manifest["file"]["name"]), manifest["parent"])
    except UserError as error:
        _log.warning("the page lacks what MLflow knows of the sweep: %s", error)
        tags, datasets = {}, []
    results = sweep_results(name, manifest, events, tags, datasets)
    found = results.findings()
    write_page(page(results, found), out)
    return {"sweep": name, "page": str(out), **found.public()}


def write_page(text: str, out: Path) -> None:
    """Write a page, and the folders above it; raises UserError where that fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}; name another by --out") from error


def log_page(folder: Path, manifest: Mapping[str, Any], tracker: Tracker) -> None:
    """Write the page from a Ray task, where the images are; a failure is a warning only."""
    import ray

    from bgsweep.distributed.warm import trial_environment

    parent = manifest["parent"]
    try:
        tracker.flush()
        task = ray.remote(num_cpus=1, max_retries=0, **trial_environment())(_page)
        text = ray.get(task.remote(folder.name, dict(manifest), read_journal(folder), *_from_mlflow(tracker, parent)))
        (folder / FILE).write_text(text, encoding="utf-8", errors="surrogateescape")
        tracker.log_text(parent, text, FILE)
    except Exception as error:  # a page must not cost a sweep its results
        _log.warning("the sweep's page could not be made: %s", one_line(error).rpartition("Error: ")[2])


def _page(*told: Any) -> str:
    from bgsweep.report.page import page

    return page(sweep_results(*told))


def sweep_results(
    name: str,
    manifest: Mapping[str, Any],
    events: Sequence[Event],
    tags: Mapping[str, str],
    datasets: Sequence[Mapping[str, Any]],
) -> "SweepResults":
    """The page's view of a sweep: its trials with their curves; epochs repeated after a failure count once."""
    from bgsweep.report.history import Trial
    from bgsweep.report.page import SweepResults

    curves: dict[str, dict[int, dict[str, float]]] = {}

    file = resolve(dict(manifest["file"]))
    wanted = file.search.metrics

    def extend(event: Result, record: TrialRecord) -> None:
        if any(metric not in event.metrics for metric in wanted):
            return  # an epoch with a checkpoint and no evaluation
        curves.setdefault(record.id, {})[event.epoch] = event.metrics

    records = replay(events, on_result=extend)

    def trial(one: TrialRecord) -> Trial:
        curve = curves.get(one.id, {})
        confirms = confirmed_by(one.id) if is_confirmation(one.id) else None
        return Trial(one.id, one.params, one.fixed, one.status, one.epochs, one.seconds, curve, one.error, confirms)

    trials = [trial(records[key]) for key in sorted(records, key=by_number)]
    limits = budget.status(manifest, lambda: seconds_of(events), records.values()) if "budget" in manifest else None
    wall = events[-1].time - events[0].time if events else 0.0
    course = front_course(of_search(events), file)
    return SweepResults(name, manifest, trials, wall, tags, datasets, limits["told"] if limits else "", course)


def front_course(events: Sequence[Event], config: SweepConfig) -> list[tuple[int, float]]:
    """The hypervolume of the front of several metrics after so many epochs of all trials, whenever a trial completed.

    As a share of the box between the worst and the best values of the completed trials; empty for one metric.
    """
    signs, epochs = config.search.signs, dict[str, int]()
    found: list[tuple[int, list[float]]] = []

    def note(record: TrialRecord) -> None:
        if record.status == "completed" and signs.keys() <= record.metrics.keys():
            spent = sum(epochs.values()) * config.search.seeds
            found.append((spent, [sign * record.metrics[metric] for metric, sign in signs.items()]))

    replay(events, on_result=lambda event, _: epochs.update({event.id: event.epoch}), on_ended=note)
    columns = list(zip(*(scores for _, scores in found), strict=True))
    if len(signs) == 1 or any(min(each) == max(each) for each in columns) or not found:
        return []
    box = [(min(each), max(each)) for each in columns]
    scaled = [[(each - low) / (high - low) for each, (low, high) in zip(one, box, strict=True)] for _, one in found]
    return [(spent, hypervolume(scaled[: index + 1], [0.0] * len(signs))) for index, (spent, _) in enumerate(found)]


def _from_mlflow(tracker: Tracker, run: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The sweep's tags, and its data sets: context, name, count and digests of each split."""
    found: Any = tracker.ask(lambda: tracker.client.get_run(run))
    datasets = []
    for each in found.inputs.dataset_inputs:
        context = next(tag.value for tag in each.tags if tag.key == "mlflow.data.context")
        profile = json.loads(each.dataset.profile)
        profile.setdefault("count", profile.get("photographs"))  # the key that runs of earlier versions have
        datasets.append({"context": context, "name": each.dataset.name, **profile})
    order = ("train", "knn_bank", "validation", "test")
    return dict(found.data.tags), sorted(datasets, key=lambda one: order.index(one["context"]))
