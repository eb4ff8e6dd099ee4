"""Ray for a command's length, on a machine where there may be another."""

import subprocess
import sys

import pytest
import ray

from bgsweep.addresses import unreachable
from bgsweep.distributed import session
from bgsweep.distributed.session import ray_session

ANOTHER = """
import ray, sys
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print("there", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_workers_find_their_own_dashboard_beside_another_ray() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as another:
        assert another.stdout is not None
        assert another.stdout.readline() == "there\n"
        with ray_session(2, dashboard=True):
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            assert not unreachable(host, int(port), speaks_http2=True), "a cluster that is there is not refused"

            @ray.remote
            class Alive:
                def sees_itself(self) -> bool:
                    from ray.train.v2._internal.state.util import is_actor_alive

                    return bool(is_actor_alive(ray.get_runtime_context().get_actor_id(), timeout=30))

            assert ray.get(Alive.remote().sees_itself.remote())
        another.communicate("\n")


def test_a_users_own_time_limit_reaches_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's message of a start that timed out advises to raise it."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "900")
    monkeypatch.delenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", raising=False)
    found = session._environment(None)
    assert found["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "900"
    assert found["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.5"
