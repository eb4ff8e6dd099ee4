"""The importance of a sweep's parameters and the effect of each, as values and as sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bgsweep.config import Distribution, SweepConfig
from bgsweep.report.charts import Measures
from bgsweep.report.effects import Effect, effect, sentence, within
from bgsweep.report.history import Trial, common_epoch
from bgsweep.report.statistics import Interval, enough_for_importance, importance

_ACCURACIES = ("knn_top1", "mixed_rand", "mixed_same")


@dataclass(frozen=True)
class Findings:
    """Importance and effects of parameters, as far as trials tell them.

    Attributes:
        measures: the metrics.
        epoch: at which trials are compared; None if none was measured.
        count: trials within the space that were measured at it.
        missing: trials that an importance would need beyond these.
        importance: by metric and parameter, its share of the variance and the interval.
        effects: by metric and parameter.
    """

    measures: Measures
    epoch: int | None = None
    count: int = 0
    missing: int = 0
    importance: dict[str, dict[str, tuple[float, Interval]]] = field(default_factory=dict)
    effects: dict[str, dict[str, Effect]] = field(default_factory=dict)

    def sentences(self, name: str) -> list[str]:
        """The effects on a metric in words, of the most important parameter first."""
        label, share = self.measures.names[name], self.measures.share
        effects, shares = self.effects[name], self.importance[name]
        order = sorted(effects, key=lambda key: (not effects[key].changes, -shares[key][0]))
        return [sentence(key, label, effects[key], share) for key in order]

    def public(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        shares = {
            name: {key: {"share": share, "interval": interval} for key, (share, interval) in found.items()}
            for name, found in self.importance.items()
        }
        effects = {name: {key: asdict(one) for key, one in found.items()} for name, found in self.effects.items()}
        sentences = {name: self.sentences(name) for name in self.effects}
        return {"epoch": self.epoch, "importance": shares, "effects": effects, "sentences": sentences}


def findings(config: SweepConfig, trials: Sequence[Trial]) -> Findings:
    """The findings from the trials of a search, without those that confirm others."""
    measures = measures_of(config, trials)
    measured = [trial for trial in trials if measures.metric in trial.last]
    epoch, space = common_epoch(measured), unconditional(config)
    if epoch is None:
        return Findings(measures)
    there = [trial for trial in measured if epoch in trial.curve and within(space, trial.params)]
    missing = enough_for_importance(len(there), len(space))
    if missing or not space:
        return Findings(measures, epoch, len(there), missing)
    points = [
        {key: space[key].as_listed(value) if key in space else value for key, value in trial.params.items()}
        for trial in there
    ]
    found = Findings(measures, epoch, len(there))
    for name in measures.names:
        found.importance[name] = importance(space, points, [by_seed(trial.curve[epoch], name) for trial in there])
        sign = measures.sign if name == measures.metric else -1
        values = [trial.curve[epoch][name] for trial in there]
        effects = {key: effect(key, space, points, values, sign) for key in space}
        found.effects[name] = {key: one for key, one in effects.items() if one is not None}
    return found


def unconditional(config: SweepConfig) -> dict[str, Distribution]:
    """The searched parameters that every trial has, in one range."""
    plain = {key: ones[0] for key, ones in config.space.parameters.items() if len(ones) == 1}
    return {key: one for key, one in plain.items() if not one.when}


def by_seed(metrics: Mapping[str, float], name: str) -> list[float]:
    """A metric of each of a trial's seeds; its value if it has one seed."""
    return [value for key, value in metrics.items() if key.startswith(f"{name}/seed_")] or [metrics[name]]


def measures_of(config: SweepConfig, trials: Sequence[Trial]) -> Measures:
    """The accuracy by which trials are compared, and BG-Gap if all trials have it; without classes the first metric."""
    asked = config.search.model_dump(mode="json")["metric"]
    measured = [trial.last for trial in trials if trial.last]
    if measured and not any("knn_top1" in each for each in measured) and config.search.metrics[0] != "loss":
        (first, sign), *_ = config.search.signs.items()
        return Measures(first, None, first.removeprefix("validation/"), sign, share=False)
    metric = next((name for name in _ACCURACIES if name in ([asked] if isinstance(asked, str) else asked)), "knn_top1")
    gap = "bg_gap" if measured and all("bg_gap" in each for each in measured) else None
    return Measures(metric, gap, f"kNN on {config.evaluate.variant if metric == 'knn_top1' else metric}")
