"""Sweeps side by side: what each may run. Two real ones share a cluster in tests/rehearsal."""

import contextlib
import functools
import math
import os
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util import placement_group_table

from bgsweep.config import load, resolve
from bgsweep.distributed.demand import Demand
from bgsweep.errors import UserError
from bgsweep.sweep.capacity import trials_that_fit
from bgsweep.sweep.fair_share import FairShare, FairShareSearcher, Wish, shares
from bgsweep.sweep.guards import DiskGuard
from bgsweep.sweep.preparation import check_store_is_shared
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.search import _Stop
from tests.faults.clusters import cluster
from tests.progress import wait_for


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


MANY = 10**6


@pytest.mark.parametrize("room", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("sweeps", [1, 2, 3, 7])
def test_shares_fill_the_cluster_and_differ_by_one_at_the_most(room: int, sweeps: int) -> None:
    given = shares([Wish(MANY, room)] * sweeps)
    assert sum(given) == room
    assert max(given) - min(given) <= 1 and given == sorted(given, reverse=True)


@pytest.mark.parametrize(
    ("wishes", "given"),
    [
        ([Wish(MANY, 8), Wish(MANY, 8)], [4, 4]),
        ([Wish(2, 8), Wish(MANY, 8)], [2, 6]),  # search.concurrent: 2, or the last two trials
        ([Wish(MANY, 8), Wish(1, 8), Wish(MANY, 8)], [4, 1, 3]),
        ([Wish(MANY, 8), Wish(MANY, 2)], [4, 1]),  # a trial of the second one takes four devices
        ([Wish(1, 8), Wish(MANY, 2), Wish(MANY, 8)], [1, 1, 3]),
        ([Wish(3, 8), Wish(2, 8)], [3, 2]),
        ([Wish(MANY, 1), Wish(MANY, 1)], [1, 0]),
    ],
)
def test_what_a_sweep_does_not_use_goes_to_the_others(wishes: list[Wish], given: list[int]) -> None:
    assert shares(wishes) == given


@pytest.mark.slow
def test_eight_gpus_are_all_used_by_two_sweeps_of_which_one_wants_few() -> None:
    config = load(Path(__file__).parents[1] / "tiny.yaml", ["workers.device=cuda"])
    fitting = functools.partial(trials_that_fit, config)
    ray.init(address="local", num_cpus=16, num_gpus=8, include_dashboard=False, log_to_driver=False)
    try:
        with FairShare("one", fitting, 2) as one, FairShare("other", fitting, None) as other:
            wait_for(lambda: (one(), other()) == (2, 6), other, "search.concurrent=2 of one leaves six")
            with FairShare("third", fitting, None) as third:
                wait_for(lambda: (one(), other(), third()) == (2, 3, 3), third, "")
                third.begin(lambda: 1)  # its final evaluation
                wait_for(lambda: (one(), other(), third()) == (2, 5, 1), third, "")
        with FairShare("alone", fitting, None) as alone:
            wait_for(lambda: alone() == 8, alone, "ended sweeps take nothing")
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_node_that_comes_later_is_checked_too(tmp_path: Path) -> None:
    def check() -> None:
        raise UserError("the store is a folder of this machine")

    monitor: Any = SimpleNamespace(disk=DiskGuard(tmp_path), early=SimpleNamespace(leave=False))
    with cluster(1) as made:
        ray.init(address=made.address, log_to_driver=False)
        try:
            with FairShare("one", lambda: 1, None, None, check) as share:
                assert share() == 1 and not share.refused  # the nodes that were there have been checked
                assert not _Stop(tmp_path / "stop", monitor, share, lambda: False).stop_all()
                made.add_node(num_cpus=1)
                wait_for(lambda: share.refused == "the store is a folder of this machine", ray.nodes, "not checked")
                assert _Stop(tmp_path / "stop", monitor, share, lambda: False).stop_all()
        finally:
            ray.shutdown()


def test_the_store_and_mlflows_file_must_be_on_all_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, str]] = []
    monkeypatch.setattr(
        "bgsweep.sweep.preparation.check_shared", lambda folder, what, fix: asked.append((folder, what))
    )
    check_store_is_shared(tmp_path / "store", f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert asked == [(tmp_path / "store", "the store"), (tmp_path / "runs", "MLflow's SQLite store")]
    asked.clear()
    check_store_is_shared("s3://bucket/runs", "http://mlflow:5000")
    assert not asked


@pytest.mark.slow
def test_pending_requests_are_withdrawn_when_they_are_placed_and_at_the_end() -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)

    def states() -> Counter[str]:
        return Counter(group["state"] for group in placement_group_table().values())

    try:
        with contextlib.closing(Demand([{"CPU": 1.0, "GPU": 0.0}, {"CPU": 1.0}])) as demand:
            demand.ask(3, 1)
            demand.ask(2, 1)
            assert states() == {"PENDING": 2, "REMOVED": 1}
        assert states() == {"REMOVED": 3}
        with contextlib.closing(Demand([{"CPU": 1.0}])) as demand:
            demand._grown = -math.inf  # the cluster has long been as it is
            demand._nodes = 1
            demand.ask(3, 1)
            wait_for(lambda: states()["CREATED"] == 1, states, "one fits")
            demand.ask(3, 1)  # what is free is left to trials for a while
            assert states() == {"REMOVED": 6}
            demand.ask(3, 2)
            assert states() == {"REMOVED": 6}
    finally:
        ray.shutdown()


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
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
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
