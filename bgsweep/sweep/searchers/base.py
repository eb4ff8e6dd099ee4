"""The interface of searchers: propose the values of a sweep's trials, and learn from what the trials measure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from bgsweep.config import SweepConfig
from bgsweep.config.base import Section


class TrialSearcher(ABC):
    """Proposes the values of trials; only `propose` must be written.

    Trials are named t00, t01, ... in the order in which they are proposed. After the death of a sweep's driver a new
    searcher gets the same calls in the same order, from the journal, and must make the same proposals: draw from
    `config.search.seed` and from these calls only. Nothing else of a searcher is saved.

    One of another package is named in `search.algorithm`: by its path, ``package.module:Class``, or by an entry point
    of the group ``bgsweep.searchers``. Its `Settings` check `search.options`.
    """

    Settings: ClassVar[type[Section]] = Section
    """The searcher's own settings, if it has any."""

    exhaustive: ClassVar[bool] = False
    """It proposes each combination of options once, so that ranges are refused; `limit` says how many there are."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.settings: Any = self.Settings.model_validate(config.search.options)

    @classmethod
    def limit(cls, config: SweepConfig) -> int | None:
        """The number of trials that it proposes besides the fixed points; None: as many as `search.trials` asks for."""
        return None

    @abstractmethod
    def propose(self, trial: str) -> dict[str, Any]:
        """The values of a new trial, by dotted key.

        `config.space.walk(values)` gives the keys in an order in which each comes after those that it depends on, and
        leaves out keys that do not apply beside the values drawn so far.
        """

    def add_fixed(self, trial: str, values: Mapping[str, Any]) -> None:  # noqa: B027  optional
        """Learn of a trial inside the space whose values the config decides: the baseline, or one of `space.points`."""

    def on_result(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:  # noqa: B027
        """Learn a trial's metrics at an epoch, in which it may still be stopped; each epoch comes once."""

    def on_errors(self, trial: str, errors: Mapping[str, float]) -> None:  # noqa: B027
        """Learn the standard errors of a trial's last metrics, of those that have one; before `on_end`."""

    def on_end(  # noqa: B027
        self, trial: str, status: Literal["completed", "stopped", "failed"], metrics: Mapping[str, float]
    ) -> None:
        """Learn that a trial has ended, with its last metrics; those of a failed trial may be missing."""
