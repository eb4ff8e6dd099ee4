"""Simulated sweeps over recorded trials, for `search.py`: with bgsweep's searchers and schedulers, and freeze-thaw."""

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.tune.schedulers import TrialScheduler

from bgsweep.config import SweepConfig
from bgsweep.sweep.fronts import hypervolume
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import FIXED, NUMBER, name_of
from bgsweep.sweep.searchers import searcher_class

KEYS = ("background.remove", "background.random", "optimizer.lr")
STEP = 2
"""Epochs between two values of a curve."""

Numbers = npt.NDArray[np.float64]
Course = list[tuple[int, list[float]]]
"""The scores (higher is better) of the trials that ran to their end, each after so many epochs of all trials."""


@dataclass(frozen=True)
class Recorded:
    """A trial that was trained: its values by dotted key, and its metrics by epoch."""

    values: dict[str, Any]
    curve: Mapping[int, Mapping[str, float]]

    @property
    def place(self) -> Numbers:
        """Its values without the method, each between 0 and 1."""
        return place(self.values)


def recorded(path: Path) -> list[Recorded]:
    """The trials of `metrics.py`'s folder that have a curve and reached their end, or those of a file of `lines_of`."""
    if path.is_file():
        texts = path.read_text().splitlines()
    else:
        texts = [each.read_text() for each in sorted(path.glob("*.json"))]
    every = [json.loads(text) for text in texts]
    return [
        Recorded(
            {"method.name": one["group"], **{key: one[key] for key in KEYS}},
            {int(epoch): each for epoch, each in one["curve"].items()} | {one["epochs"]: one["values"]},
        )
        for one in every
        if "values" in one and one.get("curve")
    ]


def lines_of(trials: Sequence[Recorded]) -> list[str]:
    """Trials as lines of JSON, with the metrics that curves have, as `recorded` reads them."""
    found = []
    for one in trials:
        values = {key: value for key, value in one.values.items() if key != "method.name"}
        *earlier, last = sorted(one.curve)
        curve = {str(epoch): dict(one.curve[epoch]) for epoch in earlier}
        end = {name: one.curve[last][name] for name in curve[str(earlier[0])]}
        line = {"group": one.values["method.name"], **values, "epochs": last, "curve": curve, "values": end}
        found.append(json.dumps(line, separators=(",", ":")))
    return found


def place(values: Mapping[str, Any]) -> Numbers:
    remove, random, rate = (values[key] for key in KEYS)
    return np.array([remove / 0.45, random / 0.45, math.log(rate / 0.01) / math.log(30)])


@dataclass(frozen=True)
class Box:
    """The hypervolume of points above the worst value of each goal, as a share of that of all trials."""

    low: list[float]
    high: list[float]
    whole: float

    @classmethod
    def around(cls, points: Sequence[Sequence[float]]) -> "Box":
        low, high = (list(map(float, edge)) for edge in (np.min(points, axis=0), np.max(points, axis=0)))
        one = cls(low, high, 1.0)
        return cls(low, high, one.volume(points))

    def volume(self, points: Sequence[Sequence[float]]) -> float:
        spans = [(low, (high - low) or 1.0) for low, high in zip(self.low, self.high, strict=True)]
        scaled = [[(each - low) / span for each, (low, span) in zip(one, spans, strict=True)] for one in points]
        return float(hypervolume(scaled, [0.0] * len(self.low))) / self.whole if scaled else 0.0

    def gains(self, front: Sequence[Sequence[float]], points: Numbers) -> Numbers:
        """The hypervolume that each point (..., one or two goals) would add to that of others, not as a share."""
        span = np.array(self.high) - self.low
        above = np.maximum(0.0, (points - self.low) / np.where(span > 0, span, 1.0))
        have = np.maximum(0.0, (np.array(front).reshape(-1, len(span)) - self.low) / np.where(span > 0, span, 1.0))
        if len(span) == 1:
            return np.asarray(np.maximum(0.0, above[..., 0] - have.max(initial=0.0)))
        have = have[np.argsort(have[:, 0])]
        edges = np.concatenate([[0.0], have[:, 0], [np.inf]])
        heights = np.append(np.maximum.accumulate(have[::-1, 1])[::-1], 0.0)  # of the front between two edges
        inside = np.clip(above[..., :1], edges[:-1], edges[1:]) - edges[:-1]
        return np.asarray((inside * np.maximum(0.0, above[..., 1:] - heights)).sum(-1))


class Sweep:
    """One simulated sweep: its searcher, the recorded trials that are left, and the epochs spent."""

    def __init__(self, config: SweepConfig, trials: Sequence[Recorded]) -> None:
        self.left = list(trials)
        self.spent = 0
        self.course: Course = []
        self.signs = config.search.signs
        self.last = config.experiment.training.epochs
        self._searcher = searcher_class(config)(config)
        self._given = 0

    def begin(self) -> tuple[str, Recorded]:
        """The next trial: what the searcher proposes, moved to the nearest trial that is left."""
        name = name_of(self._given)
        self._given += 1
        wanted = self._searcher.propose(name)
        aim = place(wanted)

        def distance(one: Recorded) -> float:
            other = one.values["method.name"] != wanted["method.name"]
            return float(10.0 * other + np.linalg.norm(one.place - aim))

        found = min(self.left, key=distance)
        self.left.remove(found)
        self._searcher.on_end(name, "failed", {})  # as where a journal's values are others than those proposed
        self._searcher.add_fixed(name, found.values)
        return name, found

    def measure(self, name: str, trial: Recorded, epoch: int) -> dict[str, float]:
        """The searched metrics of a trial that has trained to an epoch, of which the searcher learns."""
        self.spent += STEP
        metrics = {goal: trial.curve[epoch][goal] for goal in self.signs}
        self._searcher.on_result(name, epoch, metrics)
        return metrics

    def end(self, name: str, epoch: int, metrics: Mapping[str, float]) -> None:
        whole = epoch >= self.last
        self._searcher.on_end(name, "completed" if whole else "stopped", metrics)
        if whole:
            self.course.append((self.spent, self.scores(metrics)))

    def scores(self, metrics: Mapping[str, float]) -> list[float]:
        return [sign * metrics[goal] for goal, sign in self.signs.items()]


class MadeSweep(Sweep):
    """A sweep over a known function instead of recorded trials: none of its proposals is taken, and none is moved."""

    def __init__(self, config: SweepConfig, trials: int) -> None:
        super().__init__(config, [])
        self.left = [Recorded({}, {})] * trials
        self._noise = np.random.default_rng(config.search.seed)
        self._ends: dict[str, dict[str, float]] = {}

    def begin(self) -> tuple[str, Recorded]:
        name = name_of(self._given)
        self._given += 1
        self.left.pop()
        values, curve = self._searcher.propose(name), {}
        self._ends[name] = made_ends(values)
        for epoch in range(STEP, self.last + 1, STEP):
            risen = 1 - math.exp(-3 * epoch / self.last)
            curve[epoch] = {
                goal: risen * end + float(self._noise.normal(0, 0.01)) for goal, end in self._ends[name].items()
            }
        return name, Recorded(values, curve)

    def end(self, name: str, epoch: int, metrics: Mapping[str, float]) -> None:
        super().end(name, epoch, metrics)
        if epoch >= self.last:  # the front is that of the values without noise
            self.course[-1] = (self.spent, self.scores(self._ends[name]))


def made_ends(values: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a known function at a trial's end, with a front between accuracy and BG-Gap along BG_Random."""
    remove, random, rate = (values[key] for key in KEYS)
    off = math.log10(rate / 0.05)
    top1 = 0.5 - 0.25 * off**2 - 0.3 * random**2 - 0.2 * (remove - 0.2) ** 2
    return {"knn_top1": top1, "bg_gap": 0.35 - 0.45 * random - 0.15 * remove + 0.2 * abs(off) * random + 0.1 * off**2}


def sweep_of(config: SweepConfig, trials: Sequence[Recorded] | int) -> Sweep:
    """A sweep over recorded trials, or over so many of a known function."""
    return MadeSweep(config, trials) if isinstance(trials, int) else Sweep(config, trials)


def with_scheduler(config: SweepConfig, trials: Sequence[Recorded] | int, workers: int, box: "Box") -> Course:
    """A sweep with its scheduler, which may stop trials."""
    sweep, scheduler = sweep_of(config, trials), build_scheduler(config)[0]
    any_scheduler: Any = scheduler
    waiting: list[tuple[int, int, str, Recorded, Any]] = []

    def begin(now: int) -> None:
        name, found = sweep.begin()
        trial = SimpleNamespace(config={NUMBER: int(name[1:]), FIXED: None}, epoch=0)
        any_scheduler.on_trial_add(None, trial)
        heapq.heappush(waiting, (now + STEP, int(name[1:]), name, found, trial))

    for _ in range(min(workers, len(sweep.left))):
        begin(0)
    while waiting:
        now, number, name, found, trial = heapq.heappop(waiting)
        trial.epoch += STEP
        metrics = sweep.measure(name, found, trial.epoch)
        result = {"epoch": trial.epoch, **metrics}
        goes_on = any_scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE
        if goes_on and trial.epoch < sweep.last:
            heapq.heappush(waiting, (now + STEP, number, name, found, trial))
            continue
        any_scheduler.on_trial_complete(None, trial, result)
        sweep.end(name, trial.epoch, metrics)
        if sweep.left:
            begin(now)
    return sweep.course


def freeze_thaw(config: SweepConfig, trials: Sequence[Recorded] | int, workers: int, box: "Box") -> Course:
    """A sweep in which each worker goes on with what promises most for the epochs that it still takes."""
    sweep, draw = sweep_of(config, trials), np.random.default_rng(config.search.seed)
    noise = draw.standard_normal((32, len(box.low)))
    paused: dict[str, tuple[Recorded, int, list[float]]] = {}
    ended: list[Recorded] = []

    def at(one: Recorded, epoch: int) -> list[float]:
        return sweep.scores(one.curve[epoch])

    def promises(states: Sequence[tuple[int, Sequence[float]]]) -> Numbers:
        """Expected gain of hypervolume for each epoch that trials still take; epoch 0 is that of a new trial."""
        last = np.array([at(one, sweep.last) for one in ended])
        rises = {
            epoch: last - (np.array([at(one, epoch) for one in ended]) if epoch else 0.0)
            for epoch in {epoch for epoch, _ in states}
        }
        drawn = {epoch: each.mean(0) + noise * each.std(0, ddof=1) for epoch, each in rises.items()}
        ends = [np.asarray(now) + drawn[epoch] for epoch, now in states]
        gains = box.gains([scores for _, scores in sweep.course], np.array(ends)).mean(1)
        return np.asarray(gains / (sweep.last - np.array([epoch for epoch, _ in states])))

    def next_trial() -> tuple[str, Recorded, int] | None:
        best = next(iter(paused), None)
        if sweep.left and (best is None or len(ended) < 4):
            return *sweep.begin(), 0
        if best is None:
            return None
        new = [(0, [0.0] * len(box.low))] if sweep.left else []
        known = promises([(epoch, now) for _, epoch, now in paused.values()] + new)
        if int(known.argmax()) == len(paused):
            return *sweep.begin(), 0
        best = list(paused)[int(known.argmax())]
        found, epoch, _ = paused.pop(best)
        return best, found, epoch

    busy = [each for each in (next_trial() for _ in range(workers)) if each]
    while busy:
        name, found, epoch = busy.pop(0)
        metrics = sweep.measure(name, found, epoch + STEP)
        if epoch + STEP >= sweep.last:
            sweep.end(name, sweep.last, metrics)
            ended.append(found)
        elif len(ended) >= 4:
            paused[name] = (found, epoch + STEP, sweep.scores(metrics))
        else:  # nothing can be predicted yet
            busy.append((name, found, epoch + STEP))
            continue
        following = next_trial()
        busy += [following] if following else []
    return sweep.course


def over_epochs(course: Course, box: Box) -> list[tuple[int, float]]:
    """The share of the hypervolume after so many epochs, whenever a trial ended."""
    ends = [scores for _, scores in course]
    return [(spent, box.volume(ends[: index + 1])) for index, (spent, _) in enumerate(course)]
