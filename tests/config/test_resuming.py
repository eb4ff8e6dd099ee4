"""Changes of settings with which a run goes on from its checkpoint, and those that make another run of it."""

import pytest

from bgsweep.config import Experiment, resolve
from bgsweep.config.resuming import changes, decisive, moved, told

BYOL = ["method={name: byol}"]


def experiment(*overrides: str) -> Experiment:
    return resolve({}, list(overrides)).experiment


@pytest.mark.parametrize(
    "now",
    [
        ["data.loader_workers=3", "data.cache=true", "training.checkpoint_every=5"],
        ["workers={device: cpu, cpus: 2, max_failures: 9}"],
        ["training.epochs=400"],
        ["workers.count=2", "method.split_bn=4"],
        ["data.loader_memory_gb=1"],
        ["data.images=/elsewhere"],
        ["data.pack=/elsewhere"],
    ],
)
def test_how_a_run_is_run_may_change(now: list[str]) -> None:
    before = experiment("method.split_bn=8")
    after = experiment("method.split_bn=8", *now)
    assert before.digest != after.digest and changes(before, after) and not decisive(before, after)


def test_only_other_paths_are_a_move() -> None:
    assert moved(changes(experiment("data.images=/a"), experiment("data.images=/b")))
    assert not moved(changes(experiment("data.images=/a"), experiment("data.images=/a", "data.cache=true")))


def test_workers_that_share_a_batch_may_be_more_or_fewer() -> None:
    assert not decisive(experiment(*BYOL, "workers.count=2"), experiment(*BYOL))


@pytest.mark.parametrize(
    ("before", "now", "keys"),
    [
        (["optimizer.lr=0.1"], ["optimizer.lr=0.2", "data.cache=true"], ["optimizer.lr"]),
        (["training.epochs=100"], ["training.epochs=50"], ["training.epochs"]),
        (["workers.count=2"], [], ["workers.count"]),
        (["method.split_bn=2"], [], ["method.split_bn"]),
        ([], ["views.size=96"], ["views.size"]),
    ],
)
def test_what_decides_results_is_named(before: list[str], now: list[str], keys: list[str]) -> None:
    assert list(decisive(experiment(*before), experiment(*now))) == keys


def test_changes_are_told_in_a_line() -> None:
    found = changes(experiment(), experiment("optimizer.lr=0.2", "method={name: byol}"))
    assert "optimizer.lr: 0.03 before, 0.2 now" in told(found) and "\n" not in told(found)
    assert found["method.queue_size"] == (65536, None)
