"""The cost of a sweep before it begins: a simulation of its scheduler on so many devices, without training."""

import heapq
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from bgsweep.config import SweepConfig
from bgsweep.distributed.train import worker_cpus
from bgsweep.errors import UserError
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import FIXED, NUMBER, fixed_points, total_trials
from bgsweep.sweep.selection import confirmations, seeds_of

ROUNDS = 20
RAY_TRAIN_START = 12.0
"""Seconds that Ray Train takes to start and end a trial's workers, as measured with two of them on CPU cores."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one seed's training.

    Attributes:
        epoch: one epoch.
        evaluation: an online evaluation, with its share of a checkpoint.
        start: a trial's start in a process that has run one before.
        cold: the first trial's start beyond that (imports, decoding, images for the evaluations).
    """

    epoch: float
    evaluation: float = 0.0
    start: float = 0.0
    cold: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """One simulated search: seconds on the wall and seconds in which devices trained, epochs, and whole trials."""

    seconds: float
    busy: float
    epochs: int
    whole: int


def plan(
    config: SweepConfig,
    gpus: int,
    hourly_price: float | None,
    epoch_seconds: float | None,
    images: int | None = None,
    measured: Path | None = None,
) -> dict[str, Any]:
    """Simulate the config's search, and others beside it, on ``gpus`` devices.

    A device is a GPU, or where trials ask for none a place for one trial. Devices are paid for, at ``hourly_price``
    each, as long as the search lasts. Without ``epoch_seconds`` (of one trial's epoch, evaluations included) it is
    computed from ``images``, the size of the training set, or ``measured``, a file of `benchmarks.gpu`; without these
    too, two epochs are trained here to measure it.

    Returns:
        ``cost`` (seconds), ``trials``, ``at_once``, ``trial`` (a `Footprint`; None without ``images`` and
        ``measured``), and ``settings``: each with ``setting``, ``hours`` (mean, ``hours_low`` and ``hours_high`` over
        the rounds), ``gpu_hours``, ``price`` (or None), ``utilisation``, ``epochs`` and ``whole_trials``. The first
        setting is the config's own.

    Raises:
        UserError: a trial needs more devices than there are; an epoch of several workers cannot be measured here.
    """
    config = config.with_values({"encoder.weights": None, "encoder.weights_digest": None})  # which change no time
    workers, search = config.experiment.workers, config.search
    need = workers.count * (config.gpus_of_process(available=True) or 1.0)
    at_once = min(math.floor(gpus / need + 1e-9), search.concurrent or gpus * 1000, total_trials(config))
    if not at_once:
        raise UserError(f"--gpus: {gpus} are too few, for one trial needs {need:g}; see workers and search.gpus")
    trial = _footprint(config, need, images, measured)
    cost = _cost(config, epoch_seconds, trial)
    rows = []
    for name, each in _settings(config).items():
        found = [simulate(each, at_once, cost, seed) for seed in range(ROUNDS)]
        rows.append({"setting": name, **_summary(found, need, gpus, hourly_price)})
    return {
        "cost": asdict(cost),
        "trials": total_trials(config),
        "confirmations": confirmations(config),
        "at_once": at_once,
        "gpus": gpus,
        "trial": trial,
        "settings": rows,
    }


def _cost(config: SweepConfig, epoch_seconds: float | None, trial: dict[str, Any] | None) -> Cost:
    start = RAY_TRAIN_START if config.experiment.workers.count > 1 else 0.0
    if epoch_seconds is not None:
        return Cost(epoch_seconds, start=start)
    if trial is not None:
        return Cost(trial["epoch_seconds"], trial["evaluation_seconds"], start)
    if worker_cpus(config):
        raise UserError(
            "plan: an epoch of processes on Ray cannot be measured by one here; give --epoch-seconds, or --images to "
            "estimate it"
        )
    return measure(config)


def _footprint(config: SweepConfig, gpus: float, images: int | None, measured: Path | None) -> dict[str, Any] | None:
    if images is None and measured is None:
        return None
    from bgsweep.sweep.footprint import Measured, count_images, describe, footprint, read_measured

    figures = read_measured(measured) if measured else Measured()
    found = footprint(config, gpus, count_images(config) if images is None else images, figures)
    return {**vars(found), "shown": describe(found)}


def measure(config: SweepConfig) -> Cost:
    """Train two epochs of the experiment here, and look at the second."""
    began = time.perf_counter()
    from bgsweep.distributed.view_workers import ray_feed
    from bgsweep.training.run import Run, limit_threads

    limit_threads(config.search.cpus)
    first = Run(config, feed_for=ray_feed)
    first.training.step_epoch()
    first.evaluate()
    cold = time.perf_counter() - began
    run = Run(config, feed_for=ray_feed)
    built = time.perf_counter()
    run.training.step_epoch()
    trained = time.perf_counter()
    run.evaluate()
    evaluated = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder))
    saved = (time.perf_counter() - evaluated) * config.evaluate.every / config.experiment.training.checkpoint_every
    start = built - began - cold
    epoch, evaluation = trained - built, evaluated - trained + saved
    return Cost(epoch, evaluation, start, max(0.0, cold - start - epoch - evaluation))


def simulate(config: SweepConfig, at_once: int, cost: Cost, seed: int) -> Outcome:
    """Simulate one search with invented scores.

    Each trial's accuracy rises along the same curve to a height of its own, with noise, so that the best after one
    epoch is likely, but not certain, to be the best at the end; the config's scheduler decides on these scores.
    """
    total, epochs = total_trials(config), config.experiment.training.epochs
    if config.search.scheduler == "pbt":
        return _generations(config, at_once, cost)
    draw = random.Random(seed)
    scheduler: Any = build_scheduler(config)[0]
    trials = [_trial(config, number, draw.gauss(0.5, 0.1)) for number in range(total)]
    waiting = list(reversed(trials))
    events: list[tuple[float, int, Any]] = []
    busy = now = 0.0
    done = whole = 0

    def begin(at: float, extra: float) -> None:
        nonlocal busy
        trial = waiting.pop()
        scheduler.on_trial_add(None, trial)
        step = extra + cost.start * config.search.seeds + _until_report(config, cost, 0)
        busy += step
        heapq.heappush(events, (at + step, trial.config[NUMBER], trial))

    for _ in range(min(at_once, total)):
        begin(0.0, cost.cold)
    while events:
        now, number, trial = heapq.heappop(events)
        trial.epoch = _next_report(config, trial.epoch)
        result = {"epoch": trial.epoch, **_scores(config, trial, draw)}
        decision = scheduler.on_trial_result(None, trial, result)
        if trial.epoch < epochs and decision == TrialScheduler.CONTINUE:
            step = _until_report(config, cost, trial.epoch)
            busy += step
            heapq.heappush(events, (now + step, number, trial))
            continue
        scheduler.on_trial_complete(None, trial, result)
        done, whole = done + trial.epoch, whole + (trial.epoch == epochs)
        if waiting:
            begin(now, 0.0)
    search, again = config.search, confirmations(config)
    step = seeds_of(config, "c") * (cost.start + _of_trial(config, cost)) if again else 0.0
    now, busy = now + math.ceil(again / at_once) * step, busy + again * step
    return Outcome(now, busy, done * search.seeds + again * epochs * seeds_of(config, "c"), whole)


def _generations(config: SweepConfig, at_once: int, cost: Cost) -> Outcome:
    """Simulate a population: no trial is stopped, and all wait for one another at each generation's end."""
    total, epochs, every = total_trials(config), config.experiment.training.epochs, config.search.perturb_epochs
    turns = math.ceil(total / at_once)
    wall, busy, epoch = cost.cold, min(total, at_once) * cost.cold, 0
    while epoch < epochs:
        end, step = min(epoch + every, epochs), cost.start * config.search.seeds
        while epoch < end:
            step += _until_report(config, cost, epoch)
            epoch = _next_report(config, epoch)
        wall, busy = wall + turns * step, busy + total * step
    return Outcome(wall, busy, total * epochs * config.search.seeds, total)


def _trial(config: SweepConfig, number: int, height: float) -> Any:
    names = [name for name, _ in fixed_points(config)]
    fixed = names[number] if number < len(names) else None
    return SimpleNamespace(config={NUMBER: number, FIXED: fixed}, height=height, epoch=0)


def _next_report(config: SweepConfig, epoch: int) -> int:
    every = config.evaluate.every
    return min((epoch // every + 1) * every, config.experiment.training.epochs)


def _until_report(config: SweepConfig, cost: Cost, epoch: int) -> float:
    return config.search.seeds * ((_next_report(config, epoch) - epoch) * cost.epoch + cost.evaluation)


def _of_trial(config: SweepConfig, cost: Cost) -> float:
    """Seconds of all epochs of one seed."""
    epochs = config.experiment.training.epochs
    return epochs * cost.epoch + math.ceil(epochs / config.evaluate.every) * cost.evaluation


def _scores(config: SweepConfig, trial: Any, draw: random.Random) -> dict[str, float]:
    risen = 1 - math.exp(-4 * trial.epoch / config.experiment.training.epochs)
    return {name: sign * (trial.height * risen + draw.gauss(0, 0.02)) for name, sign in config.search.signs.items()}


def _settings(config: SweepConfig) -> dict[str, SweepConfig]:
    """The config as it is, and as it would be with other schedulers."""

    def other(**values: Any) -> SweepConfig:
        return config.model_copy(update={"search": config.search.model_copy(update=values)})

    search = config.search
    own: str = search.scheduler
    if own == "asha":
        own = f"asha, reduction {search.reduction}, grace {search.grace_epochs}"
    found = {f"{own} (the file's)": config}
    if len(search.metrics) == 1:
        graces = (search.grace_epochs, search.grace_epochs * search.reduction)
        for reduction, grace in [*((reduction, graces[0]) for reduction in (2, 3, 4)), (search.reduction, graces[1])]:
            same = search.scheduler == "asha" and (reduction, grace) == (search.reduction, search.grace_epochs)
            if not same and grace < config.experiment.training.epochs:
                name = f"asha, reduction {reduction}, grace {grace}"
                found[name] = other(scheduler="asha", reduction=reduction, grace_epochs=grace)
    for name in ("median", "none") if len(search.metrics) == 1 else ("none",):
        if search.scheduler != name:
            found[name] = other(scheduler=name)
    return found


def _summary(found: Sequence[Outcome], need: float, gpus: int, price: float | None) -> dict[str, Any]:
    hours = [each.seconds / 3600 for each in found]
    rented = gpus * statistics.mean(hours)
    return {
        "hours": statistics.mean(hours),
        "hours_low": min(hours),
        "hours_high": max(hours),
        "gpu_hours": rented,
        "price": None if price is None else rented * price,
        "utilisation": statistics.mean(
            each.busy * need / 3600 / (gpus * hour) for each, hour in zip(found, hours, strict=True)
        ),
        "epochs": statistics.mean(each.epochs for each in found),
        "whole_trials": statistics.mean(each.whole for each in found),
    }
