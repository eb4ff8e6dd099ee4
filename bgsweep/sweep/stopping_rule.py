"""The interface of other packages' schedulers: rules that stop trials early."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from bgsweep.config import SweepConfig
from bgsweep.config.base import Section


class StoppingRule(ABC):
    """Stops trials early; only `stops` must be written.

    After the death of a sweep's driver a new rule gets the same calls in the same order, from the journal, and must
    decide the same: draw from `config.search.seed` and from these calls only. Nothing else of a rule is saved.

    It is named in `search.scheduler`: by its path, ``package.module:Class``, or by an entry point of the group
    ``bgsweep.schedulers``. Its `Settings` check `search.scheduler_options`.
    """

    Settings: ClassVar[type[Section]] = Section
    """The rule's own settings, if it has any."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.settings: Any = self.Settings.model_validate(config.search.scheduler_options)

    @abstractmethod
    def stops(self, trial: str, epoch: int, score: float) -> bool:
        """True if a trial shall end after an epoch in which it was evaluated.

        It is asked about all trials, so that it learns of them, but neither the baseline nor a trial before
        `search.grace_epochs` is stopped.

        Args:
            trial: t00, t01, ... in the order in which trials began.
            epoch: from 1 on; after a restart from a checkpoint none comes again.
            score: the metric that is searched for, with its sign changed where lower is better.
        """
