"""Sweeps side by side: what each may run. Two real ones share a cluster in tests/rehearsal."""

from typing import Any

import pytest
from ray.tune.search import Searcher

from bgsweep.sweep.fair_share import FairShareSearcher, part


class Numbers(Searcher):
    """Proposes 0, 1, 2, …"""

    given = 0

    def suggest(self, trial_id: str) -> dict[str, Any]:
        self.given += 1
        return {"number": self.given - 1}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass


def test_a_sweep_gives_way_and_takes_the_room_back() -> None:
    shares = {"now": 3}
    fair = FairShareSearcher(Numbers(metric="m", mode="max"), lambda: shares["now"])
    assert [fair.suggest(name) is not None for name in "abcd"] == [True, True, True, False]
    shares["now"] = 1  # another sweep has come
    fair.on_trial_complete("a")
    fair.on_trial_complete("b")
    assert fair.suggest("d") is None
    fair.on_trial_complete("c")
    assert fair.suggest("d") == {"number": 3}
    assert fair.suggest("e") is None
    shares["now"] = 3  # and is gone
    assert [fair.suggest(name) is not None for name in "efg"] == [True, True, False]


@pytest.mark.parametrize("room", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("sweeps", [1, 2, 3, 7])
def test_shares_fill_the_cluster_and_differ_by_one_at_the_most(room: int, sweeps: int) -> None:
    shares = [part(room, place, sweeps, keeps_one=False) for place in range(sweeps)]
    assert sum(shares) == room
    assert max(shares) - min(shares) <= 1 and shares == sorted(shares, reverse=True)


def test_an_idle_actor_counts_where_sweeps_meet() -> None:
    assert [part(8, place, 2, keeps_one=True) for place in (0, 1)] == [3, 3]
    assert part(8, 0, 1, keeps_one=True) == 8
    assert [part(3, place, 2, keeps_one=True) for place in (0, 1)] == [1, 1]
