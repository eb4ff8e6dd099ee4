"""Sweeps side by side: what each may run. Two real ones share a cluster in tests/rehearsal."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.search import Searcher

from bgsweep.config import resolve
from bgsweep.sweep.fair_share import FairShareSearcher, part
from bgsweep.sweep.schedulers import build_scheduler


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
    shares = [part(room, place, sweeps) for place in range(sweeps)]
    assert sum(shares) == room
    assert max(shares) - min(shares) <= 1 and shares == sorted(shares, reverse=True)


def test_eight_devices_run_eight_trials_of_two_sweeps() -> None:
    assert [part(8, place, 2) for place in (0, 1)] == [4, 4]
    assert [part(3, place, 2) for place in (0, 1)] == [2, 1]


@pytest.mark.slow
def test_a_sweep_whose_share_shrinks_gives_back_all_that_it_does_not_use(tmp_path: Path) -> None:
    """With Tune's own bookkeeping one of four devices would stay with an idle actor."""
    shares, free, seen = {"now": 4}, {}, []

    class Waiting(tune.Trainable):
        """A trial of a few short steps."""

        def step(self) -> dict[str, Any]:
            time.sleep(0.1)
            return {"epoch": self.iteration + 1, "m": 1.0, "done": self.iteration >= 10}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            seen.append(trial)
            if len(seen) == 6:
                shares["now"] = 2
            if len(seen) > 10:
                free[len(seen)] = ray.available_resources().get("CPU", 0.0)

    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "4"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        scheduler, _ = build_scheduler(resolve({"search": {"scheduler": "none"}}))
        tune.Tuner(
            tune.with_resources(Waiting, {"CPU": 1}),
            tune_config=tune.TuneConfig(
                search_alg=FairShareSearcher(Numbers(metric="m", mode="max"), lambda: shares["now"]),
                scheduler=scheduler,
                num_samples=16,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), callbacks=[Watch()], verbose=0),
        ).fit()
    finally:
        del os.environ["TUNE_MAX_PENDING_TRIALS_PG"]
        ray.shutdown()
    assert max(free.values()) >= 2, free
