"""`bgsweep compare`: encoders, trials and sweeps side by side, as a table and as one page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bgsweep.config import SuiteConfig
from bgsweep.config.base import dotted
from bgsweep.data import Image, ImageDataset, Sample
from bgsweep.data.readable import seen
from bgsweep.errors import UserError
from bgsweep.evaluation.audit.measure import THUMBNAIL, thumbnail
from bgsweep.evaluation.bootstrap import Difference, paired
from bgsweep.evaluation.evaluator import Result
from bgsweep.evaluation.registry import evaluator_names
from bgsweep.images.decoding import centre_view
from bgsweep.report.charts import Measures
from bgsweep.report.compare_page import Compared, Course, Search, compare_page
from bgsweep.report.findings import measures_of
from bgsweep.storage.uri import Uri
from bgsweep.sweep.control import status
from bgsweep.sweep.events import Event
from bgsweep.sweep.events import Result as Epoch
from bgsweep.sweep.journal import read_journal, read_records
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.report import sweep_results, write_page
from bgsweep.sweep.store import local_store
from bgsweep.tracking.encoders import Loaded, load_model
from bgsweep.workflows.evaluate import Data, Measured, as_published, measure, number, prepare, read, refuse_trained_on

_SHOWN = 8  # images that one of two models alone gets right


@dataclass(frozen=True)
class _Named:
    """A name with its encoder, if there is one already, and its sweep's course."""

    name: str
    model: str | None
    search: Search | None = None


def compare(names: Sequence[str], suite: str, data: Data, store: Uri, out: Path | None = None) -> dict[str, Any]:
    """Run a suite on several encoders and compare each with the first, image by image.

    Args:
        names: models, as for `evaluate`; a sweep of the store, which stands for its champion; its trials, `SWEEP/t03`.
        suite: as for `evaluate`; `none` evaluates nothing, which takes most of the time.
        out: page to write.

    Returns:
        ``models`` with names and origins; ``protocols`` of the first; ``rows``: evaluator, name, the models' values,
        and for each model but the first the difference with its 95 % interval (None where one number stands for a whole
        set) and `significant`, True where that excludes zero; ``failed``; ``settings`` in which the experiments of
        models that bgsweep trained differ; ``sweeps``; ``why``, where nothing was compared; ``page``.

    Raises:
        UserError: as `evaluate`; fewer than two names; models that were not measured on the same images.
    """
    if len(names) < 2:
        raise UserError("compare: one model is named; name two or more")
    named = [_named(name, store) for name in names]
    found, pictures = _compared([one for one in named if one.model is not None], suite, data, store, out is not None)
    searches = {one.search.results.name: one.search for one in named if one.search is not None}
    if found.why and (out is None or not searches):
        raise UserError(f"compare: {found.why}; --out PAGE shows the courses of sweeps without")
    if out is not None:
        write_page(compare_page(found, list(searches.values()), pictures), out)
    return {**asdict(found), "sweeps": list(searches), "page": None if out is None else str(out)}


def _named(name: str, store: Uri) -> _Named:
    """A model's name as it is; a sweep's with its champion and course; a trial's with its checkpoint."""
    if re.search("[:=]", name) or Path(name).exists():
        return _Named(name, name)
    sweep, _, trial = name.partition("/")
    try:
        with local_store(store, sweep) as local:
            folder, manifest = find_sweep(sweep, local)
            if trial:
                return _Named(name, _checkpoint(name, trial, folder))
            events = read_journal(folder)
    except UserError as error:
        raise UserError(f"{name}: no such checkpoint, sweep, or trial of one (SWEEP/t03): {error}") from error
    results = sweep_results(sweep, manifest, events, {}, [])
    measures = measures_of(results.config, results.trials)
    state = status(sweep, store)["sweeps"][0]["state"]
    champion = (manifest.get("result") or {}).get("model")
    model = f"models:/{champion['name']}/{champion['version']}" if champion else None
    return _Named(name, model, Search(results, state, _course(events, measures)))


def _checkpoint(name: str, trial: str, folder: Path) -> str:
    records = read_records(folder)
    if trial not in records:
        raise UserError(f"no trial {trial}; `bgsweep status {folder.name}` lists them")
    checkpoint = records[trial].checkpoint
    if checkpoint is None:
        raise UserError(f"the trial {trial} has no checkpoint; `search.keep_checkpoints` says how many of a sweep stay")
    return checkpoint


def _course(events: Sequence[Event], measures: Measures) -> Course:
    """The best value so far: seconds since the start, epochs of all trials, value."""
    course: list[tuple[float, float, float]] = []
    epochs: dict[str, int] = {}
    total, best, sign = 0, float("-inf"), measures.sign
    for event in events:
        if not isinstance(event, Epoch):
            continue
        total += event.epoch - epochs.get(event.id, 0)
        epochs[event.id] = event.epoch
        if measures.metric in event.metrics and sign * event.metrics[measures.metric] > best:
            best = sign * event.metrics[measures.metric]
            course.append((event.time - events[0].time, total, sign * best))
    return [*course, (events[-1].time - events[0].time, total, sign * best)] if course else []


def _compared(
    named: Sequence[_Named], suite: str, data: Data, store: Uri, shown: bool
) -> tuple[Compared, list[dict[str, Any]]]:
    """Models measured on the same images, those of the first; and what of them the page alone shows."""
    if suite == "none" or len(named) < 2:
        why = "nothing was evaluated (--suite none)"
        if suite != "none":
            why = "fewer than two of the names have an encoder: of a sweep, one is registered when it has ended"
        return Compared(why=why), []
    models, evaluators, config = [str(one.model) for one in named], evaluator_names(suite), read(data)
    # Models are only comparable on the same images: those of the first.
    loaded, config = prepare(models[0], config, store)
    found = [loaded, *(load_model(model, config.preprocessing.crop, store) for model in models[1:])]
    for model, one in zip(models[1:], found[1:], strict=True):
        refuse_trained_on(model, one, config)
    folder = store if isinstance(store, Path) else None  # nothing is kept in an object store
    measured = [measure(one, evaluators, as_published(one, config), folder) for one in found]
    failed = {
        f"{one.name}: {name}": reason
        for one, each in zip(named, measured, strict=True)
        for name, reason in each.failed.items()
    }
    lost = {name for each in measured for name in each.failed}
    first, *others = ([result for result in each.results if result.evaluator not in lost] for each in measured)
    compared = Compared(
        models=[
            {"name": one.name, "model": one.model, "origin": each.origin}
            for one, each in zip(named, found, strict=True)
        ],
        rows=rows(first, others, config),
        bootstrap=f"{config.bootstrap} paired resamplings of the images, 95 % percentile intervals",
        protocols={one.evaluator: one.protocol for one in first},
        failed=failed,
        settings=_differing(found),
    )
    return compared, [_pictures(measured[0], each) for each in measured[1:]] if shown else []


def rows(first: list[Result], others: list[list[Result]], config: SuiteConfig) -> list[dict[str, Any]]:
    """A row for each value of the first model's results, with the other models' values and differences."""
    found = []
    for index, result in enumerate(first):
        for place, value in enumerate(result.values):
            rest = [results[index].values[place] for results in others]
            if any(len(one.hits) != len(value.hits) for one in rest):
                raise UserError(f"{result.evaluator}: the models were measured on different images; give --data")
            differences = [paired(value, one, config.bootstrap, config.evaluate.seed) for one in rest]
            found.append(
                {
                    "evaluator": result.evaluator,
                    "name": value.name,
                    "values": [number(one.value) for one in (value, *rest)],
                    "differences": [_public_difference(one) for one in differences],
                }
            )
    return found


def _public_difference(found: Difference) -> dict[str, Any]:
    return {key: number(value) for key, value in asdict(found).items()} | {"significant": found.significant}


def _differing(loaded: Sequence[Loaded]) -> dict[str, list[Any]]:
    """Settings, under dotted keys, in which experiments differ; None for a model without an experiment or the key."""
    trees: list[Mapping[str, Any]] = [
        dotted(one.experiment.model_dump(mode="json")) if one.experiment else {} for one in loaded
    ]
    known = [tree for tree in trees if tree]
    keys = dict.fromkeys(key for tree in known for key in tree)
    return {
        key: [tree.get(key) for tree in trees]
        for key in keys
        if any(tree.get(key) != known[0].get(key) for tree in known[1:])
    }


def _pictures(first: Measured, other: Measured) -> dict[str, Any]:
    """Images of the user's that one of two models alone gets right by the first value that is of each of them."""
    splits = first.context.splits
    if splits is None:
        return {}
    ours = {(one.evaluator, value.name): value for one in first.results for value in one.values if not one.listings}
    theirs = {(one.evaluator, value.name): value for one in other.results for value in one.values}
    for key, value in ours.items():
        hits = value.hits, theirs[key].hits if key in theirs else value.hits[:0]
        if any(len(each) != len(splits.test) or not np.isin(each, (0, 1)).all() for each in hits):
            continue  # of some of the images, or no accuracy
        alone = [np.flatnonzero(hits[0] > hits[1]), np.flatnonzero(hits[1] > hits[0])]
        sizes = [len(each) for each in alone]
        return {"value": key[1], "counts": sizes, "images": [_thumbnails(splits.test, each) for each in alone]}
    return {}


def _thumbnails(source: ImageDataset, indices: Any) -> list[str]:
    chosen = indices[:: max(1, len(indices) // _SHOWN)][:_SHOWN].tolist()

    def square(sample: Sample) -> Image:
        return centre_view(sample.image, THUMBNAIL)

    return [thumbnail(image) for _, image in seen(source, square, chosen)]
