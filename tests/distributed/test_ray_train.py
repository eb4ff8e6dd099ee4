"""Ray Train's workers, restarted where workers or nodes are lost."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from bgsweep.config import load
from bgsweep.distributed import ray_train, resources
from bgsweep.distributed.ray_train import RayTraining, classify
from bgsweep.errors import UserError, WorkersFailed

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
        (ControllerError(WorkerGroupStartupTimeoutError(2)), "full", r"^2 workers did not start in time, 4 times, "),
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
    assert isinstance(told, WorkersFailed) is (kind in ("full", "died"))


class _Queue:
    """Stands for what an autoscaler is asked for, which needs a cluster."""

    def __init__(self, bundles: Any) -> None:
        pass

    def ask(self, times: int, nodes: int) -> None:
        pass

    def close(self) -> None:
        pass


class _Shared(RayTraining):
    """A run on a cluster of one node of four cores, of which other trials use some.

    Args:
        used: cores that others use at the first start of workers, at the next, and so on.
    """

    def __init__(self, overrides: list[str], used: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(load(TINY, overrides), Path("folder"), lambda *_: None, 1)
        self.tried: list[int] = []
        self._used = used
        for module in (ray_train, resources):
            monkeypatch.setattr(module, "nodes", lambda: [{"CPU": 4.0}])
            monkeypatch.setattr(module, "unused_nodes", self._left)
        monkeypatch.setattr(resources, "Demand", _Queue)
        monkeypatch.setattr(resources, "_ASK_EVERY", 0.0)
        monkeypatch.setattr(resources, "_TELL_EVERY", 0.0)
        monkeypatch.setattr(ray_train, "uri_of", lambda path, _: path)

    def _left(self) -> list[dict[str, float]]:
        used = self._used[0]
        del self._used[: len(self._used) > 1]  # at the next look others use less
        return [{"CPU": 4.0 - used}]

    def _fit(self, count: int, asked: Any) -> tuple[Any, None]:
        self.tried.append(count)
        if count > 4 - self._used[0]:
            return ControllerError(WorkerGroupStartupTimeoutError(count)), None
        return SimpleNamespace(checkpoint=SimpleNamespace(path="done", filesystem=None)), None


TWO, FROM_ONE = "workers={device: cpu, count: 2}", "workers={device: cpu, count: 4, min_count: 1}"


@pytest.mark.parametrize(
    ("workers", "used", "tried", "waits"),
    [
        (TWO, [3] * 9 + [2], [2, 2], 8),  # longer than the four tries to start workers for which there is room
        (FROM_ONE, [2], [4, 2], 0),
        (FROM_ONE, [4] * 9 + [3], [4, 1], 8),
    ],
)
def test_workers_have_the_room_that_others_leave_or_wait_for_it(
    workers: str,
    used: list[int],
    tried: list[int],
    waits: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = _Shared([workers, "training={epochs: 7, batch_size: 64}"], used, monkeypatch)
    assert (run.run(), run.tried) == ("done", tried)
    told = capsys.readouterr().err.splitlines()
    assert len(told) >= waits and all(
        line.startswith("waiting for others to leave room or the cluster to grow, 0.0 of 60 minutes: ") for line in told
    )


def test_a_wait_for_what_others_use_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Shared([TWO, "search.wait_minutes=0.001"], [3], monkeypatch)
    left = r"^2 x \(1 CPUs\) are needed, and what others leave of the Ray cluster is 1 x \(1 CPUs\) after 0.001 minutes"
    with pytest.raises(UserError, match=left) as refused:
        run.run()
    assert not isinstance(refused.value, WorkersFailed), "Tune would repeat it"


@pytest.mark.parametrize(
    ("unused", "grows"),
    [
        ([{"CPU": 2.0, "memory": 8e9}], True),
        ([{"CPU": 2.0, "memory": 1e9}], False),
        ([{"CPU": 0.5, "memory": 8e9}, {"CPU": 1.5, "memory": 8e9}], False),  # a worker has its cores on one node
    ],
)
def test_more_workers_need_all_that_they_ask_for_unused(
    unused: list[dict[str, float]], grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = "workers={device: cpu, count: 4, min_count: 2, memory_gb: 2}"
    run = _Shared([workers, "training.batch_size=64"], [0], monkeypatch)
    monkeypatch.setattr(ray_train, "_GROW_EVERY", 0.0)
    monkeypatch.setattr(ray_train, "unused_nodes", lambda: unused)
    assert run._grows(2) is grows


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
