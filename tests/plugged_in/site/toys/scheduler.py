"""A toy."""

from bgsweep.config import SweepConfig
from bgsweep.config.base import Section
from bgsweep.sweep.stopping_rule import StoppingRule


class MarginSettings(Section):
    """The toy's only setting."""

    margin: float = 0.1


class Margin(StoppingRule):
    """Stops trials whose score lies below the best so far of any trial, by more than a margin."""

    Settings = MarginSettings

    def __init__(self, config: SweepConfig) -> None:
        super().__init__(config)
        self._best = float("-inf")

    def stops(self, trial: str, epoch: int, score: float) -> bool:
        self._best = max(self._best, score)
        return score < self._best - float(self.settings.margin)
