"""Grid search: every combination of the options, once."""

from collections.abc import Iterator
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.sweep.searchers.base import TrialSearcher


class GridSearcher(TrialSearcher):
    """Proposes all combinations in the config's order."""

    def __init__(self, config: SweepConfig) -> None:
        super().__init__(config)
        self._left = _combinations(config, {})

    @classmethod
    def limit(cls, config: SweepConfig) -> int:
        return sum(1 for _ in _combinations(config, {}))

    def propose(self, trial: str) -> dict[str, Any]:
        return next(self._left)


def _combinations(config: SweepConfig, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The combinations that begin with these values."""
    following = next(((key, each) for key, _, each in config.space.walk(values) if key not in values), None)
    if following is None:
        yield values
        return
    key, distribution = following
    for option in distribution.options or ():
        yield from _combinations(config, {**values, key: option})
