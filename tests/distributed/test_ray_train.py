"""Ray Train's workers, restarted where workers or nodes are lost."""

from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from bgsweep.config import load
from bgsweep.distributed.ray_train import classify
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
