"""Promotion: a sweep's winner becomes champion if it beats the registered one by more than the noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.config.evaluation import CHALLENGER
from bgsweep.config.metric_names import shown_name
from bgsweep.errors import UserError
from bgsweep.evaluation import Report
from bgsweep.evaluation.bootstrap import agree, paired
from bgsweep.tracking import Tracker
from bgsweep.tracking.encoders import from_mlflow
from bgsweep.tracking.registry import holder
from bgsweep.training.checkpoint import TrainedEncoder
from bgsweep.training.final_evaluation import evaluate_final

RESAMPLINGS = 10_000
_LOOKS = 5  # so many sweeps that end within the same minutes
Judge = Callable[[SweepConfig, TrainedEncoder], Report]


@dataclass(frozen=True)
class Decision:
    """The alias that the winner gets and why, with the champion it was compared with, if any, and that one's report."""

    alias: str
    reason: str
    version: int | None = None
    report: Report | None = None

    def tags(self) -> dict[str, str]:
        """Tags of the registered version."""
        return {"decision": self.alias, "reason": self.reason}


def decide(tracker: Tracker, winner: SweepConfig, run: str, report: Report, judge: Judge = evaluate_final) -> Decision:
    """Evaluate the registered champion by the winner's protocol on the same images, and compare.

    The winner gets the alias if its decisive accuracy is higher and the paired 95 % interval of the difference excludes
    zero, or if no version holds the alias. It does not get it where the champion cannot be evaluated.

    Args:
        judge: evaluates an encoder by a config.
        run: the winner's MLflow run; a champion that this run has made (by a driver that died) stays champion.
    """
    entry = winner.register_as
    champion = holder(tracker, entry.name, entry.alias)
    if champion is None:
        return Decision(entry.alias, f"no version of {entry.name} was {entry.alias}")
    if champion.run_id == run:
        return Decision(entry.alias, champion.tags.get("reason", ""))
    version = int(champion.version)
    try:
        theirs = judge(winner, _as_trained(f"models:/{entry.name}/{version}", winner, tracker.address))
    except UserError as error:
        return Decision(CHALLENGER, f"version {version}, the {entry.alias}, cannot be evaluated here: {error}", version)
    if report.decisive is None:
        goal = winner.search.goals[0]
        better, reason = compare_unlabelled(report, theirs, goal.name, winner.search.signs[goal.name])
        what = shown_name(goal.name).replace("validation", "test", 1)
    else:
        better, reason = compare(report, theirs, winner.evaluate.seed)
        what = f"{winner.evaluate.variant} kNN"
    shown = f"{what} against version {version}, the {entry.alias}: {reason}"
    return Decision(entry.alias if better else CHALLENGER, shown, version, theirs)


def decide_again(
    tracker: Tracker, winner: SweepConfig, run: str, report: Report, decision: Decision, judge: Judge = evaluate_final
) -> Decision:
    """The decision, made anew as long as another version has become champion since it was made.

    Evaluating a champion takes minutes, in which another sweep may replace it.
    """
    entry = winner.register_as
    for _ in range(_LOOKS):
        champion = holder(tracker, entry.name, entry.alias)
        if champion is None or champion.run_id == run or int(champion.version) == decision.version:
            break
        decision = decide(tracker, winner, run, report, judge)
    return decision


def compare(ours: Report, theirs: Report, seed: int) -> tuple[bool, str]:
    """Compare two reports: True if ours is better by more than the noise, and a sentence that says so."""
    first, second = theirs.decisive, ours.decisive
    assert first is not None and second is not None, "measured on the same images, which have classes"
    if len(first.hits) != len(second.hits):
        return False, f"measured on {len(second.hits)} and {len(first.hits)} images, which cannot be paired"
    found = paired(first, second, RESAMPLINGS, seed)
    better = found.lower > 0
    if agree(first, second):
        return False, (
            f"no difference: both get the same {len(first.hits)} test images right ({100 * second.value:.1f} %), and "
            f"they differ by less than {100 * max(found.upper, -found.lower):.1f} points (95 %)"
        )
    verdict = "better by more than the noise" if better else "not better by more than the noise"
    return better, (
        f"{verdict}: {100 * second.value:.1f} % against {100 * first.value:.1f} % of {len(first.hits)} test "
        f"images, difference {100 * found.value:+.1f} [{100 * found.lower:+.1f}, {100 * found.upper:+.1f}]"
    )


def compare_unlabelled(ours: Report, theirs: Report, name: str, sign: int) -> tuple[bool, str]:
    """As `compare`, by a metric without labels: ours is better by twice the standard error of the difference.

    The two are of the same images, and taken as independent, which makes the error too large rather than too small.
    """
    tested = name.replace("validation", "test", 1)
    if tested not in ours.unlabelled:
        return False, f"{name} is not measured on the test split, so that the two cannot be compared"
    values = [each.unlabelled[tested] for each in (ours, theirs)]
    error = math.hypot(*(each.unlabelled.get(f"{tested}_se", 0.0) for each in (ours, theirs)))
    gain = sign * (values[0] - values[1])
    better = gain > 2 * error
    verdict = "better by more than the noise" if better else "not better by more than the noise"
    return better, f"{verdict}: {values[0]:.4g} against {values[1]:.4g}, standard error of the difference {error:.2g}"


def _as_trained(uri: str, winner: SweepConfig, address: str) -> TrainedEncoder:
    """A registered encoder, as if it had been trained on the winner's images and machine."""
    loaded = from_mlflow(uri, address)
    assert loaded.experiment is not None, "bgsweep's own models say what they come from"
    ours: dict[str, Any] = {name: getattr(winner.experiment, name) for name in ("data", "training", "workers")}
    return TrainedEncoder(loaded.experiment.model_copy(update=ours), loaded.encoder, {})
