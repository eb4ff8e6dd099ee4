"""Placement groups that outlive their creator."""

import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from bgsweep.distributed.orphaned_groups import OrphanedGroups
from bgsweep.distributed.session import ray_session
from tests.progress import wait_for


def created(group: PlacementGroup) -> bool:
    return placement_group_table(group)["state"] == "CREATED"


@ray.remote(num_cpus=0)
class Creator:
    def reserve(self) -> PlacementGroup:
        group = placement_group([{"CPU": 1}])
        ray.get(group.ready())
        return group


@pytest.mark.slow
def test_what_a_dead_actor_reserved_is_given_back_and_nothing_else() -> None:
    with ray_session(3, dashboard=False):
        dying, living = Creator.remote(), Creator.remote()
        orphan, kept = ray.get([dying.reserve.remote(), living.reserve.remote()])
        own = placement_group([{"CPU": 1}])
        ray.get(own.ready())
        OrphanedGroups().look()
        assert created(orphan) and created(kept) and created(own)
        ray.kill(dying)

        def gone() -> bool:
            OrphanedGroups().look()
            return not created(orphan)

        wait_for(gone, lambda: placement_group_table(orphan), "the group of a dead actor stays")
        assert created(kept) and created(own)
        for group in (kept, own):
            remove_placement_group(group)
