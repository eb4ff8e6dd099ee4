"""Train the search's best trials again, with seeds that it has not used (`search.confirm`)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ray.tune.search import Searcher

from bgsweep.config import SweepConfig
from bgsweep.sweep.searcher import CHECKPOINT, CONFIRMS, EPOCHS, FIXED, NUMBER, VALUES, named
from bgsweep.sweep.selection import candidates, first_new_seed
from bgsweep.sweep.trial_names import confirmation_of
from bgsweep.sweep.trial_record import TrialRecord


def confirming(config: SweepConfig) -> SweepConfig:
    """The config of the trials that confirm others: they have other seeds, and none is stopped early."""
    assert config.search.confirm is not None
    update = {"seeds": config.search.confirm.seeds, "scheduler": "none", "confirm": None, "scheduler_options": {}}
    return config.model_copy(update={"search": config.search.model_copy(update=update)})


def proposals_of(config: SweepConfig, records: Mapping[str, TrialRecord]) -> list[dict[str, Any]]:
    """The trials that confirm others and have not ended, as configurations of Tune's.

    Those of the search's best trials, in their order, and of the baseline, which the champion is compared with on the
    same seeds.
    """
    best = candidates(records.values(), config.search)
    baseline = [each for each in records.values() if each.fixed == "baseline" and each.status == "completed"]
    found = []
    for record in [*best, *(each for each in baseline if each not in best)]:
        own = records.get(confirmation_of(record.id))
        if own is None or own.status == "running":
            found.append(
                {
                    NUMBER: int(record.id[1:]),
                    CONFIRMS: True,
                    FIXED: f"confirms {record.id}",
                    VALUES: {**record.params, "seed": first_new_seed(config)},
                    CHECKPOINT: own.checkpoint if own else None,
                    EPOCHS: own.epochs if own else 0,
                }
            )
    return found


class Confirmations(Searcher):
    """Given proposals, one after the other, behind Ray Tune's interface of a searcher.

    Args:
        limit: as of `bgsweep.sweep.searcher.TuneSearcher`.

    Attributes:
        over: as of `bgsweep.sweep.searcher.TuneSearcher`.
    """

    def __init__(self, proposals: list[dict[str, Any]], limit: Callable[[Collection[str]], str]) -> None:
        super().__init__(None, None)
        self.over = ""
        self.begun: set[str] = set()
        self._left, self._limit = list(proposals), limit
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        if not self._left:
            return Searcher.FINISHED
        self.over = "" if self._left[0][EPOCHS] else self._limit(self.begun)
        if self.over:
            return None if self.begun else Searcher.FINISHED
        proposal = self._left.pop(0)
        self._names[trial_id] = named(proposal)
        self.begun.add(named(proposal))
        return proposal

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.begun.discard(self._names[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """As of `bgsweep.sweep.searcher.TuneSearcher`."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
