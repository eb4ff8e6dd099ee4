"""A folder that one node of the cluster sees and another one does not."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from bgsweep.distributed.shared_folder import check_shared
from bgsweep.errors import UserError
from tests.faults.clusters import cluster
from tests.progress import wait_for


@pytest.mark.slow
def test_a_folder_that_another_node_does_not_see_is_refused(tmp_path: Path) -> None:
    """The second node's processes have a file system of their own in the folder's place, as another machine has."""
    local, shared = tmp_path / "local", tmp_path / "shared"
    local.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may give a process mounts of its own")
    with cluster(1) as made:
        ray.init(address=made.address, log_to_driver=False)
        try:
            check_shared(local, "the store", "name another")
            start = f"mount -t tmpfs none {local} && exec {Path(sys.executable).parent}/ray start --block --num-cpus=1"
            start += f" --address={made.address} --node-ip-address=127.0.0.9"
            node = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                wait_for(lambda: len(ray.nodes()) == 3, lambda: None, "the node does not come", node)
                check_shared(shared, "the store", "name another")
                with pytest.raises(
                    UserError,
                    match=rf"{local}: the store is a folder of this machine, which node \S+ does not see; name another",
                ):
                    check_shared(local, "the store", "name another")
            finally:
                node.terminate()
                node.wait()
        finally:
            ray.shutdown()
    assert not list(local.iterdir()) and not list(shared.iterdir())
