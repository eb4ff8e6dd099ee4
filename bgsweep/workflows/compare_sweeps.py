"""`bgsweep compare-sweeps`: several sweeps on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bgsweep.errors import UserError
from bgsweep.report.findings import measures_of
from bgsweep.report.sweeps_page import Course, sweeps_page
from bgsweep.storage.uri import Uri
from bgsweep.sweep.control import status
from bgsweep.sweep.events import Event, Result
from bgsweep.sweep.journal import read_journal
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.report import sweep_results, write_page
from bgsweep.sweep.store import local_store


def compare_sweeps(names: Sequence[str], store: Uri, out: Path, suite: str | None) -> dict[str, Any]:
    """Write a page that compares sweeps of one store, which may still be running.

    Args:
        suite: evaluators by which the champions are compared on the same images, as `bgsweep compare` does; None leaves
            that out, which takes most of the time.

    Returns:
        ``sweeps``, ``page``, and ``comparison`` of `bgsweep.workflows.evaluate.compare`, if there is one.

    Raises:
        UserError: fewer than two names; a sweep is not there; the champions cannot be compared.
    """
    if len(set(names)) < 2:
        raise UserError("compare-sweeps: name two sweeps or more, as `bgsweep status` lists them")
    found, courses, states = [], [], []
    for name in dict.fromkeys(names):
        states.append(status(name, store)["sweeps"][0]["state"])
        with local_store(store, name) as local:
            folder, manifest = find_sweep(name, local)
            events = read_journal(folder)
        found.append(sweep_results(name, manifest, events, {}, []))
        courses.append(_course(events, found[-1]))
    models = [_registered(one.manifest["result"]) for one in found if one.manifest.get("result")]
    paired, unpaired = None, "The champions were not compared on the same images (`--suite`)."
    if suite is not None and len(models) > 1:
        from bgsweep.workflows.evaluate import compare

        paired = compare(models, suite, None, Path(store) if not isinstance(store, str) else store)  # type: ignore[arg-type]
    elif len(models) < 2:
        unpaired = "Fewer than two of the sweeps have ended, so that there are no champions to compare."
    write_page(sweeps_page(found, states, courses, paired, unpaired), out)
    return {"sweeps": [one.name for one in found], "page": str(out), "comparison": paired}


def _registered(result: dict[str, Any]) -> str:
    return f"models:/{result['model']['name']}/{result['model']['version']}"


def _course(events: Sequence[Event], results: Any) -> Course:
    from bgsweep.config import resolve

    metric = measures_of(resolve(dict(results.manifest["file"])), results.trials).metric
    course: list[tuple[float, float, float]] = []
    epochs: dict[str, int] = {}
    total, best = 0, float("-inf")
    for event in events:
        if not isinstance(event, Result):
            continue
        total += event.epoch - epochs.get(event.id, 0)
        epochs[event.id] = event.epoch
        if event.metrics.get(metric, best) > best:
            best = event.metrics[metric]
            course.append((event.time - events[0].time, total, best))
    return [*course, (events[-1].time - events[0].time, total, best)] if course else []
