"""Placement groups whose creator is dead, which Ray keeps until the job ends."""

import time
from contextlib import suppress

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

_EVERY = 10.0  # seconds


class OrphanedGroups:
    """Removes the groups of this job that were created by actors that have died since.

    Ray Train's controller reserves what its workers need, and tells Ray's cleaner of it only when they have started. If
    it is killed before, with its node, nobody uses the group and no trial can have its cores: a sweep waited for room
    for its two workers beside an idle node that such a group held.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def look(self) -> None:
        """Remove what there is, every ten seconds at most."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        # The creator of a group is known to Ray's internal interface alone, which another Ray may have changed: no
        # reason to end a sweep.
        with suppress(ImportError, AttributeError):
            for group in _orphaned():
                remove_placement_group(group)


def _orphaned() -> list[PlacementGroup]:
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    job = ray.get_runtime_context().get_job_id()
    kind = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]  # made when it is imported
    table = map(kind.FromString, state._connect_and_get_accessor().get_placement_group_table())
    return [
        PlacementGroup(ray.PlacementGroupID(each.placement_group_id))
        for each in table
        if each.creator_actor_dead
        and each.creator_job_id.hex() == job
        and each.state != kind.REMOVED
        and not each.is_detached
        and each.creator_actor_id.strip(b"\xff")  # the driver's own groups have no actor, which counts as dead
    ]
