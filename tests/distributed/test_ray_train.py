"""Ray Train's workers, restarted where workers or nodes are lost."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from bgsweep.config import load
from bgsweep.distributed import ray_train, train
from bgsweep.distributed.ray_train import classify
from bgsweep.distributed.session import ray_session
from bgsweep.errors import UserError, WorkersFailed
from bgsweep.training import load_checkpoint
from tests.faults.clusters import cluster, kill_node, raylet

TINY = Path(__file__).parents[1] / "tiny.yaml"


DIED = (
    "The actor died unexpectedly before finishing this task.\n\tpid: 7\nThe actor died because its node has died. Node "
    "Id: 12ab. Some common causes include: (1) the process was killed"
)


def failed(failures: dict[int, Exception]) -> WorkerGroupError:
    return WorkerGroupError("[Rank 0 Error Snippet]:\nTraceback …\n", failures)


def dead() -> Exception:
    return WorkerHealthCheckFailedError("Worker 1 health check failed", RayActorError(error_msg=DIED))


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (ControllerError(WorkerGroupStartupTimeoutError(2)), "start", r"^2 workers did not start in time, 4 times, "),
        (failed({1: UserError("x.png: not an image")}), "other", r"^x\.png: not an image$"),
        (failed({0: ValueError("first\nlast line")}), "died", r"^worker 0: ValueError: last line$"),
        (
            failed({0: RuntimeError("connection reset"), 1: dead()}),
            "died",
            r"^worker 1 died: The actor died because its node has died\. Node Id: 12ab\.$",
        ),
        (ValueError("anything"), "other", "^anything$"),
    ],
)
def test_a_failure_has_a_kind_and_one_line(error: Exception, kind: str, line: str) -> None:
    found, told = classify(error)
    assert found == kind
    with pytest.raises(type(told), match=line):
        raise told
    assert "\n" not in str(told) and "Potential causes" not in str(told)
    assert isinstance(told, WorkersFailed) is (kind in ("start", "died"))


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_workers_waits_for_the_cluster_and_ends_as_one_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two nodes first one is lost, then the other; both come back after longer than Ray Train would wait."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    monkeypatch.setattr(ray_train, "_GROW_EVERY", 5.0)
    short = ["workers={device: cpu, count: 2, min_count: 1}", "training={epochs: 7, batch_size: 64}"]
    config = load(TINY, [*short, "evaluate.every=7", "search.wait_minutes=10"])
    found: dict[str, list[Any]] = {"quiet": [], "disturbed": []}
    with ray_session(2):
        train.train(config, tmp_path / "quiet", lambda metrics, _: found["quiet"].append(metrics))
    with cluster(1, 1) as made:
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        lost: list[float] = []
        counts: list[int] = []

        def on_epoch(metrics: dict[str, Any], _: Any) -> None:
            found["disturbed"].append(metrics)
            if not lost or (len(lost) == 1 and counts[-1] == 1):  # after an epoch by two, and after one by one
                node = next(iter(made.worker_nodes))
                processes = raylet(node).children(recursive=True)
                kill_node(made, node)
                for process in processes:  # would notice it only after some more epochs
                    process.kill()
                lost.append(time.monotonic())

        def tell(line: str, **_: Any) -> None:
            if len(made.worker_nodes) == 0 and "waiting" in line and time.monotonic() - lost[-1] > 20:
                made.add_node(num_cpus=1)
                made.add_node(num_cpus=1)

        make = ray_train.ray_trainer
        monkeypatch.setattr(ray_train, "ray_trainer", lambda *a: counts.append(a[1]) or make(*a))

        monkeypatch.setattr(ray_train, "print", tell, raising=False)
        monkeypatch.setattr("bgsweep.distributed.resources._TELL_EVERY", 2.0)
        with ray_session(2):
            train.train(config, tmp_path / "disturbed", on_epoch)
    assert len(lost) == 2 and len(made.worker_nodes) == 2, "it did not wait"
    assert counts[0] == 2 and 1 in counts and counts[-1] == 2, counts  # more of them where Ray sees a loss late
    assert [metrics["epoch"] for metrics in found["disturbed"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [each["loss"] for each in found["disturbed"]] == pytest.approx(
        [each["loss"] for each in found["quiet"]], rel=0.02
    )
    states = [load_checkpoint(max((tmp_path / name).glob("checkpoint_*/state.pt"))) for name in found]
    assert all(torch.isfinite(value).all() for value in states[1]["method"].values())
    assert states[0]["epoch"] == states[1]["epoch"] == 7


@pytest.mark.parametrize(
    ("overrides", "counts"),
    [
        (["workers.count=4"], [4]),
        (["workers={count: 4, min_count: 1}", "training.batch_size=64"], [1, 2, 4]),
        (["workers={count: 8, min_count: 4}", "training.batch_size=320", "method.split_bn=5"], [4, 5, 8]),
    ],
)
def test_the_numbers_of_workers_divide_the_batch_and_its_groups(overrides: list[str], counts: list[int]) -> None:
    experiment = load(TINY, overrides).experiment
    assert experiment.worker_counts() == counts
    for count in counts:
        fewer = experiment.with_workers(count)
        assert fewer.workers.count == count and fewer.training == experiment.training
        assert fewer.method.split_bn * count == experiment.method.split_bn * experiment.workers.count


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["workers.min_count=1"], "workers.min_count: 1 is not below workers.count 1"),
        (["workers={count: 4, min_count: 3}"], "no number from 3 to 3 divides training.batch_size 320 and the groups"),
    ],
)
def test_an_impossible_smallest_number_of_workers_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(TINY, overrides)
