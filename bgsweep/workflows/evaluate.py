"""`bgsweep evaluate --suite`: from a model and evaluators by name to values with protocols."""

import copy
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bgsweep.config import SuiteConfig, load_suite
from bgsweep.data import open_splits
from bgsweep.data.leaks import shared
from bgsweep.distributed.evaluation_workers import RayWorkers, wants_workers
from bgsweep.errors import UserError, without_password
from bgsweep.evaluation.context import EvalContext, Workers
from bgsweep.evaluation.evaluator import Result
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.kept import KeptFeatures, network_digest
from bgsweep.evaluation.online import without_lost_files
from bgsweep.evaluation.registry import evaluator_names, open_evaluators
from bgsweep.evaluation.suite import KeptResults, run_suite
from bgsweep.storage.uri import Uri
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.encoders import Loaded, load_model
from bgsweep.training.encode import frozen_model
from bgsweep.workflows.evaluation_log import EvaluationLog

Data = SuiteConfig | Mapping[str, Any] | str | Path | None
"""A suite's images and settings: typed, as plain sections, or as a YAML file."""


def evaluate(model: str, suite: str, data: Data, store: Path) -> dict[str, Any]:
    """Run a suite on a model.

    Args:
        model: a bgsweep checkpoint, an MLflow model URI, or what `load_pretrained` takes.
        suite: `quick`, `paper`, or names of evaluators with commas.
        data: None takes the images that the model was trained on.
        store: folder of the local MLflow store.

    What an earlier call measured with the same weights, images and settings is not measured again.

    Returns:
        ``model``, ``origin``, ``results`` (for each evaluator its ``values`` and its ``protocol``), ``failed`` (for
        each evaluator that failed the reason), and the MLflow run that holds all of it.

    Raises:
        UserError: the model cannot be loaded, or a set that the suite needs is missing.
    """
    names, file = evaluator_names(suite), read(data)
    loaded, file = prepare(model, file, store)
    # Opened first, so that an MLflow that does not answer is reported before hours of work.
    with Tracker(tracking_uri(store)) as tracker:
        log = EvaluationLog(tracker, model, loaded)
        measured = measure(loaded, names, as_published(loaded, file), store, log)
        results = {one.evaluator: public(one) for one in measured.results}
        found = {"model": model, "origin": loaded.origin, "results": results, "failed": measured.failed}
        log.finish(found, bool(measured.failed))
    return {**found, "run_id": log.run, "tracking_uri": without_password(tracker.address)}


def number(value: float) -> float | None:
    """As JSON, which knows no NaN."""
    return None if math.isnan(value) else value


def prepare(model: str, config: SuiteConfig | None, store: Uri) -> tuple[Loaded, SuiteConfig]:
    """Load a model, and complete the suite's config from the model's own experiment."""
    loaded = load_model(model, config.preprocessing.crop if config else 224, store)
    completed = _completed(config, loaded)
    if config is not None and config.data is not None:
        refuse_trained_on(model, loaded, completed)
    return loaded, completed


def as_published(loaded: Loaded, config: SuiteConfig) -> SuiteConfig:
    """The suite's config with timm's own crop and interpolation for a model of its, unless `preprocessing` is set."""
    if loaded.preprocessing is None or "preprocessing" in config.model_fields_set:
        return config
    return config.model_copy(update={"preprocessing": loaded.preprocessing})


def refuse_trained_on(model: str, loaded: Loaded, config: SuiteConfig) -> None:
    """Raise UserError where test images of a suite's config are among those that the model was trained on."""
    if config.data is None or loaded.experiment is None:
        return
    try:
        train = open_splits(loaded.experiment.data).train
    except UserError as error:
        print(f"whether {model} was trained on images of --data cannot be told here: {error}", file=sys.stderr)
        return
    test = open_splits(config.data).test
    found = shared(test, train)
    if len(found):
        raise UserError(
            f"--data: {len(found)} of the {len(test)} test images of {test.name} were trained on by {model}, such as "
            f"{test.ids[int(found[0])]}; name images that it has not seen"
        )


class Measured(NamedTuple):
    """A model's context, results, and for each evaluator that failed the reason."""

    context: EvalContext
    results: list[Result]
    failed: dict[str, str]


def measure(
    loaded: Loaded,
    names: Sequence[str],
    config: SuiteConfig,
    store: Path | None = None,
    log: EvaluationLog | None = None,
) -> Measured:
    """Run evaluators on a model; what is large enough on Ray's workers, if the config wants any.

    Where an image of the user's is deleted meanwhile all are run again, so that all measure the same images.

    Args:
        store: features and results are kept in its folder ``evaluations``; None keeps none.
        log: gets each result when its evaluator ends.
    """
    if config.data is None:
        return _measure(loaded, names, config, store, log)
    stores = iter([store])

    def attempt() -> Measured:
        kept = next(stores, None)
        if kept is None and store is not None:
            # Kept of the images before one was deleted, under digests that this process goes on with.
            shutil.rmtree(_folder(store, loaded), ignore_errors=True)
        return _measure(loaded, names, config, kept, log)

    return without_lost_files(open_splits(config.data), attempt)


def _folder(store: Path, loaded: Loaded) -> Path:
    return store / "evaluations" / network_digest(loaded.encoder)


def _measure(
    loaded: Loaded, names: Sequence[str], config: SuiteConfig, store: Path | None, log: EvaluationLog | None
) -> Measured:
    folder = None if store is None else _folder(store, loaded)
    # Copied now: workers get it from the CPU, wherever this process takes its own.
    with RayWorkers(
        partial(opened, copy.deepcopy(loaded) if wants_workers(config) else loaded, config), config
    ) as workers:
        context = opened(loaded, config, workers if wants_workers(config) else None, folder)
        evaluators = open_evaluators(context, names)
        kept = KeptResults(folder, context)
        if log is not None:
            log.open_run(kept.folder)

        def ended(result: Result) -> None:
            if log is not None:
                log.log(context, result)

        found = run_suite(evaluators, kept, lambda line: print(line, file=sys.stderr, flush=True), ended)
        return Measured(context, found.results, found.failed)


def opened(
    loaded: Loaded, config: SuiteConfig, workers: Workers | None = None, folder: Path | None = None
) -> EvalContext:
    """A model with the sets of a suite's config, on the device that it names.

    Args:
        folder: of what is kept of this encoder.
    """
    splits = None if config.data is None else open_splits(config.data)
    kept = KeptFeatures(None if folder is None else folder / "features")
    return EvalContext(on_device(loaded, config.device), config, splits, workers, kept=kept)


def public(result: Result) -> dict[str, Any]:
    """A result as JSON; None stands for a value of no images."""
    values = {one.name: number(one.value) for one in result.values}
    return {"values": values, "protocol": result.protocol}


def chosen_device(device: str) -> torch.device:
    """The device of a setting `cpu`, `cuda` or `auto`.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda was asked for, but torch sees no GPU here; use cpu or auto")
    return torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")


def on_device(
    loaded: Loaded, device: str, autocast: torch.dtype | None = None, at_once: int | None = None
) -> FrozenModel:
    """The encoder on its device, as evaluators take it; see `encode_with`, and `chosen_device` for errors."""
    chosen = chosen_device(device)
    return frozen_model(loaded.encoder.to(chosen).eval(), chosen, loaded.head, loaded.origin, autocast, at_once)


def read(data: Data) -> SuiteConfig | None:
    """The suite's config; its images are opened, so that a wrong folder is reported before a model is downloaded."""
    config = None if data is None else load_suite(data)
    if config is None or config.data is None:
        return config
    # Only train and test are read here; holding out a validation split would only make train smaller.
    images = config.data.model_copy(update={"validation": config.data.test or config.data.validation})
    open_splits(images)
    return config.model_copy(update={"data": images})


def _completed(config: SuiteConfig | None, loaded: Loaded) -> SuiteConfig:
    """The suite's config; data that it does not name are those of the model's own experiment."""
    if config is not None and (config.data is not None or loaded.experiment is None):
        return config
    if loaded.experiment is None:
        raise UserError("--data: name a YAML file that says which images to evaluate on")
    own = {"data": loaded.experiment.data, "size": loaded.experiment.views.size}
    return (config or SuiteConfig()).model_copy(update=own)
