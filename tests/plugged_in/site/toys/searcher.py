"""A toy."""

from random import Random
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.config.base import Probability, Section
from bgsweep.sweep.searchers import TrialSearcher


class ToySettings(Section):
    """The toy's only setting."""

    low: Probability = 0.5


class ToySearcher(TrialSearcher):
    """Draws one of the options, or one of the ends of a range."""

    Settings = ToySettings

    def __init__(self, config: SweepConfig) -> None:
        super().__init__(config)
        self._random = Random(config.search.seed)

    def propose(self, trial: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, _, distribution in self.config.space.walk(values):
            ends = distribution.extremes()
            values[key] = ends[0] if self._random.random() < self.settings.low else ends[-1]
        return self.config.typed(values)
