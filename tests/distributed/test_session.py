"""Ray for a command's length, on a machine where there may be another."""

import os
import subprocess
import sys

import pytest
import ray
from ray._private import services
from ray._private.parameter import RayParams
from ray._private.utils import detect_fate_sharing_support
from ray.tune.execution.class_cache import _ActorClassCache

from bgsweep.addresses import unreachable
from bgsweep.config import resolve
from bgsweep.distributed import session
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.warm import trial_environment, trials_apart

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


def test_a_started_rays_agent_takes_any_port() -> None:
    """It would try for 3.3 s to get the port that another Ray on the machine has."""
    before = RayParams().dashboard_agent_listen_port
    with session._any_agent_port():
        assert RayParams().dashboard_agent_listen_port == 0
    assert RayParams().dashboard_agent_listen_port == before != 0


@pytest.mark.skipif(not detect_fate_sharing_support(), reason="Ray finds its processes by their group")
def test_a_signal_to_the_drivers_group_does_not_reach_a_started_ray() -> None:
    before = services.ConsolePopen
    with session._own_session(), services.ConsolePopen(["sleep", "60"]) as process:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
        process.kill()
    assert services.ConsolePopen is before


@pytest.mark.slow
def test_a_first_trial_finds_a_process_that_has_imported_torch() -> None:
    config = resolve({"experiment": {"data": {"images": "sample"}}})

    def known() -> tuple[int, bool]:
        return os.getpid(), "torch" in sys.modules

    class Trial:
        def known(self) -> tuple[int, bool]:
            return os.getpid(), "torch" in sys.modules

    with ray_session(2), trials_apart(config):
        task = ray.get(ray.remote(**trial_environment())(known).remote())
        trial = ray.get(_ActorClassCache().get(Trial).remote().known.remote())
        assert task[1] and trial[1] and task[0] != trial[0]
        assert not ray.get(ray.remote(known).remote())[1], "only trials need torch"


def test_a_users_own_time_limit_reaches_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's message of a start that timed out advises to raise it."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "900")
    monkeypatch.delenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", raising=False)
    found = session._environment(None)
    assert found["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "900"
    assert found["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.5"
