"""Is a folder of this machine the same one on all nodes of the cluster?"""

import secrets
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bgsweep.errors import UserError, one_line

_SECONDS = 60.0


def check_shared(folder: Path, what: str, fix: str) -> None:
    """Look for a new file of the folder from a process on each node.

    Nodes that do not answer within a minute, which may be starting, are passed over.

    Args:
        what: the folder's role, for the message.
        fix: what to do where a node does not see it.

    Raises:
        UserError: a node has another folder, or none, under this path; or the folder cannot be written.
    """
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != _here()]
    if not others:
        return
    mark = folder / f".probe-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_bytes(b"")
        look: Any = ray.remote(num_cpus=0, max_retries=0)(_sees)
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                str(mark)
            ): node["NodeManagerAddress"]
            for node in others
        }
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS)
        blind = [asked[one] for one in answered if not _answer(one)]
    except OSError as error:
        raise UserError(f"{folder}: {what} cannot be written: {one_line(error)}; {fix}") from error
    finally:
        mark.unlink(missing_ok=True)
    if blind:
        node = f"node {blind[0]}" + (f" and {len(blind) - 1} others" if len(blind) > 1 else "")
        raise UserError(f"{folder}: {what} is a folder of this machine, which {node} does not see; {fix}")


def _here() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _sees(path: str) -> bool:
    return Path(path).exists()


def _answer(reference: Any) -> bool:
    try:
        return bool(ray.get(reference))
    except ray.exceptions.RayError:  # the node died while it was asked: nothing is known of its folders
        return True
